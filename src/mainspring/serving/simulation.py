"""The batcher's policy in simulated time: `python -m mainspring.serving.simulation [--json]`.

An executor whose batches take a + b·rows, with noise and with costs that change, and three kinds of traffic: Poisson,
bursty, and one made to hurt. Nothing here sleeps, so minutes of traffic pass in seconds and every figure repeats.
`optimum` is what a scheduler that knows the future could have done, for instances small enough to try everything.
Times are µs.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from mainspring.core.errors import DeadlineExceeded, MainspringError, Overloaded
from mainspring.core.time import ManualClock
from mainspring.serving.batcher import Batcher, Job

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
class History:
    """What became of each arrival, by its index."""

    refused: dict[int, MainspringError] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)  # when it was found to be too late
    done: dict[int, tuple[int, int]] = field(default_factory=dict)  # (begun, finished)
    dropped: set[int] = field(default_factory=set)
    batches: list[tuple[int, list[int]]] = field(default_factory=list)  # (begun, arrivals)
    waits: list[tuple[int, int]] = field(default_factory=list)  # (since, until) as announced
    most_rows: int = 0
    most_bytes: int = 0

    def in_time(self, arrivals: Sequence[Arrival]) -> list[int]:
        return [place for place, (_, finished) in self.done.items() if finished <= arrivals[place].deadline]


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
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    def __call__(self, rows: int, now: int) -> int:
        factor = next((by for since, by in reversed(self.changes) if now >= since), 1.0)
        if self.noise:
            factor *= max(0.2, self.chance.gauss(1.0, self.noise))
        return max(1, round((self.fixed + self.per_row * rows) * factor))


_CANCEL, _END, _LOOK, _ARRIVE = range(4)  # what comes first of one instant


def simulate(arrivals: Sequence[Arrival], service: Service, batcher: Batcher[int], clock: ManualClock) -> History:
    """Run arrivals, in order of time, through a batcher, whose clock is `clock`, and one executor."""
    history, jobs, running = History(), dict[int, Job[int]](), list[Job[int]]()
    look_at = -1
    events = [(each.at, _ARRIVE, index) for index, each in enumerate(arrivals)]
    events += [
        (each.at + each.cancelled_after, _CANCEL, index)
        for index, each in enumerate(arrivals)
        if each.cancelled_after is not None
    ]
    heapq.heapify(events)
    while events:
        now, kind, index = heapq.heappop(events)
        clock.set(now)
        if kind == _CANCEL and index in jobs:
            if batcher.cancel(jobs[index]):
                history.dropped.add(index)
        elif kind == _END:
            begun = history.batches[-1][0]
            history.done.update((job.payload, (begun, now)) for job in running)
            batcher.done(sum(job.rows for job in running), now - begun)
        elif kind == _ARRIVE:
            each = arrivals[index]
            jobs[index] = Job(index, each.rows, each.deadline, each.priority, nbytes=each.nbytes)
            try:
                batcher.offer(jobs[index])
            except (Overloaded, DeadlineExceeded) as error:
                history.refused[index] = error
                del jobs[index]
            history.most_rows = max(history.most_rows, batcher.waiting_rows)
            history.most_bytes = max(history.most_bytes, batcher.waiting_bytes)
        if not batcher.idle or not batcher.waiting_rows or (events and events[0][0] == now):
            continue
        until = batcher.wait_until()
        if until > now:
            if until != look_at:
                look_at = until
                history.waits.append((now, until))
                heapq.heappush(events, (until, _LOOK, -1))
            continue
        batch = batcher.take()
        history.late.update((job.payload, now) for job in batch.late)
        if batch.jobs:
            running = batch.jobs
            history.batches.append((now, [job.payload for job in running]))
            heapq.heappush(events, (now + service(batch.rows, now), _END, -1))
        elif batcher.waiting_rows:
            raise AssertionError("an idle executor left rows waiting")
    return history


def poisson(rate: float, until: int, *, slack: int, seed: int = 3) -> list[Arrival]:
    """Return single rows at `rate` rows a microsecond."""
    chance = random.Random(seed)  # noqa: S311
    return [Arrival(at, 1, slack) for at in _instants(chance, lambda _: rate, until)]


def bursty(rate: float, until: int, *, slack: int, seed: int = 3, period: int = 40_000) -> list[Arrival]:
    """Return single rows: a quarter of the time at three times the rate, the rest at a third of it."""
    chance = random.Random(seed)  # noqa: S311

    def now(at: float) -> float:
        return rate * (3 if at % period < period / 4 else 1 / 3)

    return [Arrival(at, 1, slack) for at in _instants(chance, now, until)]


def adversarial(rate: float, until: int, *, slack: int, seed: int = 3) -> list[Arrival]:
    """Return traffic made to hurt: waves in which requests that may wait come first, then as many at once whose time is
    just enough for one batch, some large, and clients that hang up."""
    chance, arrivals = random.Random(seed), list[Arrival]()  # noqa: S311
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
