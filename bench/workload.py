"""Traffic and executors for the simulation, and what could be made of them at best. Times are µs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

Service = Callable[[int, int], int]  # (rows, now) -> µs


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come. `slack` is from its arrival to its deadline."""

    at: int
    rows: int = 1
    slack: int = 50_000
    priority: int = 0
    nbytes: int = 0
    cancelled_after: int | None = None

    @property
    def deadline(self) -> int:
        return self.at + self.slack


@dataclass(slots=True)
class Line:
    """A service time of a + b·rows, times what it meets.

    Args:
        noise: The standard deviation of a factor, relative.
        changes: From when on everything takes so many times as long: (instant, factor), in order.
    """

    fixed: int
    per_row: int
    noise: float = 0.0
    changes: tuple[tuple[int, float], ...] = ()
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def factor(self, now: int) -> float:
        return next((by for since, by in reversed(self.changes) if now >= since), 1.0)

    def __call__(self, rows: int, now: int) -> int:
        factor = self.factor(now)
        if self.noise:
            factor *= max(0.2, self.chance.gauss(1.0, self.noise))
        return max(1, round((self.fixed + self.per_row * rows) * factor))


def poisson(rate: float, until: int, *, slack: int, seed: int = 3) -> list[Arrival]:
    """Return single rows at `rate` rows a microsecond."""
    chance = random.Random(seed)
    return [Arrival(at, 1, slack) for at in _instants(chance, lambda _: rate, until)]


def bursty(rate: float, until: int, *, slack: int, seed: int = 3, period: int = 40_000) -> list[Arrival]:
    """Return single rows: a quarter of the time at three times the rate, the rest at a third of it."""
    chance = random.Random(seed)

    def now(at: float) -> float:
        return rate * (3 if at % period < period / 4 else 1 / 3)

    return [Arrival(at, 1, slack) for at in _instants(chance, now, until)]


def adversarial(rate: float, until: int, *, slack: int, seed: int = 3) -> list[Arrival]:
    """Return traffic made to hurt: waves in which requests that may wait come first, then as many at once whose time is
    just enough for one batch, some large, and clients that hang up."""
    chance, arrivals = random.Random(seed), list[Arrival]()
    wave = 24
    for start in count(0, max(1, round(wave / rate))):
        if start >= until:
            return sorted(arrivals, key=lambda each: each.at)
        first = start + chance.randrange(200)
        arrivals += [Arrival(first, 1, slack * 3) for _ in range(wave // 4)]
        arrivals += [Arrival(first + 1 + chance.randrange(50), 1, slack // 2) for _ in range(wave // 4)]
        arrivals += [Arrival(first + 60, 6, slack)]
        arrivals += [
            Arrival(first + chance.randrange(2_000), 1, slack, cancelled_after=chance.choice((None, 1, 1_500)))
            for _ in range(wave // 4)
        ]
    raise AssertionError("unreachable")


def _instants(chance: random.Random, rate: Callable[[float], float], until: int) -> Iterator[int]:
    now = 0.0
    while (now := now + chance.expovariate(rate(now))) < until:
        yield int(now)


def ideal(arrivals: Sequence[Arrival], service: Line, max_batch_rows: int) -> int:
    """Return the rows in time of a server as fast as full batches are, whose work flows: without batches to wait for.

    First come, first served; who cannot be through by its deadline, or hangs up, takes no time.
    """
    queued = rows = 0.0
    last = 0
    for each in arrivals:
        rate = max_batch_rows / ((service.fixed + service.per_row * max_batch_rows) * service.factor(each.at))
        queued = max(0.0, queued - rate * (each.at - last))
        last = each.at
        if each.cancelled_after is None and queued + each.rows <= rate * each.slack:
            queued += each.rows
            rows += each.rows
    return int(rows)


def optimum(arrivals: Sequence[Arrival], service: Callable[[int], int], max_batch_rows: int) -> int:
    """Return how many of at most a dozen requests a scheduler that knows the future answers in time.

    Over all sets of requests, the earliest instant by which exactly that set can have been answered in time: a set is
    a smaller set and one more batch, and to be through with the smaller one earlier never hurts. 3^n steps.
    """
    everyone = range(1 << len(arrivals))
    rows, release, deadline = [0], [0], [1 << 62]
    for batch in everyone[1:]:
        low = (batch & -batch).bit_length() - 1
        rest, one = batch & (batch - 1), arrivals[low]
        rows.append(rows[rest] + one.rows)
        release.append(max(release[rest], one.at))
        deadline.append(min(deadline[rest], one.deadline))
    takes = [service(each) for each in rows]
    free: list[float] = [0.0] + [float("inf")] * (len(everyone) - 1)
    best = 0
    for served in everyone[1:]:
        batch = served
        while batch:
            if rows[batch] <= max_batch_rows or not batch & (batch - 1):
                finish = max(free[served ^ batch], release[batch]) + takes[batch]
                if finish <= deadline[batch] and finish < free[served]:
                    free[served] = finish
            batch = (batch - 1) & served
        if free[served] < float("inf"):
            best = max(best, served.bit_count())
    return best
