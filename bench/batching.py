"""The batcher's policy in simulated time, on one executor.

    python bench/batching.py --quick    Poisson traffic only
    python bench/batching.py --json

Nothing here sleeps, so minutes of traffic pass in seconds and every figure repeats. Times are µs.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import product
from math import ceil

from mainspring.core.errors import DeadlineExceeded, MainspringError, Overloaded
from mainspring.core.time import ManualClock
from mainspring.serving.batching.batcher import Batch, Batcher, Job
from mainspring.serving.batching.estimates import Cost
from workload import Arrival, Line, Service, adversarial, bursty, ideal, optimum, poisson


@dataclass(slots=True)
class History:
    """Outcome of each arrival, by its index."""

    refused: dict[int, MainspringError] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)  # when it was found to be too late
    done: dict[int, tuple[int, int]] = field(default_factory=dict)  # (begun, finished)
    dropped: set[int] = field(default_factory=set)
    batches: list[tuple[int, list[int]]] = field(default_factory=list)  # (begun, arrivals)
    waits: list[tuple[int, int]] = field(default_factory=list)  # (since, until) as announced
    most_rows: int = 0
    most_bytes: int = 0
    most_executors: int = 0  # that ran at once

    def in_time(self, arrivals: Sequence[Arrival]) -> list[int]:
        return [place for place, (_, finished) in self.done.items() if finished <= arrivals[place].deadline]


_CANCEL, _END, _LOOK, _ARRIVE = range(4)  # what comes first of one instant


def simulate(arrivals: Sequence[Arrival], service: Service, batcher: Batcher[int], clock: ManualClock) -> History:
    """Run arrivals, in order of time, through a batcher, whose clock is `clock`, and its executors."""
    history, jobs, running = History(), dict[int, Job[int]](), dict[int, Batch[int]]()
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
            begun, batch = history.batches[index][0], running.pop(index)
            history.done.update((job.payload, (begun, now)) for job in batch.jobs)
            batcher.done(batch, now - begun)
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
        if events and events[0][0] == now:
            continue
        while batcher.idle and batcher.waiting_rows:
            until = batcher.wait_until()
            if until > now:
                if until != look_at:
                    look_at = until
                    history.waits.append((now, until))
                    heapq.heappush(events, (until, _LOOK, -1))
                break
            batch = batcher.take()
            history.late.update((job.payload, now) for job in batch.late)
            if batch.jobs:
                running[len(history.batches)] = batch
                takes = service(ceil(batch.rows / batch.executors), now)
                heapq.heappush(events, (now + takes, _END, len(history.batches)))
                history.batches.append((now, [job.payload for job in batch.jobs]))
                history.most_executors = max(history.most_executors, sum(one.executors for one in running.values()))
            elif batcher.waiting_rows:
                raise AssertionError("an idle executor left rows waiting")
    return history


def trained(service: Line, rows: int) -> Cost:
    """Return what a warm-up with batches of 1 and of `rows` learns of a service, without its noise."""
    cost = Cost()
    for each in (1, rows, 1, rows):
        cost.observe(each, service.fixed + service.per_row * each)
    return cost


@dataclass(frozen=True, slots=True)
class Figures:
    """Outcome of one traffic at one load. `goodput` and `of_ideal` are parts of the capacity and of `ideal`."""

    traffic: str
    service: str
    slack_ms: float
    load: float
    goodput: float
    of_ideal: float
    refused: float
    expired: float
    answered_late: float
    p50_ms: float
    p99_ms: float
    batch_rows: float
    waits: int


TRAFFIC: dict[str, Callable[..., list[Arrival]]] = {"poisson": poisson, "bursty": bursty, "adversarial": adversarial}
SERVICES = {
    "steady": Line(1_000, 50),
    "noise 10%": Line(1_000, 50, 0.1),
    "slows down": Line(1_000, 50, 0.1, ((300_000, 2.0), (600_000, 1.0))),
}
LOADS, SLACKS, BATCH_ROWS, UNTIL = (0.5, 1.0, 2.0, 4.0), (6_000, 20_000, 50_000), 32, 900_000


def measure(traffic: str, service: str, load: float, slack: int) -> Figures:
    """Run one traffic at `load` times the capacity, which is what batches of full size reach."""
    line, clock = replace(SERVICES[service], chance=random.Random(7)), ManualClock()
    capacity = BATCH_ROWS / (line.fixed + line.per_row * BATCH_ROWS)
    arrivals = TRAFFIC[traffic](load * capacity, UNTIL, slack=slack)
    cost = trained(line, BATCH_ROWS)
    batcher: Batcher[int] = Batcher(clock.now, max_queue_rows=4_096, max_batch_rows=BATCH_ROWS, cost=cost)
    history = simulate(arrivals, line, batcher, clock)
    good = history.in_time(arrivals)
    rows = sum(arrivals[place].rows for place in good)
    took = sorted(finished - arrivals[place].at for place, (_, finished) in history.done.items()) or [0]
    return Figures(
        traffic=traffic,
        service=service,
        slack_ms=slack / 1000,
        load=load,
        goodput=round(rows / (capacity * UNTIL), 3),
        of_ideal=round(rows / max(1, ideal(arrivals, line, BATCH_ROWS)), 3),
        refused=round(len(history.refused) / len(arrivals), 4),
        expired=round(len(history.late) / len(arrivals), 4),
        answered_late=round((len(history.done) - len(good)) / max(1, len(history.done)), 4),
        p50_ms=took[len(took) // 2] / 1000,
        p99_ms=took[len(took) * 99 // 100] / 1000,
        batch_rows=round(len(history.done) / max(1, len(history.batches)), 1),
        waits=len(history.waits),
    )


def against_optimum(instances: int = 200) -> float:
    """Return the part of the requests that `optimum` answers in time, over random instances of up to eight."""
    chance = random.Random(11)
    reached = possible = 0
    for _ in range(instances):
        line, size, clock = Line(chance.randint(0, 200), chance.randint(1, 50)), chance.randint(2, 8), ManualClock()
        full = line(size, 0)
        arrivals = sorted(
            (
                Arrival(chance.randint(0, 3 * full), chance.randint(1, 4), chance.randint(50, 4 * full + 50))
                for _ in range(chance.randint(2, 8))
            ),
            key=lambda each: each.at,
        )
        batcher: Batcher[int] = Batcher(clock.now, max_queue_rows=64, max_batch_rows=size, cost=trained(line, size))
        reached += len(simulate(arrivals, line, batcher, clock).in_time(arrivals))
        possible += optimum(arrivals, partial(line, now=0), size)
    return round(reached / possible, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description="The batcher's policy in simulated time.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="only Poisson traffic")
    arguments = parser.parse_args()
    cases = product(list(TRAFFIC)[: 1 if arguments.quick else None], SERVICES, SLACKS, LOADS)
    found = [measure(traffic, service, load, slack) for traffic, service, slack, load in cases]
    part = against_optimum()
    if arguments.json:
        sys.stdout.write(json.dumps({"of_optimum": part, "results": [asdict(each) for each in found]}) + "\n")
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The batcher in simulated time", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in fields(Figures):
        table.add_column(heading.name.replace("_", " "), justify="left" if heading.type == "str" else "right")
    for each in found:
        table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in asdict(each).values()))
    console = Console(width=140)
    console.print(table)
    console.print(f"Of what knowing the future could answer in time, over 200 random instances of up to 8: {part:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
