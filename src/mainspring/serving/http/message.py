"""A request as it comes, and what is sent back. Made for each request, so nothing here is frozen, which costs time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec
import numpy as np

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import DeadlineExceeded, MainspringError, Overloaded, QuotaExceeded
from mainspring.security.model import Principal
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.status import public_text, retry_after_s
from mainspring.serving.protocol.asked import Answered, Outside
from mainspring.serving.protocol.codec import ErrorResponse, encode

if TYPE_CHECKING:
    from mainspring.serving.http.connection import Connection

JSON = ("content-type", "application/json")
JSON_ONLY = (JSON,)
_LARGE = 1 << 14  # bytes of a body that are still to come, from which on they are received where they belong
_NUMBER = 8  # bytes of the largest number in a tensor


class Headers:
    """A request's headers by their names in lower case. Bytes that are no ASCII are read as Latin-1."""

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        self._first: dict[bytes, bytes] = {}
        self._more: list[tuple[bytes, bytes]] | None = None  # what stands more than once

    def add(self, name: bytes, value: bytes) -> None:
        """Add a line; `name` is in lower case."""
        if name not in self._first:
            self._first[name] = value
        elif self._more is None:
            self._more = [(name, value)]
        else:
            self._more.append((name, value))

    def get(self, name: str) -> str | None:
        """Return the first value of a header."""
        value = self._first.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        """Return every value of a header."""
        sought = name.encode()
        first = self._first.get(sought)
        if first is None:
            return []
        return [
            first.decode("latin-1"),
            *(value.decode("latin-1") for each, value in self._more or () if each == sought),
        ]

    def all(self) -> list[tuple[bytes, bytes]]:
        """Return every line; those of a name that stands more than once are at the end."""
        return [*self._first.items(), *(self._more or ())]


class Head:
    """A request line and its headers. Equal bytes share one head: see `Acceptor.heads`.

    Attributes:
        path: Of its target, with %-escapes resolved.
        last: Whether the peer wants the connection closed with the reply.
        chunks: Whether the peer reads a body in chunks, as HTTP/1.0 does not.
        plain: Whether the body is not encoded.
        passed: What an application has found out about it, for the next time.
        tensors: The same of what it says about tensors.
    """

    __slots__ = ("chunks", "headers", "last", "method", "passed", "path", "plain", "secure", "target", "tensors")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        *,
        secure: bool = False,
        last: bool = False,
        chunks: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path_of(target)
        self.headers = headers
        self.secure = secure
        self.last = last
        self.chunks = chunks
        self.plain = headers.get("content-encoding") is None
        self.passed: Any = None
        self.tensors: Any = None


class Request:
    """One request. Its body may still be on its way.

    Attributes:
        complete: Whether all of it is there.
        read: Instant at which its head was read, monotonic, µs.
        received: The earliest instant at which its head can have come, before that where the loop was behind.
        size: Number of received bytes of its body.
        template: Its path with names for what differs, see `routes`.
        model: As in the path, empty where it has none; so is `version`.
        id: Its request id in logs and traces.
        answered: Of an `infer`. `outside`: a call of another server for it, for its spans.
        on_leave: Is called if the peer leaves before it is answered.
    """

    __slots__ = (
        "_connection",
        "_failure",
        "_reserved",
        "_waiting",
        "answered",
        "complete",
        "head",
        "id",
        "model",
        "on_leave",
        "outside",
        "parts",
        "principal",
        "read",
        "received",
        "size",
        "template",
        "version",
    )

    def __init__(self, connection: Connection | Any, head: Head, received: int | None = None) -> None:
        self._connection = connection
        self._failure: MainspringError | None = None
        self._reserved = 0
        self._waiting: asyncio.Future[None] | None = None
        self.head = head
        self.complete = False
        self.read = monotonic_us()
        self.received = self.read if received is None else received
        self.parts: list[bytes | memoryview] = []
        self.size = 0
        self.template = self.model = self.version = self.id = ""
        self.principal: Principal | None = None
        self.answered: Answered | None = None
        self.outside: Outside | None = None
        self.on_leave: Callable[[], object] | None = None

    @property
    def headers(self) -> Headers:
        return self.head.headers

    @property
    def peer(self) -> tuple[str, int] | None:
        """The sender's address and port."""
        found: tuple[str, int] | None = self._connection.peer
        return found

    @property
    def body(self) -> bytes | memoryview:
        """The part of the body that has arrived."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    async def whole(self, align: int = 0) -> bytes | memoryview:
        """Return the body once all of it is there.

        Args:
            align: Which byte of it should lie where any number may begin, if it is large.

        Raises:
            Invalid: It ended before that, or is framed wrongly.
            NoRoom: Others that are arriving have all the room there is.
            TooLarge: It is larger than this server takes.
            TooSlow: It did not arrive in time.
        """
        if self._failure is not None:
            raise self._failure
        if not self.complete:
            length = int(self.headers.get("content-length") or 0)
            self._reserve(max(length, self.size))
            if (self.headers.get("expect") or "").lower() == "100-continue" and not self.size:
                self._connection.proceed()
            self._waiting = asyncio.get_running_loop().create_future()
            left = length - self.size
            if left >= _LARGE:
                self._connection.receive(self, self._room(left, align))
            await self._waiting
        return self.body

    def pause(self) -> None:
        """Leave the rest of its body unread until `resume`; meanwhile it does not count as arriving."""
        self._connection.pause(self)

    def resume(self) -> None:
        """Read on."""
        self._connection.resume()

    def _room(self, left: int, align: int) -> memoryview:
        """Move the received part of the body to a buffer with room for all of it, and return the free rest."""
        room = np.empty(self.size + left + _NUMBER, np.uint8)  # unlike a bytearray it is not cleared first
        start = -(room.ctypes.data + align) % _NUMBER
        whole = memoryview(room)[start : start + self.size + left]  # type: ignore[arg-type]
        whole[: self.size] = self.body
        self.parts = [whole]
        self.size += left
        return whole[-left:]

    def add(self, part: bytes) -> None:
        """Take a part of its body, which `size` counts already.

        Raises:
            NoRoom: Others that are arriving have all the room there is.
        """
        if self._waiting is not None:  # what comes with its head is not waited for
            self._reserve(self.size)
        self.parts.append(part)

    def _reserve(self, size: int) -> None:
        if size > self._reserved:
            self._connection.reserve(size - self._reserved)
            self._reserved = size

    def _unreserve(self) -> None:
        if self._reserved:
            self._connection.unreserve(self._reserved)
            self._reserved = 0

    def end(self) -> None:
        """Mark the body as complete."""
        self.complete = True
        self._unreserve()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def fail(self, error: MainspringError) -> None:
        """Mark the body as failed: the rest will not come."""
        self._failure = error
        self._unreserve()
        self.parts.clear()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def leave(self) -> None:
        """Mark the peer as gone."""
        self._unreserve()
        if self.on_leave is not None:
            self.on_leave()

    def respond(
        self, status: int, headers: Sequence[tuple[str, str]], body: bytes, *, overloaded: bool = False
    ) -> None:
        """Send the reply, once; `overloaded` says that it is a refusal for want of time or room."""
        self._connection.respond(self, status, headers, body, overloaded=overloaded)

    async def stream(self, status: int, headers: Sequence[tuple[str, str]], parts: AsyncGenerator[bytes, None]) -> None:
        """Send the reply in parts as they come, none faster than the peer reads. `parts` is closed in any case.

        If it raises, or this is cancelled, the reply is cut off: the peer can tell that it is not whole.
        """
        connection, whole = self._connection, False
        connection.start(self, status, headers)
        try:
            async for part in parts:
                if part:
                    connection.send(self, part)
                    if connection.choked:
                        await connection.room()
            whole = True
        finally:
            connection.finish(self, whole=whole)
            await parts.aclose()


class Reply(msgspec.Struct, eq=False):
    """Status, body and headers."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = JSON_ONLY


class Streamed(msgspec.Struct, eq=False):
    """Status and headers of a reply that comes in parts."""

    parts: AsyncGenerator[bytes, None]
    headers: tuple[tuple[str, str], ...]
    status: int = 200


def path_of(target: bytes) -> str:
    """Return the path of a request's target, with %-escapes resolved; bytes that are no UTF-8 become U+FFFD."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:  # as if to a proxy
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if b"%" in path:
        path = unquote_to_bytes(path)
    return path.decode(errors="replace")


def reply(status: int, value: Any) -> Reply:
    """Return `value` as JSON."""
    return Reply(status, encode(value))


def refusal(error: MainspringError) -> Reply:
    """Return the reply for an error."""
    if isinstance(error, (DeadlineExceeded, Overloaded)) and not isinstance(error, QuotaExceeded):
        return _overloaded(codes_of(error).http, public_text(error), retry_after_s(error))
    status = codes_of(error).http
    headers = [JSON]
    if status == 401:
        headers.append(("www-authenticate", 'Bearer realm="mainspring"'))
    after = retry_after_s(error)
    if after is not None:
        headers.append(("retry-after", str(after)))
    if isinstance(error, QuotaExceeded):
        headers += error.fields
    return Reply(status, encode(ErrorResponse(public_text(error))), tuple(headers))


@lru_cache(64)
def _overloaded(status: int, text: str, after_s: int | None) -> Reply:
    """Return a refusal that is made often, when there is least time for it."""
    after = () if after_s is None else (("retry-after", str(after_s)),)
    return Reply(status, encode(ErrorResponse(text)), (JSON, *after))
