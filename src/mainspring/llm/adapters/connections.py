"""HTTP/1.1 to an upstream: a pool of connections, and answers that are read as they come.

Measured in one process beside the same server, httpx takes sixteen times the processor for a whole answer, and five to
nine times for a stream of 68 events.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from mainspring.core.version import __version__
from mainspring.llm.model import Attempt, Deadlines, UpstreamError

_IDLE_S = 4.0  # less than the 5 s of uvicorn: a request that is sent as the server closes is lost
_MOST_IDLE = 64
_MOST_HEAD = 1 << 16  # bytes
_MOST_BODY = 64 << 20
_HIGH = 1 << 18  # bytes that wait to be read, from which on the server is not read
_LEFT_S = 0.5  # in which the end of an answer may come after all that counts


class Connections:
    """Connections to one server. Belongs to one event loop.

    Args:
        name: Of the upstream, for errors.
        url: Its address, with the path that all requests begin with.
        headers: Of every request.
        tls: For `https`.
    """

    def __init__(
        self, name: str, url: str, headers: Sequence[tuple[str, str]] = (), *, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(url)
        self.name = name
        self._host = parts.hostname or ""
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers)
        self._head = f"host: {parts.netloc}\r\nuser-agent: mainspring/{__version__}\r\n{lines}"
        self._heads: dict[tuple[str, str], bytes] = {}  # of requests to each path, but for what differs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
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
        head = self._heads.get((method, path))
        if head is None:
            head = self._heads[method, path] = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}".encode("latin-1")
        if headers:
            head += "".join([f"{key}: {value}\r\n" for key, value in headers]).encode("latin-1")
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

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for each in (*self._idle, *self._busy):
            each.abort()
        self._idle.clear()

    def _reused(self, now: float) -> _Connection | None:
        while self._idle:
            found = self._idle.pop()
            if found.open and now - found.idle_since < _IDLE_S:
                return found
            found.abort()
        return None

    async def _connect(self, within_s: float) -> _Connection:
        if self._closed:
            raise self.error("unreachable", "is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise self.error("unreachable", f"did not accept a connection within {within_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise self.error("unreachable", f"has a certificate that is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise self.error("unreachable", f"accepts no connection{_reason(error)}") from None
        return connection

    def release(self, connection: _Connection) -> None:
        """Take back a connection whose answer is complete."""
        self._busy.discard(connection)
        if connection.open and connection.reusable and not self._closed and len(self._idle) < _MOST_IDLE:
            connection.idle_since = connection.loop.time()
            self._idle.append(connection)
        else:
            connection.abort()

    def error(self, kind: Any, what: str, **more: Any) -> UpstreamError:
        """Return an error of this upstream."""
        return UpstreamError(f"The upstream {self.name!r} {what}.", kind=kind, upstream=self.name, **more)


class Answer:
    """One answer, whose body is read as it comes.

    Attributes:
        status: Of HTTP.
        headers: By name in lower case; of those that stand several times the last.
    """

    __slots__ = (
        *("_begun", "_connection", "_deadlines", "_ended", "_first_due", "_leaving", "_loop", "_owner", "_released"),
        *("_waiter", "awaited", "complete", "failure", "headers", "parts", "size", "status"),
    )

    def __init__(
        self,
        connection: _Connection,
        owner: Connections,
        loop: asyncio.AbstractEventLoop,
        begun: float,
        deadlines: Deadlines,
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.size = 0  # of the parts that wait
        self.complete = False
        self.failure: UpstreamError | None = None
        self.awaited = 0.0  # when what is waited for has to be there, by the loop's clock; 0: nothing is
        self._connection = connection
        self._owner = owner
        self._loop = loop
        self._begun = begun
        self._deadlines = deadlines
        self._first_due = begun + min(deadlines.first, deadlines.whole) / 1e6
        self._waiter: asyncio.Future[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._ended = self._released = False

    async def begin(self) -> None:
        """Wait for the head."""
        while not self.status:
            self._check()
            await self._wait(self._first_due)

    async def whole(self) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: It is late, too large, or breaks off.
        """
        found, size = [], 0
        while part := await self.next(self._first_due):
            found.append(part)
            size += len(part)
            if size > _MOST_BODY:
                raise self._owner.error("failed", f"gave an answer of more than {_MOST_BODY} bytes", begun=False)
        return b"".join(found)

    async def next(self, due: float) -> bytes:
        """Return what has come of the body since the last call, and wait where nothing has; empty at its end.

        Args:
            due: When it has to be there, by the loop's clock.

        Raises:
            UpstreamError: It is late or breaks off. A reader who is too slow for `due` does not get what waits either.
        """
        if not self.complete and (now := self._loop.time()) > due:
            self.late(now)
            self._check()
        while not self.parts:
            if self.complete:
                return b""
            self._check()
            await self._wait(due)
        parts, self.parts, self.size = self.parts, [], 0
        if self._connection.paused:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def due(self, begun: bool) -> float:
        """Return when the next event has to be there: the first, or the one after those of now."""
        if not begun:
            return self._first_due
        deadlines = self._deadlines
        return min(self._loop.time() + deadlines.between / 1e6, self._begun + deadlines.whole / 1e6)

    def close(self) -> None:
        """Let go of the connection: for the next request if nothing more comes on it, else for good. Idempotent."""
        if self._released:
            return
        self._released = True
        if self.complete:
            self._owner.release(self._connection)
        elif self.failure is None and self._ended:
            self._leaving = self._loop.call_later(_LEFT_S, self._give_up)
        else:
            self._give_up()

    def ended(self) -> None:
        """Note that all that counts has come, and at most the end of the body is still on its way."""
        self._ended = True

    # Called by the connection.

    def arrived(self, parts: list[bytes]) -> None:
        if self._released:
            return
        self.parts += parts
        for part in parts:
            self.size += len(part)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def completed(self) -> None:
        self.complete = True
        if self._released:
            if self._leaving is not None:
                self._leaving.cancel()
            self._owner.release(self._connection)
        self.wake()

    def fail(self, error: UpstreamError | None = None) -> None:
        """Note that no more will come: of an error, or because the connection is gone."""
        self.failure = self.failure or error or self._owner.error("broken", "closed the connection before its answer")
        if self._released:
            self._give_up()
        self.wake()

    def invalid(self, what: str) -> None:
        self.fail(self._owner.error("failed", f"gave no valid answer: {what}"))

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def late(self, now: float) -> None:
        """Note that what was waited for is not there in time."""
        waited = now - self._begun
        self.fail(self._owner.error("late", f"did not go on with its answer in time, {waited:.1f} s after the request"))

    async def _wait(self, due: float) -> None:
        """Wait until something has come, or raise when it is due."""
        self.awaited = due
        self._connection.watch(self, due)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.awaited = 0.0

    def _give_up(self) -> None:
        self._owner._busy.discard(self._connection)
        self._connection.abort()


class _Connection(asyncio.Protocol):
    """One connection. Its parser calls `on_*`.

    One timer serves all waits of all its answers. It is set anew only when it rings too early: to set one for each
    answer costs as much as to read an answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open = True
        self.reusable = True
        self.idle_since = 0.0
        self._answer: Answer | None = None
        self._watched: Answer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._parser: Any = None
        self._headers: dict[str, str] = {}
        self._size = self._bodiless = 0
        self.paused = False
        self._informational = False
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called for each chunk, which may be a token

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self.open = False
        if self._timer is not None and (self._watched is None or not self._watched.awaited):
            self._timer.cancel()
            self._timer = None
        answer, self._answer = self._answer, None
        if answer is None or answer.complete:
            return
        # Without a length the end of the connection is the end of the body.
        if answer.status and not {"content-length", "transfer-encoding"} & answer.headers.keys():
            self.reusable = False
            answer.completed()
        else:
            answer.fail()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # what nobody asked for
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._failed(str(error.__context__ or error))
            return
        if self._parts:
            self._bodiless = 0
            answer.arrived(self._parts)
            self._parts.clear()
        else:  # of a head or a trailer, whose fields the parser keeps while they last
            self._bodiless += len(data)
            if self._bodiless > _MOST_HEAD and not answer.complete:
                self._failed(f"its head is larger than {_MOST_HEAD} bytes")
                return
        if answer.size > _HIGH and not answer.complete and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def ask(self, answer: Answer, request: bytes) -> None:
        """Send a request."""
        self._answer = answer
        self._parser = HttpResponseParser(self)
        self._headers, self._size, self._bodiless = {}, 0, 0
        self._transport.write(request)

    def watch(self, answer: Answer, due: float) -> None:
        """Have an answer told when what it awaits is late."""
        self._watched = answer
        timer = self._timer
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timer = self.loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer, answer = None, self._watched
        if answer is None or not answer.awaited:
            return
        now = self.loop.time()
        if now < answer.awaited:
            self._timer = self.loop.call_at(answer.awaited, self._ring)
        else:
            answer.late(now)

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            if self.open:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > _MOST_HEAD:
            raise ValueError(f"its head is larger than {_MOST_HEAD} bytes")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._informational = status < 200
        if self._informational:
            self._headers = {}
            return
        answer = self._answer
        if answer is not None:
            answer.status, answer.headers = status, self._headers
            answer.wake()

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None or self._informational:
            return
        self._answer = None
        self.reusable = self.reusable and self._parser.should_keep_alive()
        if self._parts:
            answer.arrived(self._parts)
            self._parts.clear()
        answer.completed()

    def _failed(self, what: str) -> None:
        answer, self._answer = self._answer, None
        self.abort()
        if answer is not None:
            answer.invalid(what)


def _reason(error: OSError) -> str:
    """Return what an error says without the address, which is nobody's business."""
    return f": {os.strerror(error.errno)}" if error.errno is not None and error.errno > 0 else ""


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Return the time after which a server wants to be asked again, from its head. A date is taken for unknown."""
    for name, factor in (("retry-after-ms", 1), ("retry-after", 1000)):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text) * factor
    return None
