"""One connection of HTTP/1.1 to an upstream, and an answer on it that is read as it comes."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from httptools import HttpParserError, HttpResponseParser

from mainspring.llm.model import Deadlines, UpstreamError

_MOST_HEAD = 1 << 16  # bytes
_MOST_BODY = 64 << 20
_HIGH = 1 << 18  # bytes that wait to be read, from which on the server is not read
_LEFT_S = 0.5  # in which the end of an answer may come after all that counts


class Pool(Protocol):
    """Where a connection belongs."""

    def release(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete."""
        ...

    def drop(self, connection: Connection) -> None:
        """Close a connection on which nothing more is wanted."""
        ...

    def error(self, kind: Any, what: str, **more: Any) -> UpstreamError:
        """Return an error of the upstream."""
        ...


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
        connection: Connection,
        owner: Pool,
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
        self._owner.drop(self._connection)


class Connection(asyncio.Protocol):
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
