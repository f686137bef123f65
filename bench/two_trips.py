"""Callers that ask two servers in turn: one for an entity's features, then another for the prediction from them.

So does a client of a feature server and a model server, which know nothing of each other. It is a closed loop: a caller
asks again as soon as it has its prediction, and a latency is of both round trips and what is between them.
"""

from __future__ import annotations

import json
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from mainspring.core.errors import Unavailable
from mainspring.serving.load.generator import Connection, Load

PATIENCE_S = 10.0
Address = tuple[str, int]
Next = Callable[[Any], bytes]  # what the first server answered -> what the second is asked


class Caller:
    """One caller, with a connection to each server."""

    def __init__(self, first: Address, second: Address) -> None:
        self.connections = (Connection(first), Connection(second))
        self.turn = 0
        self.begun = 0.0

    @property
    def current(self) -> Connection:
        return self.connections[self.turn]

    def ask(self, request: bytes, turn: int) -> None:
        self.turn = turn
        if turn == 0:
            self.begun = time.perf_counter()
        self.current.ask(request, self.begun)

    @property
    def answer(self) -> Any:
        return json.loads(self.current.buffer.partition(b"\r\n\r\n")[2])


def run(
    first: Address,
    second: Address,
    requests: Sequence[bytes],
    then: Next,
    *,
    callers: int,
    seconds: float,
) -> Load:
    """Ask for `seconds` and return what came of it; a refusal by either server counts once, with its status.

    Args:
        requests: To the first server, in turn.
        then: Makes the request to the second.

    Raises:
        Unavailable: One of the two leaves a request unanswered.
    """
    asking = [Caller(first, second) for _ in range(callers)]
    try:
        return _go(asking, cycle(requests), then, seconds)
    finally:
        for caller in asking:
            for connection in caller.connections:
                connection.sock.close()


def _go(callers: Sequence[Caller], requests: Iterator[bytes], then: Next, seconds: float) -> Load:
    poll, by_number = select.poll(), {}

    def watch(caller: Caller, connection: Connection) -> None:
        by_number[connection.sock.fileno()] = caller
        poll.register(connection.sock, select.POLLIN)

    for caller in callers:
        for connection in caller.connections:
            watch(caller, connection)
    begun = last = time.perf_counter()
    end = begun + seconds
    statuses: Counter[int] = Counter()
    good: list[float] = []
    bad: list[float] = []
    for caller in callers:
        caller.ask(next(requests), 0)
    asked = waiting = len(callers)
    while waiting and time.perf_counter() < max(last, end) + PATIENCE_S:
        for number, _ in poll.poll(100):
            caller = by_number[number]
            connection = caller.current
            if connection.sock.fileno() != number or not connection.answered():
                continue
            last = time.perf_counter()
            if connection.status == 200 and caller.turn == 0:
                caller.ask(then(caller.answer), 1)
                continue
            statuses[connection.status] += 1
            (good if connection.status == 200 else bad).append((last - caller.begun) * 1e6)
            if connection.status == 0:  # it was closed
                poll.unregister(number)
                connection.reopen()
                watch(caller, connection)
            if last < end:
                caller.ask(next(requests), 0)
                asked += 1
            else:
                waiting -= 1
    if waiting:
        raise Unavailable(f"{waiting} of {len(callers)} callers got no answer within {PATIENCE_S:g} s.")
    return Load(max(seconds, last - begun), None, asked, statuses, np.array(good), np.array(bad))
