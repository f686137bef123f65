"""Spans of requests: whose children they are, when they were, what they say, and what becomes of them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from kit.serving import NOW, bundle, full_request, model
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.security.model import Principal
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.http.message import Head, Request
from mainspring.serving.plane import runtime
from mainspring.serving.plane.lane import Lane, monotonic_us
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.plane.tracing import HUNG_UP, Tracing, parent_of
from mainspring.serving.protocol.asked import Answered, Outside
from mainspring.serving.protocol.codec import decode_infer, encode

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{PARENT}-01"
UNKEPT = f"00-{TRACE}-{PARENT}-00"
ROUTE = "/v2/models/{model}/infer"
SECRET = "ana@example.org"
WELL_FORMED = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


class Given(dict[str, str]):
    """Headers of a request."""

    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


class Stuck(SpanExporter):
    """Holds what it is given until it is let go; its thread waits as one does whose collector does not answer."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        assert self.go.wait(60)
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go.set()


def asked(traceparent: str | None = None, *, method: str = "POST", answered: Answered | None = None) -> Request:
    headers = Given({"authorization": SECRET, "x-request-id": SECRET})
    if traceparent is not None:
        headers["traceparent"] = traceparent
    somebody = Principal("key-1", SECRET, frozenset())
    request = Request(None, Head(method, b"/v2", headers))
    request.model, request.version, request.id, request.principal = "late-arrival", SECRET, SECRET, somebody
    request.received -= 5000
    request.answered = answered
    return request


def trace(tracing: Tracing, request: Request, status: int = 200, route: str = ROUTE) -> None:
    tracing.http(request, scheme="http", route=route, endpoint="late-arrival", status=status)


@contextmanager
def tracing(**settings: Any) -> Iterator[tuple[Tracing, InMemorySpanExporter]]:
    """Give what makes spans, and where they are once the block has ended."""
    exporter = InMemorySpanExporter()
    made = Tracing(exporter, clock=ManualClock(NOW), **settings)
    yield made, exporter
    made.close(30)


async def _infer(**shape: bool) -> Answered:
    with ThreadPoolExecutor(1) as threads:
        lane = Lane(
            "late-arrival",
            "7",
            runtime.load(bundle(model_onnx=model(**shape)), MemoryOnlineStore(), OnnxExecutor),
            log=MemoryLedger(),
            clock=ManualClock(NOW),
            metrics=EndpointMetrics(),
            threads=threads,
            reads=threads,
            max_queue_rows=100,
        )
        rows = lane.runtime.schema.read(decode_infer(encode(full_request())).asked.inputs)
        now = monotonic_us()
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = lane.job(rows, waiter, received=now, deadline=now + 60_000_000, priority=0, principal=SECRET)
        lane.submit(job)
        answer = await waiter
        begun = monotonic_us() * 1000
        return Answered("late-arrival", "7", [], ran=(lane, job, answer), encoded=(begun, monotonic_us() * 1000))


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "in a thread"])
def test_the_stages_of_a_request_are_its_children_and_follow_each_other(slow: bool) -> None:
    answered = asyncio.run(_infer(slow=slow))
    request = asked(answered=answered)
    request.received = answered.ran[1].arrived - 10  # type: ignore[index]
    with tracing() as (made, exporter):
        trace(made, request)
    *stages, root = exporter.get_finished_spans()
    assert [each.name for each in stages] == ["queue", "features", "compute", "log", "encode"]
    assert all(each.parent == root.context and each.context.trace_id == root.context.trace_id for each in stages)
    instants = [root.start_time, *(at for each in stages for at in (each.start_time, each.end_time)), root.end_time]
    assert instants == sorted(instants)
    assert root.end_time == NOW * 1000  # the world's time, not the monotonic
    assert root.end_time - root.start_time >= 10_000
    work = answered.ran[2].work  # type: ignore[index]
    length = {each.name: (each.end_time - each.start_time) // 1000 for each in stages}
    assert length["features"] == work.read - work.begun
    assert length["compute"] == int(work.took_us)
    if slow:
        assert length["compute"] > 1000
    assert root.name == f"POST {ROUTE}"
    assert root.kind is SpanKind.SERVER
    assert dict(root.attributes) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "mainspring.endpoint": "late-arrival",
        "mainspring.model.name": "late",
        "mainspring.model.version": "7",
        "mainspring.rows": 2,
        "mainspring.batch.rows": 2,
    }


def test_nothing_that_a_caller_writes_at_will_is_in_a_span() -> None:
    with tracing() as (made, exporter):
        trace(made, asked(answered=asyncio.run(_infer())))
        trace(made, asked(), 500)
        trace(made, asked(method=SECRET), 404, route="")
    assert len(exporter.get_finished_spans()) == 8
    assert not any(SECRET in span.to_json() for span in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("method", "route", "status", "name", "error"),
    [
        ("POST", ROUTE, 200, f"POST {ROUTE}", None),
        ("POST", ROUTE, 429, f"POST {ROUTE}", None),
        ("POST", ROUTE, 503, f"POST {ROUTE}", "503"),
        ("GET", "", 404, "GET", None),
        ("BREW", "", 404, "HTTP", None),
        ("POST", ROUTE, HUNG_UP, f"POST {ROUTE}", "hung_up"),
    ],
)
def test_a_span_says_how_it_ended(method: str, route: str, status: int, name: str, error: str | None) -> None:
    with tracing() as (made, exporter):
        trace(made, asked(method=method), status, route)
    (root,) = exporter.get_finished_spans()
    assert root.name == name
    assert root.attributes["http.request.method"] == ("_OTHER" if method == "BREW" else method)
    assert root.attributes.get("http.response.status_code") == (None if status == HUNG_UP else status)
    assert root.attributes.get("error.type") == error
    assert root.status.status_code is (StatusCode.UNSET if error is None else StatusCode.ERROR)


@pytest.mark.parametrize(
    ("code", "error"), [("OK", None), ("INVALID_ARGUMENT", None), ("CANCELLED", None), ("INTERNAL", "INTERNAL")]
)
def test_a_message_over_grpc(code: str, error: str | None) -> None:
    with tracing() as (made, exporter):
        made.rpc("s/M", [CALLER], received=monotonic_us(), endpoint="late-arrival", code=code, answered=None)
    (root,) = exporter.get_finished_spans()
    assert root.name == "s/M"
    assert f"{root.context.trace_id:032x}" == TRACE
    told = {"rpc.system.name": "grpc", "rpc.method": "s/M", "rpc.response.status_code": code}
    told |= {"mainspring.endpoint": "late-arrival"} | ({"error.type": error} if error else {})
    assert dict(root.attributes) == told


@given(st.one_of(st.text(max_size=80), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")))
@example(CALLER)
@example(CALLER.upper())
@example(f"{CALLER}-more")
@example("ff" + CALLER[2:])
@example(f"00-{'0' * 32}-{PARENT}-01")
@example(f"00-{TRACE}-{'0' * 16}-01")
@example(f"00-{TRACE}-{PARENT}")
@example("1" * 100_000)
def test_a_parent_is_what_the_specification_allows(text: str) -> None:
    found = get_current_span(parent_of([text])).get_span_context()
    if match := WELL_FORMED.fullmatch(text):
        assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == match.groups()
        assert found.is_remote
    elif text[:2] in ("00", "ff") and text == text.strip():
        assert not found.is_valid


def test_no_parent_where_there_are_two_or_none() -> None:
    assert not get_current_span(parent_of([])).get_span_context().is_valid
    assert not get_current_span(parent_of([CALLER, CALLER])).get_span_context().is_valid


@pytest.mark.parametrize(
    ("traceparent", "share", "kept"),
    [(None, 1.0, 1), (None, 0.0, 0), (CALLER, 0.0, 1), (UNKEPT, 1.0, 0), ("rubbish", 1.0, 1), ("rubbish", 0.0, 0)],
)
def test_a_caller_decides_of_its_own_traces_and_the_share_of_the_others(
    traceparent: str | None, share: float, kept: int
) -> None:
    with tracing(share=share) as (made, exporter):
        trace(made, asked(traceparent))
    spans = exporter.get_finished_spans()
    assert len(spans) == kept
    if spans and traceparent == CALLER:
        assert f"{spans[0].context.trace_id:032x}" == TRACE
        assert f"{spans[0].parent.span_id:016x}" == PARENT
    elif spans:
        assert spans[0].parent is None


def test_a_share_is_about_that_share() -> None:
    with tracing(share=0.25) as (made, exporter):
        for _ in range(2000):
            trace(made, asked())
    assert 380 <= len(exporter.get_finished_spans()) <= 620  # six deviations


def test_a_strangers_parent_does_not_count() -> None:
    request = asked(CALLER)
    request.principal = None
    with tracing() as (made, exporter):
        trace(made, request, 401)
    (root,) = exporter.get_finished_spans()
    assert root.parent is None
    assert f"{root.context.trace_id:032x}" != TRACE


def test_where_the_collector_is_stuck_whole_traces_are_dropped_and_counted() -> None:
    stuck, answered = Stuck(), asyncio.run(_infer())
    made = Tracing(stuck, clock=ManualClock(NOW), room=32)
    for _ in range(100):
        trace(made, asked(answered=answered))
    assert made.counts() == {"exported": 0, "failed": 0, "dropped": 95 * 6}
    stuck.go.set()
    made.close(30)
    assert made.counts() == {"exported": 30, "failed": 0, "dropped": 95 * 6}
    assert len({span.context.trace_id for span in stuck.spans}) == 5


def test_a_call_of_another_server_is_below_the_request() -> None:
    with tracing() as (made, exporter):
        request = asked(CALLER)
        request.outside = Outside(
            "chat m", request.received + 1000, request.received + 3000, {"gen_ai.usage": 3}, "failed"
        )
        trace(made, request)
    child, parent = exporter.get_finished_spans()
    assert (child.name, child.kind, child.parent.span_id) == ("chat m", SpanKind.CLIENT, parent.context.span_id)
    assert child.end_time - child.start_time == 2_000_000
    assert dict(child.attributes) == {"gen_ai.usage": 3, "error.type": "failed"}
    assert child.status.status_code is StatusCode.ERROR
    assert parent.status.status_code is StatusCode.UNSET


def test_the_end_does_not_wait_for_a_collector_that_is_stuck() -> None:
    stuck = Stuck()
    made = Tracing(stuck, clock=ManualClock(NOW))
    trace(made, asked())
    made.close(0.05)  # without its bound it would wait until the assertion in `export`
    assert made.counts()["exported"] == 0
    assert not stuck.go.is_set()
    stuck.go.set()


class Failing(SpanExporter):
    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._error is not None:
            raise self._error
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize("error", [None, OSError("no route to host")], ids=["refused", "raised"])
def test_what_a_collector_does_not_take_is_counted(error: Exception | None) -> None:
    made = Tracing(Failing(error), clock=ManualClock(NOW))
    for _ in range(3):
        trace(made, asked())
    made.close(30)
    assert made.counts() == {"exported": 0, "failed": 3, "dropped": 0}


def test_a_fault_of_tracing_is_not_the_requests(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def now(self) -> int:
            raise RuntimeError("no time")

    made = Tracing(InMemorySpanExporter(), clock=Broken())
    for _ in range(3):
        trace(made, asked())
    made.close(30)
    assert made.counts()["dropped"] == 3
    assert caplog.text.count("A span could not be created") == 1


def test_without_tracing_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; import mainspring.processes.gateway, mainspring.processes.grpc; "
        "import mainspring.serving.grpc.service; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
