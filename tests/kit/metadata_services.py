"""Metadata services of clouds, as strict as those are, on a port of this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, bytes, dict[str, str]]


class Service:
    """A service that a test plays; `answer` is that of a cloud."""

    def __init__(self) -> None:
        self.announced = threading.Event()
        self.asked: list[str] = []
        self._failing: tuple[int, bytes] | None = None
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(f"{self.command} {self.path}")
                status, body, headers = service.answered(self.command, self.path, dict(self.headers))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True).start()

    def announce(self) -> None:
        self.announced.set()

    def fail(self, status: int, body: bytes = b"") -> None:
        self._failing = (status, body) if status else None

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answered(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        if self._failing is not None:
            return (*self._failing, {"Location": f"{self.base}/elsewhere"})
        return self.answer(method, path, {name.lower(): value for name, value in headers.items()})

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        raise NotImplementedError


class Aws(Service):
    """Version 2 alone: no answer without a token, which may expire."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.recommended = ""
        super().__init__()

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        if path == "/latest/api/token":
            if method != "PUT" or not 1 <= int(headers.get("x-aws-ec2-metadata-token-ttl-seconds", "0")) <= 21600:
                return 400, b"", {}
            self.tokens.append(f"token-{len(self.asked)}==")
            return 200, self.tokens[-1].encode(), {}
        if headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            return 401, b"", {}
        if path == "/latest/meta-data/spot/instance-action" and self.announced.is_set():
            at = datetime.now(UTC) + timedelta(seconds=119)
            return 200, json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}).encode(), {}
        if path == "/latest/meta-data/events/recommendations/rebalance" and self.recommended:
            return 200, json.dumps({"noticeTime": self.recommended}).encode(), {}
        return 404, b"Not Found", {}


class Gcp(Service):
    """Answers a request that waits for a change when there is one."""

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        parts = urlsplit(path)
        if headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in headers:
            return 403, b"", {}
        if method != "GET" or parts.path != "/computeMetadata/v1/instance/preempted":
            return 404, b"", {}
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if asked.get("wait_for_change") == "true":
            until = time.monotonic() + int(asked["timeout_sec"])
            while self._now()[1] == asked.get("last_etag") and time.monotonic() < until:
                self.announced.wait(0.02)
        body, etag = self._now()
        return 200, body, {"Metadata-Flavor": "Google", "ETag": etag}

    def _now(self) -> tuple[bytes, str]:
        return (b"TRUE", "b2/+") if self.announced.is_set() else (b"FALSE", "a1/+")


class Azure(Service):
    """Lists the events of a set of machines, of which this is one."""

    machine = "set_3"

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = [self.event("Preempt", "set_4"), self.event("Reboot", self.machine)]
        super().__init__()

    def event(self, kind: str, machine: str, *, begun: bool = False) -> dict[str, Any]:
        at = "" if begun else format_datetime(datetime.now(UTC) + timedelta(seconds=29), usegmt=True)
        return {"EventId": "A123", "EventStatus": "Started" if begun else "Scheduled", "EventType": kind,
                "ResourceType": "VirtualMachine", "Resources": [machine], "NotBefore": at}  # fmt: skip

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        if headers.get("metadata") != "true" or method != "GET":
            return 400, b"", {}
        if path.startswith("/metadata/instance/compute/name?"):
            return 200, self.machine.encode(), {}
        if path.startswith("/metadata/scheduledevents?api-version="):
            events = [*self.events, *([self.event("Preempt", self.machine)] if self.announced.is_set() else [])]
            return 200, json.dumps({"DocumentIncarnation": 1, "Events": events}).encode(), {}
        return 404, b"", {}


CLOUDS: dict[str, type[Service]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


@contextmanager
def played(cloud: str) -> Iterator[Any]:
    """Play a cloud's service inside the block."""
    service = CLOUDS[cloud]()
    try:
        yield service
    finally:
        service.stop()
