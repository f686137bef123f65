"""Spans from real gateway and gRPC processes under the supervisor, at a real receiver of OTLP over HTTP."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from kit.collector import Collector, Received, collector
from kit.depth import deep
from kit.fleet import BODY, INFER, Fleet
from kit.serving import FEATURES
from kit.waiting import free_port, wait_until
from mainspring.processes.kinds import log_path
from mainspring.processes.supervisor import Supervisor
from mainspring.processes.tracing import traced
from mainspring.serving.protocol.tensor import DTYPES

STAGES = ["queue", "features", "compute", "log", "encode"]
ROOT = "POST /v2/models/{model}/infer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"
CALL = "inference.GRPCInferenceService/ModelInfer"
PARENT = "b7ad6b7169203331"


def trace_id(number: int) -> str:
    return f"{number:032x}"


def traceparent(number: int) -> str:
    return f"00-{trace_id(number)}-{PARENT}-01"


def counts(fleet: Fleet, slot: int = 0) -> dict[str, float]:
    """Return what became of a process's spans, by its metrics."""
    found = re.findall(rf'^mainspring_spans_total\{{slot="{slot}",outcome="(\w+)"\}} (\S+)', fleet.scrape(), re.M)
    return {outcome: float(count) for outcome, count in found}


def whole(received: Collector, number: int, root: str) -> dict[str, Received]:
    """Wait for all spans of a trace and check how they hang together."""
    spans = wait_until(
        lambda: (found := received.of(trace_id(number))) and len(found) == 6 and found, f"trace {number}"
    )
    assert set(spans) == {root, *STAGES}
    above = spans[root].span
    assert bytes(above.parent_span_id).hex() == PARENT
    assert all(bytes(spans[name].span.parent_span_id) == bytes(above.span_id) for name in STAGES)
    instants = [above.start_time_unix_nano]
    for name in STAGES:
        instants += [spans[name].span.start_time_unix_nano, spans[name].span.end_time_unix_nano]
    instants.append(above.end_time_unix_nano)
    assert instants == sorted(instants)
    return spans


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, received: Collector) -> Iterator[Fleet]:
    made = Fleet(
        tmp_path_factory.mktemp("traced"),
        workers=1,
        settings={"traces": received.url, "traces_share": 0.0, "grpc": f"127.0.0.1:{free_port()}"},
    )
    made.publish("1")
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in made._settings.items()}
    # A proxy of the environment must not get them.
    environment |= {"OMP_NUM_THREADS": "1", "http_proxy": "http://127.0.0.1:9"}
    supervisor = Supervisor(made.project, environment, parts=("gateway", "grpc"))
    with supervisor.running(ready_within_s=60.0):
        yield made


def test_a_request_over_http_is_a_child_of_its_callers_span(fleet: Fleet, received: Collector) -> None:
    before = time.time_ns()
    reply = fleet.ask("POST", INFER, BODY, traceparent=traceparent(1))
    after = time.time_ns()
    assert reply.status == 200
    spans = whole(received, 1, ROOT)
    root = spans[ROOT]
    assert before - 1_000_000 <= root.span.start_time_unix_nano <= after  # its end may be after the answer's arrival
    assert root.span.kind == root.span.SPAN_KIND_SERVER
    assert root.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/v2/models/{model}/infer",
        "http.response.status_code": 200,
        "mainspring.endpoint": "late-arrival",
        "mainspring.model.name": "late",
        "mainspring.model.version": "1",
        "mainspring.rows": 2,
        "mainspring.batch.rows": 2,
    }
    assert root.about["service.name"] == "fleet"
    assert root.about["service.instance.id"].startswith("gateway-0-")
    assert received.paths == {"/v1/traces"}
    wait_until(lambda: counts(fleet).get("exported", 0) >= 6, "the spans to be counted")
    assert counts(fleet) | {"exported": 0} == {"exported": 0, "failed": 0, "dropped": 0}


def test_what_is_refused_is_traced_too(fleet: Fleet, received: Collector) -> None:
    body = json.dumps({"inputs": []}).encode()
    assert fleet.ask("POST", INFER, body, traceparent=traceparent(2)).status == 400
    spans = wait_until(lambda: received.of(trace_id(2)), "a span")
    assert list(spans) == [ROOT]
    assert spans[ROOT].attributes["http.response.status_code"] == 400
    assert spans[ROOT].span.status.code == 0  # the caller's fault, not ours


def test_who_is_not_traced_and_who_writes_rubbish_is_answered_all_the_same(fleet: Fleet, received: Collector) -> None:
    for number, header in enumerate(("rubbish", "", "00-" + "0" * 32 + f"-{PARENT}-01", traceparent(3)[:-1] + "0")):
        assert fleet.ask("POST", INFER, BODY, traceparent=header).status == 200, number
    assert fleet.ask("POST", INFER, BODY, traceparent=traceparent(4)).status == 200
    whole(received, 4, ROOT)  # those before are out by now, if they are at all
    assert received.of(trace_id(3)) == {}
    assert received.of(trace_id(0)) == {}


def flights() -> list[Any]:
    inputs = []
    for name, (datatype, values) in FEATURES.items():
        made = triton.InferInput(name, [2], datatype)
        made.set_data_from_numpy(np.array([each if each is not None else 0 for each in values], DTYPES[datatype]))
        inputs.append(made)
    return inputs


def test_a_message_over_grpc(fleet: Fleet, received: Collector) -> None:
    inputs = flights()
    headers = {"authorization": f"Bearer {fleet.key}", "traceparent": traceparent(5)}

    def answered() -> Any:
        try:
            return client.infer("late-arrival", inputs, headers=headers, client_timeout=30)
        except InferenceServerException as error:
            if "UNAVAILABLE" in str(error.status()):
                return None
            raise

    with triton.InferenceServerClient(str(fleet.settings["grpc"])) as client:
        wait_until(answered, "an answer over gRPC")
        attributes = whole(received, 5, CALL)[CALL].attributes
        with pytest.raises(InferenceServerException):
            client.infer("nowhere", inputs, headers=headers | {"traceparent": traceparent(6)})
    assert attributes["rpc.system.name"] == "grpc"
    assert attributes["rpc.method"] == CALL
    assert attributes["rpc.response.status_code"] == "OK"
    assert attributes["mainspring.model.version"] == "1"
    assert attributes["mainspring.rows"] == 2
    refused = wait_until(lambda: received.of(trace_id(6)), "a span")[CALL]
    assert refused.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert "mainspring.endpoint" not in refused.attributes
    assert refused.about["service.instance.id"].startswith("grpc-")
    wait_until(lambda: counts(fleet, slot=1).get("exported", 0) >= 7, "gRPC's spans in the gateway's metrics")


def test_each_message_of_a_stream_is_a_span(fleet: Fleet, received: Collector) -> None:
    headers = {"authorization": f"Bearer {fleet.key}", "traceparent": traceparent(8)}
    told: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(str(fleet.settings["grpc"])) as client:
        client.start_stream(lambda result, error: told.put((result, error)), headers=headers)
        client.async_stream_infer("late-arrival", flights())
        client.async_stream_infer("nowhere", flights())
        errors = [told.get(timeout=60)[1] for _ in range(2)]
        client.stop_stream()
    assert [error is None for error in errors] == [True, False]

    def roots() -> list[Received]:
        return [each for each in list(received.spans) if each.trace == trace_id(8) and each.span.name == STREAM]

    wait_until(lambda: len(roots()) == 2, "a span a message")
    assert {each.attributes["rpc.response.status_code"] for each in roots()} == {"OK", "NOT_FOUND"}


def test_the_end_exports_what_waits(tmp_path: Path) -> None:
    with collector() as received:
        fleet = Fleet(tmp_path / "project", workers=1, settings={"traces": received.url}, forked=True)
        fleet.publish("1")
        with fleet.up():
            for number in range(10, 60):
                assert fleet.ask("POST", INFER, BODY, traceparent=traceparent(number)).status == 200
        assert all(len(received.of(trace_id(number))) == 6 for number in range(10, 60))


@deep
def test_a_collector_that_is_away_is_no_ones_trouble(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project", workers=1, settings={"traces": f"http://127.0.0.1:{free_port()}"}, forked=True)
    fleet.publish("1")
    with fleet.up():
        for _ in range(50):
            assert fleet.ask("POST", INFER, BODY).status == 200
        wait_until(lambda: counts(fleet)["failed"] > 0, "the spans to be given up")
        assert fleet.ask("POST", INFER, BODY).status == 200
        assert counts(fleet)["exported"] == 0
    log = log_path(fleet.project.settings.state, "gateway").read_text()
    assert "spans did not reach the collector" in log
    assert log.endswith("gateway ended\n")  # by itself, and not killed since it went on waiting


def test_an_exporter_is_built_by_the_setting_alone(tmp_path: Path) -> None:
    for settings in ({}, {"traces": f"http://127.0.0.1:{free_port()}"}):
        project = Fleet(tmp_path / str(len(settings)), settings=settings).project
        with traced(project, "gateway") as tracing:
            assert (tracing is not None) == bool(settings)
        project.close()


@deep
def test_without_the_setting_there_is_no_tracing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project", workers=1, forked=True)
    fleet.publish("1")
    with fleet.up():
        assert fleet.ask("POST", INFER, BODY, traceparent=traceparent(7)).status == 200
        assert "mainspring_spans" not in fleet.scrape()


def test_without_the_extra_its_install_line_is_told(tmp_path: Path) -> None:
    """In a process of its own, in which OpenTelemetry cannot be imported, as nothing else that is up needs it."""
    (tmp_path / "mainspring.toml").write_text('name = "empty"\n')
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from pathlib import Path
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.processes.supervisor import Supervisor
from mainspring.core.errors import MissingExtra
settings = {plane: "127.0.0.1:0" for plane in ("gateway", "control")} | {"traces": "http://127.0.0.1:4318"}
try:
    with Supervisor(open_project(load_settings(Path.cwd(), None, settings, {}))).running():
        pass
except MissingExtra as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    told = "Tracing requests needs the extra 'otel', which is not installed. Fix: pip install 'mainspring[otel]'\n"
    assert (ran.stdout, ran.returncode) == (told, 0), ran.stderr
