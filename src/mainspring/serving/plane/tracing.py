"""OpenTelemetry spans of requests: one for the request, and below it where its time went.

A request's spans are made when it is over, from the instants that its lane takes anyway, so a request that is under way
costs the same with and without. Only who traces imports this module, since it brings in OpenTelemetry.

Names and attributes follow the semantic conventions for HTTP (https://opentelemetry.io/docs/specs/semconv/http/), RPC
and generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/); `mainspring.*` is ours. No
attribute holds what a caller can write at will: not the path, not the request's id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mainspring.core.time import Clock
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.protocol.asked import Answered, Outside

if TYPE_CHECKING:
    from mainspring.serving.batching.batcher import Job
    from mainspring.serving.plane.batch_run import Answer, Ask
    from mainspring.serving.plane.lane import Lane

    Ran = tuple[Lane, Job[Ask], Answer]


class _Head(Protocol):
    @property
    def method(self) -> str: ...


class _Headers(Protocol):
    def get_all(self, name: str, /) -> Sequence[str]: ...


class HttpRequest(Protocol):
    """A request over HTTP, as spans describe it."""

    @property
    def head(self) -> _Head: ...
    @property
    def headers(self) -> _Headers: ...
    @property
    def principal(self) -> object | None: ...
    @property
    def received(self) -> int: ...
    @property
    def answered(self) -> Answered | None: ...
    @property
    def outside(self) -> Outside | None: ...


TRACEPARENT = "traceparent"
HUNG_UP = 499
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
# Of a gRPC server; the others are the caller's. https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_OURS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_ROOM = 8192  # spans that wait to be exported; further ones are dropped
_BATCH = 512
_EVERY_MS = 1000.0
_TIMEOUT_S = 5.0
_NO_PARENT = Context()

_log = logging.getLogger(__name__)
_propagator = TraceContextTextMapPropagator()
Attributes = dict[str, str | int]


def otlp(url: str) -> SpanExporter:
    """Return an exporter to a collector that takes OTLP over HTTP at `url`, such as `http://127.0.0.1:4318`."""
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    session = requests.Session()
    session.trust_env = False  # a proxy of the environment would get them instead
    return OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=_TIMEOUT_S, session=session)


def parent_of(given: Sequence[str]) -> Context:
    """Return the trace that a caller's headers `traceparent` name; an empty one unless there is one, well-formed.

    https://www.w3.org/TR/trace-context/. `tracestate` is not carried on: nobody is called from here.
    """
    return _propagator.extract({TRACEPARENT: given[0]}, Context()) if len(given) == 1 else _NO_PARENT


def stages(answered: Answered) -> Iterator[tuple[str, int, int]]:
    """Yield the name, start and end of what an `infer` went through; instants are monotonic, µs.

    `log` is the entry in the prediction log, which a `sync` endpoint waits for.
    """
    if answered.ran is not None:
        _, job, answer = cast("Ran", answered.ran)
        work = answer.work
        computed = work.called + int(work.took_us)
        yield "queue", job.arrived, work.begun
        yield "features", work.begun, work.read
        yield "compute", work.called, computed
        yield "log", computed, work.answered
    if answered.encoded is not None:
        begun, ended = answered.encoded
        yield "encode", begun // 1000, ended // 1000


class Tracing:
    """Makes spans of requests and has them exported in a thread of its own. Call it on the event loop that serves.

    Args:
        clock: The time of the world; spans carry UTC.
        share: Sampled share of the traces that begin here. A caller's own are sampled if the caller samples them.
        about: Description of this process, attributes of OpenTelemetry's resource such as `service.name`.
        room: Largest number of spans that wait for export.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        clock: Clock,
        share: float = 1.0,
        about: Mapping[str, str | int] | None = None,
        room: int = _ROOM,
    ) -> None:
        self._clock = clock
        self._room = room
        self._exporter = _Counting(exporter)
        self._handed = self._dropped = 0
        self._faulty = False
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource(dict(about or {})),
            shutdown_on_exit=False,
        )
        processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=room,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=min(_BATCH, room),
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("mainspring")

    def counts(self) -> Mapping[str, int]:
        """Return how many spans were exported, refused by the collector or not taken in time, and dropped unsent."""
        return {"exported": self._exporter.exported, "failed": self._exporter.failed, "dropped": self._dropped}

    def http(self, request: HttpRequest, *, scheme: str, route: str, endpoint: str, status: int) -> None:
        """Record a request over HTTP that is over.

        Args:
            route: Its route's template, empty if there is no such route.
            endpoint: The endpoint that it is about, empty if none is served by that name.
            status: Status of the reply; `HUNG_UP` if the caller was gone.
        """
        method = request.head.method if request.head.method in _METHODS else "_OTHER"
        said = "HTTP" if method == "_OTHER" else method
        attributes: Attributes = {"http.request.method": method, "url.scheme": scheme}
        if route:
            attributes["http.route"] = route
        failed = ""
        if status == HUNG_UP:
            failed = "hung_up"
        else:
            attributes["http.response.status_code"] = status
            failed = str(status) if status >= 500 else ""
        # A stranger's word on what is kept does not count.
        given = request.headers.get_all(TRACEPARENT) if request.principal is not None else ()
        self._record(
            f"{said} {route}" if route else said,
            given,
            received=request.received,
            endpoint=endpoint,
            attributes=attributes,
            failed=failed,
            answered=request.answered,
            outside=request.outside,
        )

    def rpc(
        self, method: str, given: Sequence[str], *, received: int, endpoint: str, code: str, answered: Answered | None
    ) -> None:
        """Record a message over gRPC that is answered.

        Args:
            method: Service and call, `inference.GRPCInferenceService/ModelInfer`.
            given: The caller's metadata `traceparent`.
            code: The status by its name, `OK`.
        """
        attributes: Attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": code}
        failed = code if code in _OURS else ""
        self._record(
            method,
            given,
            received=received,
            endpoint=endpoint,
            attributes=attributes,
            failed=failed,
            answered=answered,
        )

    def close(self, within_s: float = 2.0) -> None:
        """Export what waits, for so long at most, and end. Blocks."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(within_s)
        lost = self._handed - self._exporter.exported + self._dropped
        if lost:
            _log.warning("%d spans did not reach the collector.", lost)

    def _record(
        self,
        name: str,
        given: Sequence[str],
        *,
        received: int,
        endpoint: str,
        attributes: Attributes,
        failed: str,
        answered: Answered | None,
        outside: Outside | None = None,
    ) -> None:
        try:
            if endpoint:
                attributes["mainspring.endpoint"] = endpoint
            if answered is not None and answered.ran is not None:
                lane, job, answer = cast("Ran", answered.ran)
                attributes["mainspring.model.name"] = lane.runtime.manifest.model
                attributes["mainspring.model.version"] = lane.version
                attributes["mainspring.rows"] = job.rows
                attributes["mainspring.batch.rows"] = answer.work.rows
            below = list(stages(answered)) if answered is not None else []
            self._spans(name, parent_of(given), received, attributes, failed, below, outside)
        except Exception:  # whatever is wrong with spans, the request was answered
            self._dropped += 1
            if not self._faulty:
                self._faulty = True
                _log.exception("A span could not be created; further failures are not logged.")

    def _spans(
        self,
        name: str,
        parent: Context,
        received: int,
        attributes: Attributes,
        failed: str,
        below: Sequence[tuple[str, int, int]],
        outside: Outside | None,
    ) -> None:
        now = monotonic_us()
        offset = self._clock.now() - now
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes, start_time=(received + offset) * 1000)
        if not span.is_recording():
            return
        count = 1 + len(below) + (outside is not None)
        if self._handed - self._exporter.taken + count > self._room:
            self._dropped += count
            return
        self._handed += count
        context = set_span_in_context(span, Context())
        for stage, start, end in below:
            child = self._tracer.start_span(stage, context, start_time=(start + offset) * 1000)
            child.end((end + offset) * 1000)
        if outside is not None:
            began = (outside.begun + offset) * 1000
            child = self._tracer.start_span(
                outside.name, context, SpanKind.CLIENT, outside.attributes, start_time=began
            )
            _fail(child, outside.failed)
            child.end((outside.ended + offset) * 1000)
        _fail(span, failed)
        span.end((now + offset) * 1000)


def _fail(span: Span, failed: str) -> None:
    if failed:
        span.set_attribute("error.type", failed)
        span.set_status(Status(StatusCode.ERROR))


class _Counting(SpanExporter):  # type: ignore[misc]  # its package is not typed
    """An exporter that counts; in the thread of the batch processor."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.exported = self.failed = 0

    @property
    def taken(self) -> int:
        return self.exported + self.failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
