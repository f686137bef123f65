"""The control plane's server on an address, until a signal says to stop: an ASGI application behind the gateway's HTTP.

Both planes therefore have the same limits on connections, heads, bodies and time.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from mainspring.core.errors import MainspringError, NoRoom, TooLarge
from mainspring.core.listening import listen
from mainspring.core.settings import Address, Limits, Tls
from mainspring.serving.http.acceptor import Acceptor
from mainspring.serving.http.message import Head, Request, refusal

MAX_BODY_BYTES = 64 << 10
SIGNED = ("/api/webhooks/", "/api/edge/records/")  # these routes check a signature of the body themselves
MAX_DELIVERY_BYTES = 1 << 20  # of a webhook: a push of many commits; of a device: hundreds of predictions
_DELIVERIES = 8  # larger than other bodies, arriving at once
_CONNECTIONS = 256
# Bodies are read before authentication: slow ones must not exhaust the room of others.
LIMITS = Limits(
    connections=_CONNECTIONS,
    receiving_bytes=_CONNECTIONS * MAX_BODY_BYTES + _DELIVERIES * MAX_DELIVERY_BYTES,
    header_bytes=64 << 10,
)
_PATIENCE_S = 10  # at the end, for requests in flight
_JSON = (("content-type", "application/json"),)
_log = logging.getLogger(__name__)


async def serve(
    app: Any,
    address: Address,
    *,
    tls: Tls | None = None,
    limits: Limits = LIMITS,
    stop: asyncio.Event | None = None,
    started: Callable[[], None] | None = None,
    ending: Callable[[], None] | None = None,
) -> None:
    """Serve an ASGI application until SIGTERM, SIGINT or `stop`; requests in flight are finished.

    Args:
        tls: Files that `security.tls.check` has accepted.
        started: Called once requests are answered.
        ending: Called before the last requests are finished: those that only wait are to end.

    Raises:
        Conflict: The address is taken.
    """
    with listen(address, "control") as listener:
        stop, loop = stop or asyncio.Event(), asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        server = Acceptor(
            listener,
            _Application(app, address).handle,
            unreadable=lambda _: None,
            max_body_bytes=MAX_BODY_BYTES,
            limits=limits,
            tls=tls,
            largest=largest_body,
        )
        server.start()
        try:
            if started is not None:
                started()
            await stop.wait()
        finally:
            if ending is not None:
                ending()
            await server.close(_PATIENCE_S)
            for number in signals:
                loop.remove_signal_handler(number)


def largest_body(head: Head) -> int:
    """Return the largest body (bytes) of a request with this head."""
    return MAX_DELIVERY_BYTES if head.method == "POST" and head.path.startswith(SIGNED) else MAX_BODY_BYTES


class _Application:
    """Adapter for ASGI 3.0 applications that answer in one piece, as the console does."""

    def __init__(self, app: Any, address: Address) -> None:
        self._app = app
        self._server = (address.host, address.port)
        self._answering: set[asyncio.Task[None]] = set()
        self._deliveries = 0  # large ones that are arriving

    def handle(self, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, request: Request) -> None:
        try:
            body = await self._body(request)
        except MainspringError as error:
            told = refusal(error)
            request.respond(told.status, told.headers, told.body)
            return
        scope = self._scope(request)
        exchange = _Exchange(request, body, scope)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            _log.exception("%s %s failed", request.head.method, request.head.path)
        if not exchange.over:
            request.respond(500, _JSON, b'{"error":"Something went wrong here."}')

    async def _body(self, request: Request) -> bytes:
        """Return the body.

        Raises:
            TooLarge: It is too large.
            NoRoom: Too many large deliveries are arriving.
        """
        announced, most = int(request.headers.get("content-length") or 0), largest_body(request.head)
        if announced > most:
            raise TooLarge(f"The request's body is larger than {most // 1024} KiB.")
        if announced <= MAX_BODY_BYTES:
            return bytes(await request.whole())
        if self._deliveries >= _DELIVERIES:
            raise NoRoom("Too many large deliveries are arriving; send it again.", retry_after_ms=1000)
        self._deliveries += 1
        try:
            return bytes(await request.whole())
        finally:
            self._deliveries -= 1

    def _scope(self, request: Request) -> dict[str, Any]:
        head = request.head
        path, _, query = head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": head.method,
            "scheme": "https" if head.secure else "http",
            "path": head.path,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers.all(),
            "client": request.peer,
            "server": self._server,
        }


class _Exchange:
    """One request's complete body, and the response as it comes from the application."""

    def __init__(self, request: Request, body: bytes, scope: Mapping[str, Any]) -> None:
        self.over = False
        self._scope = scope
        self._request = request
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._start: MutableMapping[str, Any] = {}
        self._parts: list[bytes] = []
        request.on_leave = self._left.set

    async def receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False) or self.over:
            return
        self.over = True
        self._left.set()
        if (known := self._scope.get("mainspring.caller")) is not None:  # noted by the guard
            self._request.principal = known.principal
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._start["headers"]]
        self._request.respond(
            self._start["status"],
            [each for each in headers if each[0].lower() != "content-length"],  # the sender sets it
            b"".join(self._parts),
        )
