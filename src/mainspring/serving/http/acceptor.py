"""Accepts connections on a listening socket, within limits, and looks after those that are too slow."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable

from mainspring.core.settings import Limits, Tls
from mainspring.core.time import SystemClock
from mainspring.serving.http.connection import Connection, http_date
from mainspring.serving.http.handshake import PEER, TellingContext
from mainspring.serving.http.message import Head, Request
from mainspring.serving.http.pressure import Pressure

_AT_ONCE = 64  # connections accepted in one turn of the loop
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FULL_PAUSE_S = 0.5
_HANDSHAKE_S = 10.0
_READ = 1 << 14  # bytes at once; of larger bodies the rest goes where it belongs
_MOST_HEADS, _LONGEST_HEAD, _REMEMBERED_S = 512, 4096, 1.0

_log = logging.getLogger(__name__)


class Acceptor:
    """Serves HTTP/1.1 on this event loop from `start` until `close`.

    Args:
        listener: Listens already; it stays its owner's.
        handle: Is given each request when it is its turn, and answers it with `Request.respond`, now or later.
        unreadable: Is told the status with which something was refused that was no request.
        max_body_bytes: The largest body, as sent.
        tls: Files that `security.tls.check` has found good.

    Attributes:
        ending: Whether each reply is the last of its connection.
        heads: The bytes of a head -> the same read, and the size of the body that it announces. Of the last second.
        buffer: Where connections receive.
        pressure: Says when what is read came, and holds connections under overload.
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
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits or Limits()
        self.handle = handle
        self.unreadable = unreadable
        self.max_body_bytes = max_body_bytes
        self.secure = tls is not None
        self.ending = False
        self.heads: dict[bytes, tuple[Head, int]] = {}
        self.buffer = memoryview(bytearray(_READ))
        self.pressure = Pressure(self.loop)
        self._listener = listener
        self._context = None if tls is None else _context(tls)
        self._connections: set[Connection] = set()
        self._greeting: set[asyncio.Task[None]] = set()  # connections that are being made
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
        if self._looking is not None:
            self._looking.cancel()
        self.pressure.close()
        return finished

    # What connections say.

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self._accept_more()

    def remember(self, raw: bytes, request: Request) -> None:
        """Remember how a head was read, for about a second: for as long as who sent it may be."""
        head = request.head
        framed = head.headers.get("transfer-encoding") or head.headers.get("expect")
        if len(self.heads) < _MOST_HEADS and len(raw) <= _LONGEST_HEAD and not framed:
            self.heads[raw] = head, request.size

    def date(self) -> str:
        """Return the header line that says what time it is."""
        now = time.monotonic()
        if now >= self._date_until:
            self._date = http_date(self._clock.now() / 1e6)
            self._date_until = now + 0.5
        return self._date

    # Accepting.

    def _accept_more(self) -> None:
        if not self._accepting and not self._refusing:
            self._accepting = True
            self.loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._connections) + len(self._greeting) >= self.limits.connections:
                self._stop_accepting()  # until one is closed; the others wait in the kernel's queue
                return
            try:
                peer, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                _log.error("No connection can be accepted: %s.", error.strerror)
                self._stop_accepting()
                self.loop.call_later(_FULL_PAUSE_S, self._accept_more)
                return
            peer.setblocking(False)
            task = self.loop.create_task(self._greet(peer))
            self._greeting.add(task)
            task.add_done_callback(self._greeted)

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self.loop.remove_reader(self._listener.fileno())

    async def _greet(self, peer: socket.socket) -> None:
        PEER.set(peer)  # in this task's context
        try:
            await self.loop.connect_accepted_socket(
                lambda: Connection(self),
                peer,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else _HANDSHAKE_S,
            )
        except OSError as error:  # the peer left, or does not speak TLS as it must
            _log.info("A connection was not made: %s", error)
            peer.close()

    def _greeted(self, task: asyncio.Task[None]) -> None:
        self._greeting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A connection could not be made.", exc_info=error)

    def _look(self) -> None:
        """Look at every connection: one timer for all costs less than one each."""
        now = time.monotonic()
        if now >= self._forget_at:
            self.heads.clear()
            self._forget_at = now + _REMEMBERED_S
        for each in list(self._connections):
            each.look(now)
        every = min(self.limits.idle_us, self.limits.body_us) / 20e6
        self._looking = self.loop.call_later(min(1.0, max(0.02, every)), self._look)


def _context(tls: Tls) -> ssl.SSLContext:
    context = TellingContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key)
    context.set_alpn_protocols(["http/1.1"])
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
