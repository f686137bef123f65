"""A whole gateway in simulated time, from the caller's queue to the answer: what it does at ten times its capacity.

The parts that decide are the real ones, the batcher and `Pressure`; sockets, the event loop and what things cost are
simulated, so minutes of overload pass in a second, on any machine alike.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from mainspring.core.errors import DeadlineExceeded, Overloaded
from mainspring.core.time import ManualClock
from mainspring.serving.batching.batcher import Batcher, Job
from mainspring.serving.batching.estimates import Cost
from mainspring.serving.http.pressure import Pressure


@dataclass(frozen=True)
class Costs:
    """What things take, µs: measured of a gateway on one core, small requests of one row."""

    read: int = 12
    decode: int = 8
    refuse: int = 12
    answer: int = 25
    batch: int = 100
    row: int = 5
    rows: int = 1

    def capacity(self, batch: int = 64) -> float:
        """Requests per µs, in batches of so many requests."""
        each = self.read + self.decode + self.answer + self.row * self.rows
        return batch / (self.batch + each * batch)


class Caller:
    """A connection, and what is unread on it. Its caller sends the next request when the last one was answered."""

    def __init__(self, gateway: Gateway, number: int) -> None:
        self.gateway, self.number = gateway, number
        self.due: int | None = None  # of the request that lies unread
        self.asked = self.read = 0  # when the one was due that waits for its batch, and when it was read
        self.held = self.spared = False
        self.held_since = 0

    def hold(self) -> None:
        self.held, self.held_since = True, self.gateway.clock.now()

    def release(self) -> None:
        self.held, self.spared = False, True
        if self.due is None:
            self.held_since = 0


class Gateway:
    """An event loop in simulated time. `allowed` is what each request may take, µs, `rate` how many are due per µs."""

    def __init__(self, costs: Costs, *, rate: float, allowed: int, callers: int = 512, seed: int = 1) -> None:
        self.costs, self.allowed, self.clock = costs, allowed, ManualClock(1)
        self.pressure = Pressure(self, self.clock.now)
        cost = Cost()
        for rows in (1, 64, 1, 64):
            cost.observe(rows, costs.batch + costs.row * rows)
        self.batcher: Batcher[Caller] = Batcher(self.clock.now, max_queue_rows=4096, max_batch_rows=1024, cost=cost)
        self.callers = [Caller(self, number) for number in range(callers)]
        self.in_time = self.late = self.refused = self.lost = 0
        self._free = [(0, each.number) for each in self.callers]
        self._dues = self._poisson(random.Random(seed), rate)
        self._next = next(self._dues)
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[int, int, Callable[[], object]]] = []
        self._woken = False

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self._soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Callable[[], object]:
        heapq.heappush(self._timers, (self.clock.now() + int(delay * 1e6), len(self._timers), callback))
        return callback

    def run(self, until: int) -> float:
        """Serve until then and return the requests per µs that were answered in time, by the callers' clocks."""
        while self.clock.now() < until:
            self._turn()
        return self.in_time / until

    def _poisson(self, chance: random.Random, rate: float) -> Iterator[int]:
        at = 0.0
        while True:
            at += chance.expovariate(rate)
            yield int(at)

    def _send(self) -> None:
        """Let everything happen at the callers that was due by now."""
        while self._next <= self.clock.now():
            if self._free and self._free[0][0] <= self._next:
                self.callers[heapq.heappop(self._free)[1]].due = self._next
            else:
                self.lost += 1
            self._next = next(self._dues)

    def _turn(self) -> None:
        if not self._soon:
            self._send()
            if not any(each.due is not None and not each.held for each in self.callers):
                timer = self._timers[0][0] if self._timers else self._next
                self.clock.set(max(self.clock.now(), min(self._next, timer)))
        self._send()
        ready = [each for each in self.callers if each.due is not None and not each.held]
        soon, self._soon = self._soon, deque()
        while self._timers and self._timers[0][0] <= self.clock.now():
            soon.append(heapq.heappop(self._timers)[2])
        for callback in soon:
            callback()
        for each in ready:
            self._read(each)

    def _spend(self, us: int) -> None:
        self.clock.set(self.clock.now() + us)

    def _read(self, caller: Caller) -> None:
        began = self.clock.now()
        self._spend(self.costs.read)
        arrived = self.pressure.arrived()
        if caller.held_since:
            arrived, caller.held_since = min(arrived, caller.held_since), 0
        assert caller.due is not None
        assert arrived <= caller.due + 300, "what came was taken to have come later"
        self._spend(self.costs.decode)
        job = Job(caller, self.costs.rows, arrived + self.allowed)
        caller.asked, caller.read, caller.due = caller.due, began, None
        try:
            self.batcher.offer(job)
        except (DeadlineExceeded, Overloaded):
            self._refuse(caller, began)
            return
        if self.batcher.idle and not self._woken:
            self._woken = True
            self.call_soon(self._batch)

    def _refuse(self, caller: Caller, began: int) -> None:
        self._spend(self.costs.refuse)
        self.refused += 1
        spared, caller.spared = caller.spared, False
        self.pressure.refused(caller, self.clock.now() - began, hold=not spared)
        heapq.heappush(self._free, (self.clock.now(), caller.number))

    def _batch(self) -> None:
        self._woken = False
        began = self.clock.now()
        batch = self.batcher.take()
        for job in batch.late:
            self._refuse(job.payload, job.payload.read)
        if not batch.jobs:
            return
        self._spend(self.costs.batch + self.costs.row * batch.rows)
        for job in batch.jobs:
            self._spend(self.costs.answer)
            if self.clock.now() - job.payload.asked <= self.allowed:
                self.in_time += 1
            else:
                self.late += 1
            heapq.heappush(self._free, (self.clock.now(), job.payload.number))
        self.batcher.done(batch, self.clock.now() - began)
        if self.batcher.waiting_rows:
            self._woken = True
            self.call_soon(self._batch)


SMALL, ROWS = Costs(), Costs(decode=50, refuse=15, answer=30, row=6, rows=16)


@pytest.mark.parametrize(("costs", "allowed"), [(SMALL, 20_000), (ROWS, 50_000), (SMALL, 250_000)])
@pytest.mark.parametrize("times", [0.5, 1.0, 2.0, 4.0, 10.0])
def test_goodput_on_the_callers_clock_does_not_fall(costs: Costs, allowed: int, times: float) -> None:
    gateway = Gateway(costs, rate=times * costs.capacity(), allowed=allowed)
    goodput = gateway.run(1_000_000) / costs.capacity()
    assert goodput >= 0.9 * min(1.0, times)


class Turns:
    """A loop whose turns a test makes."""

    def __init__(self) -> None:
        self.clock, self.soon = ManualClock(1), list[Callable[[], object]]()

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.soon.append(callback)

    def call_later(self, _delay: float, callback: Callable[[], object], /) -> Callable[[], object]:
        return callback

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Held:
    held = False

    def hold(self) -> None:
        self.held = True

    def release(self) -> None: ...


@pytest.mark.parametrize(("each_us", "held"), [(20, 0), (200, 15)])
def test_what_a_refused_request_waited_in_its_queue_is_no_cost_of_the_refusal(each_us: int, held: int) -> None:
    """Forty that expired together, each 50 ms after it was read."""
    loop = Turns()
    pressure, callers = Pressure(loop, loop.clock.now), [Held() for _ in range(40)]
    for _ in callers:
        pressure.arrived()
    loop.turn()
    loop.clock.advance(50_000)
    pressure.arrived()
    loop.turn()
    for caller in callers:
        loop.clock.advance(each_us)
        pressure.refused(caller, 50_000, hold=True)
    assert pressure.holding == sum(caller.held for caller in callers)
    assert pressure.holding == pytest.approx(held, abs=3)
