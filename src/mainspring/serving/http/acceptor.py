"""Accepts connections on a listening socket, within limits, and looks after those that are too slow."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from email.utils import formatdate
from ipaddress import ip_address
from typing import Any

from mainspring.core.errors import NoRoom
from mainspring.core.settings import Limits, Tls
from mainspring.core.time import SystemClock
from mainspring.security.renewal import LOOK_S, Renewing
from mainspring.serving.http.connection import Connection
from mainspring.serving.http.message import Head, Request
from mainspring.serving.http.pressure import Pressure

_AT_ONCE = 64  # connections accepted in one turn of the loop
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FULL_PAUSE_S = 0.5
_HANDSHAKE_S = 10.0
_SAFE_S = 1.0  # of being idle: after it hardly anybody sends in the very instant of being closed
_READ = 1 << 14  # bytes at once; of larger bodies the rest goes where it belongs
_MOST_HEADS, _LONGEST_HEAD, _REMEMBERED_S = 512, 4096, 1.0

_log = logging.getLogger(__name__)
_PEER: ContextVar[socket.socket] = ContextVar("peer")  # whose connection is made in this context


class _Telling(ssl.SSLObject):
    """A TLS connection that tells its peer why the handshake failed.

    asyncio closes the connection first, so a caller without the certificate that is wanted would see it cut off, and
    nothing else. The alert (RFC 8446, 6.2) is there already, in what OpenSSL has to send.
    """

    peer: socket.socket | None = None
    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.peer is not None:
                with suppress(OSError):  # it does not block, and whoever does not take it need not be told
                    self.peer.send(self.outgoing.read())
            raise


class _TellingContext(ssl.SSLContext):
    """For connections that are made in a context that has a `_PEER`."""

    sslobject_class = _Telling

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **named: Any) -> Any:
        made: Any = super().wrap_bio(incoming, outgoing, *arguments, **named)
        made.peer, made.outgoing = _PEER.get(None), outgoing
        return made


class Acceptor:
    """Serves HTTP/1.1 on this event loop from `start` until `close`.

    Args:
        listener: Listens already; it stays its owner's.
        handle: Is given each request when it is its turn, and answers it with `Request.respond`, now or later.
        unreadable: Is told the status with which something was refused that was not a request.
        max_body_bytes: The largest body, as sent.
        largest: Returns the largest body of a request with this head, where it may be larger than `max_body_bytes`.
        tls: Files of the certificate, which are loaded again when they change: for connections made after that.

    Attributes:
        ending: Whether each reply is the last of its connection.
        heads: The bytes of a head -> the same read, and the size of the body that it announces. Of the last second.
        buffer: Where connections receive.
        pressure: Says when what is read came, and holds connections under overload.

    Raises:
        Invalid: The certificate cannot be served; see `security.tls.check`.
    """

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[Request], None],
        *,
        unreadable: Callable[[int], None],
        max_body_bytes: int,
        limits: Limits | None = None,
        tls: Tls | None = None,
        largest: Callable[[Head], int] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits or Limits()
        self.handle = handle
        self.unreadable = unreadable
        self.max_body_bytes = max_body_bytes
        self.largest = largest or (lambda _: max_body_bytes)
        self.secure = tls is not None
        self.ending = False
        self.heads: dict[bytes, tuple[Head, int]] = {}
        self.buffer = memoryview(bytearray(_READ))
        self.pressure = Pressure(self.loop)
        self._listener = listener
        self._certificate = None if tls is None else Renewing(tls, _context)
        self._renewing: asyncio.Task[None] | None = None
        self._connections: set[Connection] = set()
        self._greeting: dict[asyncio.Task[None], _Greeting] = {}  # connections that are being made
        self._receiving = self._evicted = 0
        self._accepting = False
        self._refusing = False
        self._looking: asyncio.TimerHandle | None = None
        self._clock = SystemClock()
        self._date, self._date_until = "", 0.0
        self._forget_at = 0.0
        self._empty = asyncio.Event()
        self._empty.set()

    def start(self) -> None:
        """Accept from now on."""
        self._listener.setblocking(False)
        self._accept_more()
        self._look()
        if self._certificate is not None:
            self._renewing = self.loop.create_task(_renew(self._certificate))

    def refuse_more(self) -> None:
        """Accept no more connections and go on serving those there are."""
        self._refusing = True
        self._stop_accepting()

    async def close(self, within_s: float) -> bool:
        """Close each connection with its next reply, those that are idle at once, and those that are left after
        `within_s` seconds anyhow. Returns whether none was left."""
        self.refuse_more()
        self.ending = True
        for each in list(self._connections):
            each.close_if_idle()
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            pass
        finished = not self._connections
        for each in list(self._connections):
            each.abort()
        for task in self._greeting:
            task.cancel()
        for timer in (self._looking, self._renewing):
            if timer is not None:
                timer.cancel()
        self.pressure.close()
        return finished

    # Called by connections.

    def opened(self, connection: Connection, greeting: _Greeting) -> None:
        greeting.over = True
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self._accept_more()

    def reserve(self, count: int) -> None:
        """Make room for bytes of a body that is arriving; `unreserve` them when it is there, or will not be.

        Raises:
            NoRoom: The bodies that are arriving have all there is. One alone may be larger than that.
        """
        if self._receiving and self._receiving + count > self.limits.receiving_bytes:
            raise NoRoom("The server is receiving too many bytes; try again.", retry_after_ms=1000)
        self._receiving += count

    def unreserve(self, count: int) -> None:
        """Give back what `reserve` made room for."""
        self._receiving -= count

    def numbers(self) -> dict[str, int]:
        """Return the connections that are open, how many of them are held and were closed for others, the bytes of
        bodies that are arriving, and with TLS what became of the certificate's files."""
        renewals = {} if self._certificate is None else asdict(self._certificate.renewals)
        return {
            **{f"certificate_{name}": count for name, count in renewals.items()},
            "connections": self.open,
            "held_connections": self.pressure.holding,
            "evicted_connections": self._evicted,
            "receiving_bytes": self._receiving,
        }

    def remember(self, raw: bytes, request: Request) -> None:
        """Cache a parsed head for about a second: as long as the authentication of its sender is cached."""
        head = request.head
        framed = head.headers.get("transfer-encoding") or head.headers.get("expect")
        if len(self.heads) < _MOST_HEADS and len(raw) <= _LONGEST_HEAD and not framed:
            self.heads[raw] = head, request.size

    def date(self) -> str:
        """Return the `Date` header line."""
        now = time.monotonic()
        if now >= self._date_until:
            self._date = f"date: {formatdate(self._clock.now() / 1e6, usegmt=True)}\r\n"
            self._date_until = now + 0.5
        return self._date

    # Accepting.

    def _accept_more(self) -> None:
        if not self._accepting and not self._refusing:
            self._accepting = True
            self.loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        idle: list[Connection | _Greeting] | None = None
        for _ in range(_AT_ONCE):
            full = self.open >= self.limits.connections
            if full and idle is None:
                idle = self._idlest()
            if full and not idle:
                self._stop_accepting()  # until one is closed; the others wait in the kernel's queue
                return
            try:
                peer, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                _log.error("No connection can be accepted: %s.", error.strerror)
                self._stop_accepting()
                self.loop.call_later(_FULL_PAUSE_S, self._accept_more)
                return
            if full and idle:
                self._evict(idle.pop())
            peer.setblocking(False)
            greeting = _Greeting(peer, address[0], time.monotonic())
            task = greeting.task = self.loop.create_task(self._greet(greeting))
            self._greeting[task] = greeting
            task.add_done_callback(self._greeted)

    @property
    def open(self) -> int:
        """How many connections there are, with those that are being made."""
        return len(self._connections) + sum(not each.over for each in self._greeting.values())

    def _idlest(self) -> list[Connection | _Greeting]:
        """Return the connections that may be closed for a new one, the first to go last.

        Those go first that never showed a key, of them those of the address that has most, then the longest idle. Who
        did show one goes only after a second: its next request may be on its way.
        """
        now = time.monotonic()
        every: list[Connection | _Greeting] = [*self._connections, *(g for g in self._greeting.values() if not g.over)]
        counts = Counter(each.address for each in every)
        found = []
        for each in every:
            since = each.idle_since
            if since is not None and (not each.known or now - since > _SAFE_S):
                found.append((not each.known, counts[each.address] if not each.known else 0, -since, id(each), each))
        return [each[-1] for each in sorted(found)[-_AT_ONCE:]]

    def _evict(self, idle: Connection | _Greeting) -> None:
        self._evicted += 1
        if isinstance(idle, _Greeting):
            idle.over = True
            if idle.task is not None:
                idle.task.cancel()
        else:
            idle.abort()
            self.closed(idle)  # now, not when the loop gets there

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self.loop.remove_reader(self._listener.fileno())

    async def _greet(self, greeting: _Greeting) -> None:
        peer = greeting.peer
        _PEER.set(peer)  # in this task's context
        try:
            await self.loop.connect_accepted_socket(
                lambda: Connection(self, greeting),
                peer,
                ssl=None if self._certificate is None else self._certificate.current,
                ssl_handshake_timeout=None if self._certificate is None else _HANDSHAKE_S,
            )
        except OSError as error:  # the peer left, or does not speak TLS as it must
            level = logging.DEBUG if _is_own_probe(error, greeting.address) else logging.INFO
            _log.log(level, "A connection was not made: %s", error)
            peer.close()

    def _greeted(self, task: asyncio.Task[None]) -> None:
        greeting = self._greeting.pop(task)
        if task.cancelled():
            greeting.peer.close()  # it may not have begun
        elif (error := task.exception()) is not None:
            _log.error("A connection could not be made.", exc_info=error)

    def _look(self) -> None:
        """Look at every connection: one timer for all costs less than one each."""
        now = time.monotonic()
        if now >= self._forget_at:
            self.heads.clear()
            self._forget_at = now + _REMEMBERED_S
        for each in list(self._connections):
            each.look(now)
        self._accept_more()  # somebody may have been idle for long enough to go
        every = min(self.limits.idle_us, self.limits.body_us) / 20e6
        self._looking = self.loop.call_later(min(1.0, max(0.02, every)), self._look)


def _is_own_probe(error: OSError, address: str) -> bool:
    """Return whether a peer of this machine asked in plain HTTP, as the health check of a container does first."""
    return isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST" and ip_address(address).is_loopback


@dataclass(eq=False)
class _Greeting:
    """A connection that is being made; with TLS that takes some messages.

    Attributes:
        over: Whether it counts no more: it was made, or given up.
    """

    peer: socket.socket
    address: str
    idle_since: float
    known: bool = False
    over: bool = False
    task: asyncio.Task[None] | None = None


async def _renew(certificate: Renewing[ssl.SSLContext]) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        with suppress(RuntimeError):  # no thread can be started now
            await asyncio.to_thread(certificate.look)


def _context(tls: Tls) -> ssl.SSLContext:
    context = _TellingContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if tls.allows_1_2 else ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tls.cert, tls.key)
    context.set_alpn_protocols(["http/1.1"])
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
