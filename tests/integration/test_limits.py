"""What one gateway process bears, over real sockets: heads, connections, slow callers, idle ones."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from kit.fleet import BODY, INFER, Fleet

LIVE = b"GET /v2/health/live HTTP/1.1\r\n"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    settings = {
        "gateway_max_connections": 8,
        "gateway_max_header_bytes": 16_384,
        "gateway_idle_timeout": "2s",
        "gateway_body_timeout": "2s",
    }
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), workers=1, settings=settings, forked=True)
    fleet.publish("1")
    with fleet.up():
        yield fleet


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _headers(count: int, size: int = 1) -> bytes:
    return b"".join(b"x-%d: %b\r\n" % (number, b"a" * size) for number in range(count))


def _say(fleet: Fleet, head: bytes, rest: bytes) -> int:
    with fleet.raw(head, rest) as connection:
        try:
            return _status(connection.recv(4096))
        except ConnectionResetError:  # the kernel's, since what was sent after the refusal was not read
            return 431


@pytest.mark.parametrize(
    ("head", "rest", "status"),
    [
        (LIVE, b"\r\n", 200),
        (LIVE, _headers(90) + b"\r\n", 200),
        (LIVE, _headers(200) + b"\r\n", 431),  # how many
        (LIVE, _headers(4, 1000) + b"\r\n", 200),
        (LIVE, _headers(30, 1000) + b"\r\n", 431),  # how much together
        (LIVE, _headers(1, 100_000) + b"\r\n", 431),  # how much in one
        (b"GET /v2/" + b"a" * 4000 + b" HTTP/1.1\r\n", b"\r\n", 404),
        (b"GET /v2/" + b"a" * 70_000 + b" HTTP/1.1\r\n", b"\r\n", 431),  # or 414; see below
        (b"GET /v2/health/live?" + b"a" * 70_000 + b" HTTP/1.1\r\n", b"\r\n", 431),
    ],
)
def test_heads(fleet: Fleet, head: bytes, rest: bytes, status: int) -> None:
    found = _say(fleet, head, rest)
    assert found == status or (status == 431 and found == 414)
    assert fleet.ask("POST", INFER, BODY).status == 200


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the other side closes within the connection's timeout."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    return True


def test_who_sends_no_head_in_time_is_cut_off(fleet: Fleet) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(fleet.raw(part)) for part in (b"", b"GET /v2/heal", LIVE)]
        for each in begun:
            assert _is_closed(each)


def test_who_drips_a_head_is_cut_off(fleet: Fleet) -> None:
    """Each byte comes in time, the head does not (slowloris)."""
    with fleet.raw(LIVE) as connection, pytest.raises(OSError, match=r"Broken pipe|reset"):
        _drip(connection)


def _drip(connection: socket.socket) -> None:
    for number in range(300):
        connection.sendall(b"x-%d: 1\r\n" % (number % 50))
        time.sleep(0.2)


def test_who_drips_a_body_is_cut_off(fleet: Fleet) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n".encode()
    with fleet.raw(head, b"\r\n") as connection:
        connection.settimeout(0.2)
        for number in range(len(BODY)):
            connection.sendall(BODY[number : number + 1])
            try:
                assert _status(connection.recv(4096)) == 408
                return
            except TimeoutError:
                continue
    raise AssertionError("it was never told")


def test_an_idle_connection_is_closed(fleet: Fleet) -> None:
    with fleet.raw(LIVE, b"\r\n") as connection:
        assert _status(connection.recv(4096)) == 200
        assert connection.recv(4096) == b""


def test_idle_connections_lock_nobody_out(fleet: Fleet) -> None:
    """Eight idle ones take every place; further ones take those of the longest idle."""
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(fleet.raw(b""))
        assert _status(stack.enter_context(fleet.raw(LIVE, b"\r\n")).recv(4096)) == 200
        assert fleet.ask("POST", INFER, BODY).status == 200


def test_a_body_is_read_whole_whatever_the_heads_limit(fleet: Fleet) -> None:
    padded = BODY[:-1] + b" " * 500_000 + b"}"
    assert fleet.ask("POST", INFER, padded).status == 200
