"""One connection of HTTP/1.1: its requests, the sending of replies, and limits for the peer.

Requests of one connection are answered one after another, in their order; while one waits behind another, nothing more
is read.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from fcntl import ioctl
from http import HTTPStatus
from termios import FIONREAD
from typing import TYPE_CHECKING, Any

from httptools import HttpParserUpgrade

from mainspring.core.errors import Invalid, MainspringError, TooLarge, TooSlow
from mainspring.serving.http.head_reader import HeadReader, Refusal
from mainspring.serving.http.message import Head, Request
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.protocol.codec import ErrorResponse, encode

if TYPE_CHECKING:
    from mainspring.serving.http.acceptor import Acceptor, _Greeting

_LINGER_S = 2.0  # in which what was sent behind a refusal is read and thrown away, so that the refusal arrives
_MANY = 1 << 20  # bytes of a large body that may wait in the kernel
_LINUX = sys.platform == "linux"
_MANY_PARTS = 1 << 12  # bytes of a part, or parts, that are sent at once
_LARGE = 1 << 16  # bytes; copying more to send it with its head costs more than sending it by itself
_BODILESS = frozenset({204, 304})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_START = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Connection(asyncio.BufferedProtocol):
    """A peer's connection and its requests.

    Args:
        owner: Whose limits it keeps and who is given its requests.
        greeting: How it came about.

    Attributes:
        address: Of the peer, without its port.
        known: Whether it ever sent a request with a key.
    """

    __slots__ = (
        *("_choked_since", "_closing", "_current", "_direct", "_ends", "_greeting", "_held_since", "_incoming"),
        *(
            "_chunked",
            "_last",
            "_lingers_until",
            "_owner",
            "_parts",
            "_queue",
            "_reader",
            "_reading",
            "_room",
            "_sends",
        ),
        *("_since", "_spared", "_transport", "address", "known"),
    )

    def __init__(self, owner: Acceptor, greeting: _Greeting) -> None:
        self._owner = owner
        self._greeting = greeting
        self.address = greeting.address
        self.known = False
        self._transport: Any = None
        self._reader = HeadReader(
            self._begin,
            self._take_body,
            self._complete,
            most_bytes=owner.limits.header_bytes,
            secure=owner.secure,
        )
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._incoming: Request | None = None  # whose body is being read
        self._direct: memoryview | None = None  # where the rest of it goes, past the parser
        self._since = time.monotonic()  # when a head was first waited for, or it was a request's turn
        self._choked_since = 0.0  # when the peer stopped reading; 0: it reads
        self._lingers_until = 0.0
        self._reading = True
        self._held_since = 0  # when it was last held, monotonic, µs; 0: nothing that it sends can have waited since
        self._spared = False  # whether it was just released: then one refusal does not hold it again
        self._closing = False  # whether the next reply is the last
        self._ends = False  # whether nothing of what it sends counts any more
        self._sends = True  # whether more may come
        self._chunked = self._last = False  # of the reply that is being sent in parts
        self._parts: list[bytes] = []  # of it, that are sent in this turn of the loop
        self._room: asyncio.Future[None] | None = None  # of who waits until the peer reads

    # Called by the transport.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._greeting.over:  # given up while it was being made
            transport.abort()
            return
        self._owner.opened(self, self._greeting)

    def connection_lost(self, _error: Exception | None) -> None:
        self._ends = True
        self._owner.closed(self)
        self._queue.clear()
        if self._incoming is not None:
            self._incoming.fail(Invalid("The body ended before it was complete."))
            self._incoming = None
        current, self._current = self._current, None
        self._wake()
        if current is not None:
            current.leave()

    def eof_received(self) -> bool:
        """Handle the peer's end of stream: refuse half a request; take a peer that waits for a reply as hung up."""
        self._sends = False
        incoming, self._ends = self._incoming, True
        if incoming is None or self._current is None:
            return False
        self._closing = True
        self._direct = None
        incoming.fail(Invalid("The body ended before it was complete."))
        return True

    def get_buffer(self, _sizehint: int) -> memoryview:
        # One for all: what is in it is taken before anybody else reads.
        return self._owner.buffer if self._direct is None else self._direct

    def buffer_updated(self, nbytes: int) -> None:
        if self._direct is None:
            self._take(bytes(self._owner.buffer[:nbytes]))
            return
        self._direct = self._direct[nbytes:]
        self._wake_at(len(self._direct))
        if not self._direct:
            self._direct = None
            self._reader.renew()
            self._complete()

    def receive(self, request: Request, into: memoryview) -> None:
        """Receive the rest of a request's body there: just as much as there is room."""
        if request is self._incoming:
            self._direct = into
            self._wake_at(len(into))

    def pause(self, request: Request) -> None:
        """Leave the rest of a request's body unread until `resume`."""
        if request is self._incoming:
            self._pause()

    def resume(self) -> None:
        """Read on, unless a request waits for its turn."""
        if not self._queue:
            self._resume()

    def _wake_at(self, left: int) -> None:
        """Be told of bytes when there are many, or all that are left: each time costs as much as a small request."""
        if _LINUX and not self._owner.secure:
            many = max(1, min(left, _MANY))
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, many)

    def _take(self, data: bytes) -> None:
        if self._ends:
            return
        raw = b""
        if self._reader.whole and not (self._incoming or self._current or self._queue or self._choked_since):
            # Between two requests. Who asks often asks with the same head, which was read and found good before.
            end = data.find(b"\r\n\r\n") + 4  # 3 where there is none: too short to be a head
            raw = data[:end]
            known = self._owner.heads.get(raw)
            if known is not None and len(data) - end == known[1]:
                request = self._current = Request(self, known[0], self._arrived())
                request.complete = True
                request.parts.append(data[end:])
                self._owner.handle(request)
                return
        self._read(data)
        if self._queue:
            if raw and len(self._queue) == 1 and not self._ends:
                request = self._queue[0]
                if request.complete and request.size == len(data) - len(raw):
                    self._owner.remember(raw, request)
            self._advance()

    def _read(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except HttpParserUpgrade:  # what follows is of a protocol that is not spoken here
            self._ends = self._closing = True
        except Refusal as refusal:
            self._ends = True
            self._unreadable(refusal.status, str(refusal))

    def _arrived(self) -> int:
        """Return the earliest instant at which what is read now can have come, monotonic, µs."""
        arrived, held_since = self._owner.pressure.arrived(), self._held_since
        if held_since:
            self._held_since = 0
            return min(arrived, held_since)
        return arrived

    def hold(self) -> None:
        """Stop reading until `release`."""
        if not self._transport.is_closing():
            self._held_since = monotonic_us()
            self._transport.pause_reading()

    def release(self) -> None:
        """Read again."""
        if self._transport.is_closing():
            return
        self._spared = True
        self._transport.resume_reading()
        if self._owner.secure:  # what the TLS layer has read meanwhile comes first in the next turn of the loop
            self._owner.loop.call_soon(self._count_anew)
        elif not _unread(self._transport.get_extra_info("socket")):
            self._count_anew()

    def _count_anew(self) -> None:
        """Note that nothing lies unread which came while this was held."""
        self._held_since = 0

    def pause_writing(self) -> None:
        self._choked_since = time.monotonic()

    def resume_writing(self) -> None:
        self._choked_since = 0.0
        self._wake()
        self._advance()

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # Called by the reader.

    def _begin(self, head: Head) -> None:
        request = Request(self, head, self._arrived())
        self._incoming = request
        self._queue.append(request)
        if len(self._queue) > 1 or self._current is not None:
            self._pause()

    def _take_body(self, part: bytes) -> None:
        request = self._incoming
        if request is None:
            return
        request.size += len(part)
        try:
            if request.size > self._owner.max_body_bytes and request.size > self._owner.largest(request.head):
                raise TooLarge(f"The body is larger than {self._owner.largest(request.head)} bytes.")
            request.add(part)
        except MainspringError as error:
            self._incoming = None
            request.fail(error)

    def _complete(self) -> None:
        request, self._incoming = self._incoming, None
        if request is not None:
            request.end()

    # Requests and replies.

    def _advance(self) -> None:
        """Have the next request answered, if it is its turn."""
        if self._current is not None or self._choked_since or self._transport.is_closing():
            return
        if self._queue:
            self._current = self._queue.popleft()
            self._since = time.monotonic()
            if not self._queue:
                self._resume()
            self._owner.handle(self._current)

    def respond(
        self,
        request: Request,
        status: int,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        overloaded: bool = False,
    ) -> None:
        """Send a request's reply, once. If the peer is gone, nothing happens.

        Args:
            overloaded: Whether it is a refusal for want of time or room.
        """
        if request is not self._current:
            return
        last = self._ends_with(request)
        length = "" if status in _BODILESS else f"content-length: {len(body)}\r\n"
        head = self._head(request, status, headers, length, last=last)
        if request.head.method == "HEAD":
            body = b""
        write = self._transport.write
        if len(body) < _LARGE:
            write(head + body)
        else:
            write(head)
            write(body)
        self._answered(request, last=last, overloaded=overloaded)

    def start(self, request: Request, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begin a reply whose body is sent in parts. If the peer is gone, nothing happens."""
        if request is self._current:
            self._chunked = request.head.chunks
            framing = "transfer-encoding: chunked\r\n" if self._chunked else ""
            self._last = self._ends_with(request) or not self._chunked
            self._parts = [self._head(request, status, headers, framing, last=self._last)]

    def send(self, request: Request, part: bytes) -> None:
        """Send a part, which is not empty, with those of the same turn of the loop: each time costs more than a part
        does."""
        if request is self._current:
            if len(self._parts) <= 1:  # nothing, or the head
                self._owner.loop.call_soon(self._flush)
            self._parts.append(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)
            if len(part) + len(self._parts) >= _MANY_PARTS:
                self._flush()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))

    @property
    def choked(self) -> bool:
        """Whether the peer does not read what was sent."""
        return self._choked_since != 0.0

    async def room(self) -> None:
        """Wait while the peer does not read what was sent, or until it is gone."""
        while self._choked_since and not self._transport.is_closing():
            self._room = self._room or self._owner.loop.create_future()
            await self._room

    def finish(self, request: Request, *, whole: bool) -> None:
        """End a reply in parts; one that is not whole is cut off, so that the peer can tell."""
        if request is not self._current:
            return
        if not whole:
            self.abort()
            return
        if self._chunked:
            self._parts.append(b"0\r\n\r\n")
        self._flush()
        self._answered(request, last=self._last or self._ends_with(request))

    def _ends_with(self, request: Request) -> bool:
        """Return whether the reply to a request is the last of this connection."""
        ends = (self._closing or self._owner.ending) and not self._queue
        return ends or request.head.last or not request.complete

    def _head(
        self, request: Request, status: int, headers: Sequence[tuple[str, str]], framing: str, *, last: bool
    ) -> bytes:
        if request.principal is not None:
            self.known = True
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        start = _START.get(status) or f"HTTP/1.1 {status} \r\n"
        end = "connection: close\r\n\r\n" if last else "\r\n"
        return f"{start}{lines}{self._owner.date()}{framing}{end}".encode("latin-1")

    def _answered(self, request: Request, *, last: bool, overloaded: bool = False) -> None:
        """Go on with the next request, or end after the last."""
        self._current = None
        if last:
            self._queue.clear()
            self._end(lingering=not request.complete)
            return
        self._since = time.monotonic()
        if self._queue:
            self._owner.loop.call_soon(self._advance)
        elif overloaded:
            spared, self._spared = self._spared, False
            self._owner.pressure.refused(self, monotonic_us() - request.read, hold=not spared)

    @property
    def idle_since(self) -> float | None:
        """Monotonic instant (s) of the last activity; `None` while a request is being read or answered."""
        if self._current is not None or self._queue or self._choked_since:
            return None
        return 0.0 if self._lingers_until else self._since

    @property
    def peer(self) -> tuple[str, int] | None:
        """The peer's address and port."""
        found = self._transport.get_extra_info("peername")
        return None if found is None else (found[0], found[1])

    def reserve(self, count: int) -> None:
        """Make room for bytes of a body; raises `NoRoom`."""
        self._owner.reserve(count)

    def unreserve(self, count: int) -> None:
        """Give them back."""
        self._owner.unreserve(count)

    def proceed(self) -> None:
        """Tell the peer to send the body that it announced."""
        self._transport.write(_CONTINUE)

    def _unreadable(self, status: int, what: str) -> None:
        """Refuse malformed input. If earlier requests are unanswered, answer those and close instead."""
        incoming, self._incoming = self._incoming, None
        if self._current is not None:
            self._closing = True
            if incoming is self._current:
                incoming.fail(Invalid(what))
            return
        if incoming is not None:
            self._queue.remove(incoming)
        if self._queue:
            self._closing = True
            self._advance()
            return
        self._owner.unreadable(status)
        content = encode(ErrorResponse(what))
        head = (
            f"{_START[status]}content-type: application/json\r\n{self._owner.date()}"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + content)
        self._end(lingering=True)

    def _end(self, *, lingering: bool) -> None:
        self._ends = True
        transport = self._transport
        if not lingering or self._lingers_until or not self._sends:
            transport.close()
            return
        self._lingers_until = time.monotonic() + _LINGER_S
        self._resume()
        if transport.can_write_eof():
            with suppress(OSError):  # it may be gone already
                transport.write_eof()

    def close_if_idle(self) -> None:
        """Close, unless something is being answered: then the reply is the last."""
        self._closing = True
        if self._current is None and not self._queue and not self._lingers_until:
            self._transport.close()

    def abort(self) -> None:
        """Break off, whatever is under way."""
        self._transport.abort()

    def look(self, now: float) -> None:
        """Enforce the idle, body and linger time-outs at `now`."""
        limits = self._owner.limits
        if self._lingers_until:
            if now > self._lingers_until:
                self._transport.abort()
        elif self._choked_since:
            if now - self._choked_since > limits.body_us / 1e6:
                self._transport.abort()
        elif self._current is None:
            if now - self._since > limits.idle_us / 1e6:
                if self._reader.whole:
                    self._transport.close()
                else:
                    self._ends = True
                    self._unreadable(408, f"The head was not received within {limits.idle_us / 1e6:g} s.")
        elif self._incoming is self._current and now - self._since > limits.body_us / 1e6:
            self._incoming = self._direct = None
            self._wake_at(1)
            self._current.fail(TooSlow(f"The body was not received within {limits.body_us / 1e6:g} s."))

    def _pause(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()


def _unread(sock: socket.socket) -> int:
    """Return how many bytes of a socket wait to be read."""
    count = array("i", [0])
    ioctl(sock.fileno(), FIONREAD, count)
    return count[0]
