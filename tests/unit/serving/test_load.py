"""The load generator, against servers whose behaviour is known."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mainspring.core.errors import Invalid, Unavailable
from mainspring.serving.load.generator import http_request, run

pytestmark = pytest.mark.slow

REQUEST = http_request("test", "/ask", b"{}")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
FULL = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers every request with what `answer` gives for its number; `None` hangs up."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # its thread must not go on with who has the number next
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            buffer = b""
            while part := sock.recv(65536):
                buffer += part
                while REQUEST in buffer:
                    buffer = buffer[len(REQUEST) :]
                    with self._lock:
                        number, self.asked = self.asked, self.asked + 1
                    answer = self._answer(number)
                    if answer is None:
                        return
                    sock.sendall(answer)


@contextmanager
def serving(answer: Callable[[int], bytes | None]) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("answer", [OK, CHUNKED])
def test_every_request_of_a_closed_loop_is_counted_once(answer: bytes) -> None:
    with serving(lambda _: answer) as server:
        load = run(server.address, [REQUEST], connections=4, seconds=0.3)
    assert load.asked == load.answered == server.asked > 0
    assert load.statuses == {200: load.asked}
    assert load.unasked == load.silent == 0


def test_an_open_loop_asks_as_often_as_it_was_told() -> None:
    with serving(lambda _: OK) as server:
        load = run(server.address, [REQUEST], connections=8, seconds=1.0, rate=200, seed=7)
    assert load.due == pytest.approx(200, abs=60)
    assert load.offered == 200


def test_a_caller_waits_from_when_its_request_was_due() -> None:
    """One stall of 0.3 s is met by everybody who comes meanwhile, not by the one request that it held up."""

    def stall(number: int) -> bytes:
        if number == 50:
            time.sleep(0.3)
        return OK

    with serving(stall) as server:
        load = run(server.address, [REQUEST], connections=1, seconds=1.0, rate=200, seed=7)
    assert (load.latencies_us > 100_000).sum() > 20


def test_refusals_are_no_answers() -> None:
    with serving(lambda number: FULL if number % 2 else OK) as server:
        load = run(server.address, [REQUEST], connections=1, seconds=0.2)
    assert load.statuses[429] == len(load.refusals_us)
    assert load.answered == load.statuses[200]
    assert abs(load.statuses[429] - load.statuses[200]) <= 1


def test_who_is_hung_up_on_calls_again() -> None:
    with serving(lambda number: None if number % 3 == 2 else OK) as server:
        load = run(server.address, [REQUEST], connections=2, seconds=0.3)
    assert load.statuses[0] > 0
    assert load.answered > 2
    assert load.statuses[0] + load.answered == load.asked


def test_the_warm_up_is_not_counted() -> None:
    with serving(lambda _: OK) as server:
        load = run(server.address, [REQUEST], connections=2, seconds=0.1, warm_up_s=0.2)
    assert server.asked > load.asked


def test_a_request_that_finds_its_callers_busy_is_lost_where_none_waits() -> None:
    """Two connections of a server that takes 10 ms answer 200 a second, whatever is due."""

    def slow(_: int) -> bytes:
        time.sleep(0.01)
        return OK

    with serving(slow) as server:
        load = run(server.address, [REQUEST], connections=2, seconds=0.5, rate=2000, waits=False, seed=7)
    assert load.due == pytest.approx(1000, abs=150)
    assert 0 < load.asked == load.answered <= 100 + 2
    assert load.unasked == load.due - load.asked


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    with pytest.raises(Unavailable, match="No server responds at 127"):
        run(address, [REQUEST], connections=1, seconds=0.1)


@pytest.mark.parametrize("wrong", [{"connections": 0}, {"seconds": 0}, {"rate": 0}])
def test_a_load_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="do not make a load"):
        run(("127.0.0.1", 1), [REQUEST], **{"connections": 1, "seconds": 1, **wrong})
