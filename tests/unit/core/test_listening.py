"""Sockets of one address: who may have it, and who gets the connections."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from mainspring.core.errors import Conflict
from mainspring.core.listening import check_free, listen, listen_together, steer
from mainspring.core.settings import Address

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere whoever is faster accepts")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _address() -> Address:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", probe.getsockname()[1])


def _group(stack: ExitStack, count: int) -> tuple[Address, list[socket.socket]]:
    address = _address()
    found = listen_together(address, "gateway", count)
    for each in found:
        stack.enter_context(each)
        each.setblocking(False)
    return address, found


def _spread(stack: ExitStack, address: Address, listeners: Sequence[socket.socket], connections: int) -> Counter[int]:
    """Return how many connections each listener was given."""
    for _ in range(connections):
        stack.enter_context(socket.create_connection((address.host, address.port), timeout=10))
    return Counter({place: _accepted(stack, each) for place, each in enumerate(listeners)})


def _accepted(stack: ExitStack, listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            stack.enter_context(listener.accept()[0])
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("count", [1, 3])
def test_an_address_is_had_once(stack: ExitStack, count: int) -> None:
    address, _ = _group(stack, count)
    for attempt in (check_free, listen, lambda *both: listen_together(*both, 2)):
        with pytest.raises(Conflict, match=rf"127\.0\.0\.1:{address.port}.*--gateway"):
            attempt(address, "gateway")


def test_an_address_of_another_machine_cannot_be_had() -> None:
    with pytest.raises(Conflict, match=r"192\.0\.2\.1:80"):
        listen(Address("192.0.2.1", 80), "gateway")


@linux
def test_connections_are_spread_over_all(stack: ExitStack) -> None:
    address, group = _group(stack, 3)
    spread = _spread(stack, address, group, 120)
    assert sum(spread.values()) == 120
    assert min(spread[place] for place in range(3)) > 10  # by chance less than once in 10^9 runs


@linux
def test_connections_go_to_the_chosen_only(stack: ExitStack) -> None:
    address, group = _group(stack, 4)
    for chosen in ([2], [0, 3], [1, 2, 3], [0, 1, 2, 3]):
        steer(group, chosen)
        spread = _spread(stack, address, group, 80)
        assert {place for place, count in spread.items() if count} == set(chosen)


@linux
def test_a_stranger_that_joins_the_group_gets_nothing(stack: ExitStack) -> None:
    """The kernel lets a program of the same user in, if it asks for it as some servers do."""
    address, group = _group(stack, 2)
    stranger = stack.enter_context(socket.socket())
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    stranger.bind((address.host, address.port))
    stranger.listen()
    stranger.setblocking(False)
    spread = _spread(stack, address, [*group, stranger], 60)
    assert spread[2] == 0
    assert spread[0] + spread[1] == 60


def test_the_only_one_cannot_be_joined_at_all(stack: ExitStack) -> None:
    address, _ = _group(stack, 1)
    stranger = stack.enter_context(socket.socket())
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with pytest.raises(OSError, match="in use"):
        stranger.bind((address.host, address.port))


def test_who_waits_to_be_accepted_outlives_a_process_that_shared_the_socket(stack: ExitStack) -> None:
    address, group = _group(stack, 2)
    steer(group, [1])
    waiting = stack.enter_context(socket.create_connection((address.host, address.port), timeout=10))
    waiting.sendall(b"x")
    stack.enter_context(group[1].dup()).close()  # as the kernel does when a process dies
    group[1].setblocking(True)
    with group[1].accept()[0] as accepted:
        assert accepted.recv(1) == b"x"
