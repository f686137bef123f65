"""A collector of spans and metrics: a real receiver of OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Received:
    """A span, with what its exporter said of itself."""

    span: Span
    about: dict[str, Any]

    @property
    def trace(self) -> str:
        return bytes(self.span.trace_id).hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return _values(self.span.attributes)


@dataclass
class Collector:
    """What was received so far, at which paths."""

    port: int
    spans: list[Received] = field(default_factory=list)
    metrics: list[tuple[dict[str, Any], Any]] = field(default_factory=list)  # with what their exporter said of itself
    paths: set[str] = field(default_factory=set)
    status: int = 200  # of every answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, trace: str) -> dict[str, Received]:
        """Return the spans of a trace by name."""
        return {each.span.name: each for each in list(self.spans) if each.trace == trace}


def attributes(point: Any) -> dict[str, Any]:
    """Return the attributes of a data point of a metric."""
    return _values(point.attributes)


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    """Give a collector that listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/metrics":
                for resource in ExportMetricsServiceRequest.FromString(content).resource_metrics:
                    about = _values(resource.resource.attributes)
                    found.metrics.extend(
                        (about, metric) for scope in resource.scope_metrics for metric in scope.metrics
                    )
                body = ExportMetricsServiceResponse().SerializeToString()
            else:
                for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
                    about = _values(resource.resource.attributes)
                    found.spans.extend(Received(span, about) for scope in resource.scope_spans for span in scope.spans)
                body = ExportTraceServiceResponse().SerializeToString()
            found.paths.add(self.path)
            self.send_response(found.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
