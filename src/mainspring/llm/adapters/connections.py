"""HTTP/1.1 to an upstream: a pool of connections, and answers that are read as they come.

Measured in one process beside the same server, httpx takes sixteen times the processor for a whole answer, and five to
nine times for a stream of 68 events.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.version import __version__
from mainspring.llm.adapters.exchange import Answer, Connection
from mainspring.llm.model import Attempt, Deadlines, UpstreamError

_IDLE_S = 4.0  # less than the 5 s of uvicorn: a request that is sent as the server closes is lost
_MOST_IDLE = 64


class Connections:
    """Connections to one server. Belongs to one event loop.

    Args:
        name: Of the upstream, for errors.
        url: Its address, with the path that all requests begin with.
        headers: Tells those of every request.
        tls: For `https`.
    """

    def __init__(
        self,
        name: str,
        url: str,
        headers: Callable[[], Sequence[tuple[str, str]]] = tuple,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.name = name
        self._host = parts.hostname or ""
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._head = f"host: {parts.netloc}\r\nuser-agent: mainspring/{__version__}\r\n"
        self._headers, self._written = headers, headers()
        self._heads: dict[tuple[str, str], bytes] = {}  # of requests to each path, but for what differs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        deadlines: Deadlines,
        headers: Sequence[tuple[str, str]] = (),
        attempt: Attempt | None = None,
    ) -> Answer:
        """Send a request and return its answer once its head is there. `Answer.close` it in any case.

        Args:
            attempt: Is told whether the request was sent.

        Raises:
            UpstreamError: It is unreachable, late, or breaks off.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()
        begun = loop.time()
        head = self._head_of(method, path)
        if headers:
            head += _lines(headers)
        length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) if body else b""
        connection = self._reused(begun)
        if connection is None:
            if attempt is not None:
                attempt.sent = False
            connection = await self._connect(deadlines.connect / 1e6)
            if attempt is not None:
                attempt.sent = True
        self._busy.add(connection)
        answer = Answer(connection, self, loop, begun, deadlines)
        connection.ask(answer, b"%b%b\r\n%b" % (head, length, body))
        try:
            await answer.begin()
        except BaseException:
            answer.close()
            raise
        return answer

    def _head_of(self, method: str, path: str) -> bytes:
        """Return the head of a request, without the headers that differ from one to the next."""
        if (headers := self._headers()) != self._written:
            self._written = headers
            self._heads.clear()
        head = self._heads.get((method, path))
        if head is None:
            head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}".encode("latin-1") + _lines(headers)
            self._heads[method, path] = head
        return head

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for each in (*self._idle, *self._busy):
            each.abort()
        self._idle.clear()

    def _reused(self, now: float) -> Connection | None:
        while self._idle:
            found = self._idle.pop()
            if found.open and now - found.idle_since < _IDLE_S:
                return found
            found.abort()
        return None

    async def _connect(self, within_s: float) -> Connection:
        if self._closed:
            raise self.error("unreachable", "is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise self.error("unreachable", f"did not accept a connection within {within_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise self.error("unreachable", f"has a certificate that is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise self.error("unreachable", f"accepts no connection{_reason(error)}") from None
        return connection

    def release(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete."""
        self._busy.discard(connection)
        if connection.open and connection.reusable and not self._closed and len(self._idle) < _MOST_IDLE:
            connection.idle_since = connection.loop.time()
            self._idle.append(connection)
        else:
            connection.abort()

    def drop(self, connection: Connection) -> None:
        """Close a connection on which nothing more is wanted."""
        self._busy.discard(connection)
        connection.abort()

    def error(self, kind: Any, what: str, **more: Any) -> UpstreamError:
        """Return an error of this upstream."""
        return UpstreamError(f"The upstream {self.name!r} {what}.", kind=kind, upstream=self.name, **more)


def _reason(error: OSError) -> str:
    """Return what an error says without the address, which is nobody's business."""
    return f": {os.strerror(error.errno)}" if error.errno is not None and error.errno > 0 else ""


def _lines(headers: Sequence[tuple[str, str]]) -> bytes:
    return "".join([f"{key}: {value}\r\n" for key, value in headers]).encode("latin-1")


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Return the time after which a server wants to be asked again, from its head. A date is taken for unknown."""
    for name, factor in (("retry-after-ms", 1), ("retry-after", 1000)):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text) * factor
    return None
