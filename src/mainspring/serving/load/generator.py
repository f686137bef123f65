"""A load generator for HTTP/1.1: one thread, many connections, latencies from when a request was due.

In a closed loop every connection asks again as soon as it is answered. In an open loop requests are due at the instants
of a Poisson process, whatever the answers do, and a request that waits for a free connection has waited since it was
due: what a slow server makes its callers wait is counted (G. Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import select
import socket
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np

from mainspring.core.errors import Invalid, Unavailable

_READ = 1 << 18
_PATIENCE_S = 10.0  # without any answer
_SPIN_S = 0.002  # the kernel wakes a waiter too late to measure tens of microseconds


@dataclass(frozen=True, slots=True)
class Load:
    """Outcome of a load. `latencies_us` are of the answers with a status below 400, in the order they came; `due_us`
    when their requests were due, from the begin."""

    seconds: float
    offered: float | None  # requests a second that were due, `None` in a closed loop
    asked: int
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_us: np.ndarray[tuple[int], np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(0))
    refusals_us: np.ndarray[tuple[int], np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(0))
    due_us: np.ndarray[tuple[int], np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(0))
    unasked: int = 0  # due, and no connection was free in time to ask
    silent: int = 0  # asked, and never answered

    @property
    def due(self) -> int:
        return self.asked + self.unasked

    @property
    def answered(self) -> int:
        return len(self.latencies_us)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    def quantile_us(self, share: float) -> float | None:
        return float(np.quantile(self.latencies_us, share)) if self.answered else None


def http_request(host: str, path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return a POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    if not any(name.lower() == "content-type" for name, _ in headers):
        lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Connection:
    """A connection and the answer that it waits for."""

    __slots__ = ("_address", "buffer", "due", "needed", "sock", "status")

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.buffer = bytearray()
        self.due = 0.0
        self.needed = -1  # bytes of the whole answer; -1 while its head is not complete
        self.status = 0
        self.sock = self._opened()

    def _opened(self) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, timeout=_PATIENCE_S)
        except OSError as error:
            raise Unavailable(f"No server responds at {self._address[0]}:{self._address[1]}: {error}.") from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def reopen(self) -> None:
        self.sock.close()
        self.sock = self._opened()

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self.buffer.clear()
        self.needed = -1
        self.sock.sendall(request)

    def answered(self) -> bool:
        """Read what is there; return whether the answer is whole. A closed connection is an answer of status 0."""
        try:
            part = self.sock.recv(_READ)
        except ConnectionError:
            part = b""
        if not part:
            self.status = 0
            return True
        self.buffer += part
        if self.needed < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head(end + 4)
        return len(self.buffer) >= self.needed if self.needed else self.buffer.endswith(b"0\r\n\r\n")

    def _head(self, size: int) -> None:
        head = bytes(self.buffer[:size]).lower()
        self.status = int(head[9:12])
        at = head.find(b"content-length:")
        # An answer in chunks ends with an empty one.
        self.needed = 0 if at < 0 else size + int(head[at + 15 : head.index(b"\r\n", at)])


def run(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
    waits: bool = True,
    warm_up_s: float = 0.0,
    seed: int = 0,
    at: Sequence[float] | None = None,
    spins: bool = True,
) -> Load:
    """Generate load for `seconds` and return its outcome.

    Args:
        address: Host and port.
        requests: Whole requests as `http_request` makes them, sent in turn.
        connections: Number of concurrent connections.
        rate: Requests a second of an open loop; without it the loop is closed.
        waits: Whether a request that is due while no connection is free waits for one. Otherwise it is lost, as where
            each connection is a caller of its own that is still busy; of those due at once the newest is sent.
        warm_up_s: How long to ask before counting.
        at: Instants at which requests are due, seconds from the begin, ascending; with `rate` as their mean.
        spins: Whether it looks without a pause shortly before a request is due. Otherwise it leaves the core to others,
            and latencies are some tens of microseconds too long.

    Raises:
        Unavailable: Nothing answers.
        Invalid: A number is not positive.
    """
    if connections < 1 or seconds <= 0 or not requests or (rate is not None and rate <= 0):
        raise Invalid(f"{connections} connections for {seconds} s at {rate} requests/s do not make a load.")
    generator = _Generator(address, requests, connections, seed, _SPIN_S if spins else 0.0)
    try:
        if warm_up_s > 0:
            generator.go(warm_up_s, rate, waits)
        return generator.go(seconds, rate, waits, at)
    finally:
        generator.close()


class _Generator:
    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], connections: int, seed: int, spin_s: float
    ) -> None:
        self._connections = [Connection(address) for _ in range(connections)]
        self._random = np.random.default_rng(seed)
        self._spin_s = spin_s
        self._requests: Iterator[bytes] = cycle(requests)
        self._poll = select.poll()
        self._by_number: dict[int, Connection] = {}
        for each in self._connections:
            self._watch(each)

    def close(self) -> None:
        for each in self._connections:
            each.sock.close()

    def _watch(self, connection: Connection) -> None:
        self._by_number[connection.sock.fileno()] = connection
        self._poll.register(connection.sock, select.POLLIN)

    def go(self, seconds: float, rate: float | None, waits: bool, at: Sequence[float] | None = None) -> Load:
        begun = last = time.perf_counter()
        end = begun + seconds
        due = self._due(begun, end, rate) if at is None else [begun + each for each in at if each < seconds]
        come = 0  # of those that are due
        waiting: deque[float] = deque()
        free = deque(self._connections)
        statuses: Counter[int] = Counter()
        good: list[float] = []
        good_due: list[float] = []
        bad: list[float] = []
        asked = lost = 0
        while True:
            now = time.perf_counter()
            if come < len(due) and due[come] <= now:
                until = bisect_right(due, now, come)
                # Of more than there are connections the newest are sent, or none.
                first = come if waits else max(come, until - len(free))
                lost += first - come
                waiting.extend(due[first:until])
                come = until
            while free and now < end and (waiting or rate is None):
                free.popleft().ask(
                    next(self._requests), now if rate is None else waiting.popleft() if waits else waiting.pop()
                )
                asked += 1
                now = time.perf_counter()
            if not waits:
                lost += len(waiting)
                waiting.clear()
            if now >= end and (len(free) == len(self._connections) or now - max(last, end) > _PATIENCE_S):
                break
            timeout_ms = _timeout_ms(now, due[come] if come < len(due) else end, bool(free), self._spin_s)
            for number, _ in self._poll.poll(timeout_ms):
                connection = self._by_number[number]
                if not connection.answered():
                    continue
                last = time.perf_counter()
                statuses[connection.status] += 1
                if 200 <= connection.status < 400:
                    good.append((last - connection.due) * 1e6)
                    good_due.append((connection.due - begun) * 1e6)
                else:
                    bad.append((last - connection.due) * 1e6)
                if connection.status == 0:
                    self._renew(connection)
                free.append(connection)
        silent = [each for each in self._connections if each not in free]
        for connection in silent:
            self._renew(connection)
        took = max(seconds, last - begun)
        return Load(
            took, rate, asked, statuses, np.array(good), np.array(bad), np.array(good_due),
            lost + len(waiting), len(silent),
        )  # fmt: skip

    def _renew(self, connection: Connection) -> None:
        """Reopen the connection: late bytes on the old one belong to no request."""
        self._poll.unregister(connection.sock)
        del self._by_number[connection.sock.fileno()]
        connection.reopen()
        self._watch(connection)

    def _due(self, begun: float, end: float, rate: float | None) -> list[float]:
        if rate is None:
            return []
        gaps = self._random.exponential(1 / rate, int((end - begun) * rate * 1.1) + 100)
        dues = begun + np.cumsum(gaps)
        return dues[dues < end].tolist()  # type: ignore[no-any-return]


def _timeout_ms(now: float, until: float, can_ask: bool, spin_s: float) -> float:
    if not can_ask:
        return 100.0
    left = until - now
    return 0.0 if left <= spin_s else (left - spin_s) * 1000
