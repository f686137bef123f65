"""The number of executors: in a simulated queue against M/M/c, through bursts and pauses; and real processes."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from math import ceil, factorial

import pytest

from mainspring.serving.scaling.policy import BUSY, PATIENCE, SETTLE_S, Observed, Policy

TICK_S, START_S = 0.5, 1.0


def erlang_c(load: float, servers: int) -> float:
    """Return the probability that an arrival waits in M/M/c (Erlang, 1917)."""
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(load**each / factorial(each) for each in range(servers)) + last)


def least_servers(load: float, service_s: float, most_wait_s: float) -> int:
    """Return the smallest number of servers that is busy no more than `BUSY`, with a mean wait of at most so much."""
    servers = max(1, ceil(load / BUSY))
    while erlang_c(load, servers) * service_s / (servers - load) > most_wait_s:
        servers += 1
    return servers


@dataclass
class Simulated:
    """Jobs that arrive at random at servers whose number the policy decides; a new one takes `START_S` to come."""

    policy: Policy
    service_s: float = 0.1
    rng: random.Random = field(default_factory=lambda: random.Random(17))
    now: float = 0.0
    servers: int = 1
    runs: list[tuple[float, float]] = field(default_factory=list)
    coming: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=lambda: [0.0])  # when each server is
    waits: list[tuple[float, float]] = field(default_factory=list)  # (arrival, wait)
    sizes: list[tuple[float, int]] = field(default_factory=list)

    def run(self, seconds: float, rate: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self._tick(rate)

    def _tick(self, rate: float) -> None:
        end, asked, delays = self.now + TICK_S, 0, []
        arrival = self.now + (self.rng.expovariate(rate) if rate else TICK_S)
        while arrival < end:
            asked += 1
            if not self.servers:  # the first brings one back
                self.servers, self.free = 1, [arrival + START_S]
            begins = max(arrival, heapq.heappop(self.free))
            takes = self.rng.expovariate(1 / self.service_s)
            heapq.heappush(self.free, begins + takes)
            self.runs.append((begins, begins + takes))
            delays.append(begins - arrival)
            self.waits.append((arrival, begins - arrival))
            arrival += self.rng.expovariate(rate)
        self.now = end
        self.runs = [each for each in self.runs if each[1] > end - TICK_S]
        computed = sum(max(0.0, min(last, end) - max(first, end - TICK_S)) for first, last in self.runs)
        share = min(1.0, computed / TICK_S / max(1, self.servers))
        for at in [at for at in self.coming if at <= end]:
            self.coming.remove(at)
            heapq.heappush(self.free, at)
            self.servers += 1
        delay = sum(delays) / len(delays) if delays else 0.0
        wanted = self.policy.decide(Observed(end, self.servers, share, delay, 0, asked)).executors
        if wanted < self.servers:
            self.free = sorted(self.free)[:wanted]
            self.servers, self.coming = wanted, []
        elif not self.coming:
            self.coming = [end + START_S] * (wanted - self.servers)
        self.sizes.append((end, self.servers))

    def changes(self, since: float) -> int:
        found = [size for at, size in self.sizes if at >= since]
        return sum(one != other for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("load", [0.3, 1.5, 3.0, 6.0])
def test_a_steady_load_gets_about_as_many_as_queueing_theory_says_and_keeps_them(load: float) -> None:
    service_s, deadline_s = 0.1, 1.0
    right = least_servers(load, service_s, PATIENCE * deadline_s)
    simulated = Simulated(Policy(1, 32, deadline_s=deadline_s, idle_s=60.0))
    simulated.run(600, load / service_s)
    sizes = [size for at, size in simulated.sizes if at > 60]
    assert right <= sum(sizes) / len(sizes) <= 1.6 * right + 1
    assert simulated.changes(60.0) <= 540 / SETTLE_S + 2  # no more often than it may settle
    waits = [wait for at, wait in simulated.waits if at > 60]
    assert sum(waits) / len(waits) <= PATIENCE * deadline_s


def test_a_burst_is_met_within_seconds_and_its_executors_go_once() -> None:
    simulated = Simulated(Policy(1, 16, deadline_s=1.0, idle_s=60.0))
    simulated.run(60, 2.0)
    assert simulated.servers == 1
    for _ in range(3):  # waves that are closer together than the time to settle
        simulated.run(12, 60.0)
        simulated.run(8, 2.0)
    most = max(size for _, size in simulated.sizes)
    assert 6 <= most <= 16
    late = [wait for at, wait in simulated.waits if 70 < at < 120]
    assert max(late) < 1.0  # ten seconds into the first wave all are in time, and in the other waves
    rises = [other > one for (_, one), (_, other) in itertools.pairwise(simulated.sizes)]
    assert sum(rises) <= 8
    simulated.run(3 * SETTLE_S, 2.0)
    assert simulated.servers == 1


def test_none_without_requests_and_one_with_the_first() -> None:
    simulated = Simulated(Policy(0, 4, deadline_s=2.0, idle_s=20.0))
    simulated.run(30, 2.0)
    assert simulated.servers == 1
    begun = simulated.now
    simulated.run(60, 0.0)
    assert simulated.servers == 0
    gone = next(at for at, size in simulated.sizes if at > begun and not size)
    assert 15.0 <= gone - begun <= 22.0
    before = len(simulated.waits)
    simulated.run(10, 2.0)
    assert simulated.servers == 1
    assert simulated.waits[before][1] == pytest.approx(START_S)


def test_the_limits_hold() -> None:
    simulated = Simulated(Policy(2, 3, deadline_s=1.0, idle_s=1.0))
    simulated.servers, simulated.free = 2, [0.0, 0.0]
    simulated.run(60, 40.0)
    simulated.run(180, 0.0)
    assert {size for _, size in simulated.sizes} == {2, 3}
    assert simulated.servers == 2
