"""The batcher in simulated time: an executor whose batches take a + b·rows, and thousands of histories."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import DeadlineExceeded, Overloaded
from mainspring.core.time import ManualClock
from mainspring.serving.batcher import Batcher, Job


@dataclass(frozen=True)
class Arrival:
    at: int
    rows: int
    slack: int  # from the arrival to the deadline, µs
    priority: int = 0
    cancelled_after: int | None = None


@dataclass
class History:
    """What became of each arrival, by its index."""

    refused: dict[int, type[Exception]] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)  # when it was found to be too late
    done: dict[int, tuple[int, int]] = field(default_factory=dict)  # (begun, finished)
    dropped: set[int] = field(default_factory=set)
    batches: list[tuple[int, list[int]]] = field(default_factory=list)  # (begun, arrivals)
    most_waiting: int = 0


def simulate(
    arrivals: list[Arrival], *, fixed: int, per_row: int, max_queue_rows: int, max_batch_rows: int, trained: bool = True
) -> History:
    """Run the arrivals, which are in order of time, through a batcher and one executor."""
    clock, history = ManualClock(), History()
    batcher: Batcher[int] = Batcher(clock.now, max_queue_rows=max_queue_rows, max_batch_rows=max_batch_rows)
    if trained:
        for rows in (1, max_batch_rows, 1, max_batch_rows):
            batcher.cost.observe(rows, fixed + per_row * rows)
    jobs: dict[int, Job[int]] = {}
    # Ends of batches come before arrivals of the same instant, and cancellations before both.
    events = [(arrival.at, 2, index) for index, arrival in enumerate(arrivals)]
    events += [
        (each.at + each.cancelled_after, 0, index)
        for index, each in enumerate(arrivals)
        if each.cancelled_after is not None
    ]
    heapq.heapify(events)
    running: list[Job[int]] = []
    while events:
        now, kind, index = heapq.heappop(events)
        clock.set(now)
        if kind == 0 and index in jobs:
            jobs[index].cancelled = True
        elif kind == 1:
            begun = history.batches[-1][0]
            history.done.update((job.payload, (begun, now)) for job in running)
            batcher.done(sum(job.rows for job in running), now - begun)
            running = []
        elif kind == 2:
            arrival = arrivals[index]
            job = Job(index, arrival.rows, now + arrival.slack, arrival.priority)
            try:
                batcher.offer(job)
                jobs[index] = job
            except (Overloaded, DeadlineExceeded) as error:
                history.refused[index] = type(error)
            history.most_waiting = max(history.most_waiting, batcher.waiting_rows)
        more_of_this_instant = bool(events) and events[0][0] == now
        if batcher.idle and not more_of_this_instant:
            before = set(jobs) - history.done.keys() - history.late.keys() - history.dropped
            batch = batcher.take()
            history.late.update((job.payload, now) for job in batch.late)
            if batch.jobs:
                running = batch.jobs
                history.batches.append((now, [job.payload for job in running]))
                heapq.heappush(events, (now + fixed + per_row * batch.rows, 1, -1))
            elif batcher.waiting_rows:
                raise AssertionError("an idle executor left rows waiting")
            gone = {place for place in before if jobs[place].cancelled}
            history.dropped |= gone - {job.payload for job in (*batch.jobs, *batch.late)}
    return history


arrivals_lists = st.lists(
    st.builds(
        Arrival,
        at=st.integers(0, 2_000),
        rows=st.integers(1, 6),
        slack=st.integers(0, 1_500),
        priority=st.integers(0, 2),
        cancelled_after=st.none() | st.integers(0, 300),
    ),
    max_size=40,
).map(lambda found: sorted(found, key=lambda each: each.at))
costs = {"fixed": st.integers(0, 200), "per_row": st.integers(1, 50)}


@given(arrivals=arrivals_lists, **costs, trained=st.booleans())
def test_each_request_ends_once_in_exactly_one_way(arrivals, fixed, per_row, trained) -> None:
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=16, max_batch_rows=8, trained=trained)
    ends = [*history.refused, *history.late, *history.done, *history.dropped]
    cancelled = {place for place, each in enumerate(arrivals) if each.cancelled_after is not None}
    assert len(ends) == len(set(ends))
    assert set(range(len(arrivals))) - set(ends) <= cancelled  # a cancelled one may still wait unseen at the end
    assert history.dropped <= cancelled
    run = [place for _, batch in history.batches for place in batch]
    assert sorted(run) == sorted(history.done)


@given(arrivals=arrivals_lists, **costs)
def test_queue_and_batches_are_bounded_in_rows(arrivals, fixed, per_row) -> None:
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=5, max_batch_rows=4)
    assert history.most_waiting <= max([5, *(each.rows for each in arrivals)])
    for _, batch in history.batches:
        assert len(batch) == 1 or sum(arrivals[place].rows for place in batch) <= 4


@given(arrivals=arrivals_lists, **costs)
def test_nothing_runs_after_its_deadline_has_passed(arrivals, fixed, per_row) -> None:
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=64, max_batch_rows=8)
    for place, (begun, _) in history.done.items():
        assert begun < arrivals[place].at + arrivals[place].slack
    for place, when in history.late.items():
        deadline = arrivals[place].at + arrivals[place].slack
        # Too late in a full batch: under load one that is in time alone may make way for those behind it.
        assert when + fixed + per_row * max(8, arrivals[place].rows) > deadline - 1


@given(arrivals=arrivals_lists, **costs)
def test_who_waits_is_served_by_priority_then_deadline(arrivals, fixed, per_row) -> None:
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=64, max_batch_rows=4)

    def rank(place: int) -> tuple[int, int]:
        return arrivals[place].priority, arrivals[place].at + arrivals[place].slack

    for begun, batch in history.batches:
        waiting = [
            place
            for place, (later, _) in history.done.items()
            if later > begun and arrivals[place].at <= begun and place not in batch
        ]
        assert all(rank(place) >= max(map(rank, batch)) for place in waiting)


@given(arrivals=arrivals_lists.map(lambda found: [Arrival(each.at, 1, 1_000) for each in found]), **costs)
def test_with_one_slack_for_all_whoever_is_accepted_is_in_time(arrivals, fixed, per_row) -> None:
    """The prediction is exact here, so an accepted request is never late: refusals come at once, not after waiting."""
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=1_000, max_batch_rows=8)
    assert not history.late
    first = {batch[0] for _, batch in history.batches}  # one that meets an idle executor runs whatever is predicted
    for place, (_, finished) in history.done.items():
        assert finished <= arrivals[place].at + 1_000 or place in first


@given(st.integers(0, 500), st.integers(1, 100), st.integers(1, 30))
def test_one_connection_never_waits(fixed: int, per_row: int, count: int) -> None:
    """Work-conserving: requests one after another each run alone, at once."""
    gap = fixed + per_row
    arrivals = [Arrival(at=place * gap, rows=1, slack=10 * gap) for place in range(count)]
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=8, max_batch_rows=8)
    assert [history.done[place] for place in range(count)] == [(each.at, each.at + gap) for each in arrivals]


def poisson(load: float, capacity: float, slack: int) -> list[Arrival]:
    """Return two simulated seconds of single rows, arriving at `load` times `capacity` (rows a microsecond)."""
    chance, arrivals, now = random.Random(3), [], 0.0
    while now < 2_000_000:
        now += chance.expovariate(load * capacity)
        arrivals.append(Arrival(int(now), 1, slack))
    return arrivals


@pytest.mark.parametrize("slack", [6_000, 20_000, 100_000])
@pytest.mark.parametrize("load", [0.5, 0.8, 1.2, 2.0, 5.0])
def test_goodput_is_the_load_up_to_the_capacity_and_stays_there(load: float, slack: int) -> None:
    """The capacity is what batches of full size reach: at least 0.95 of it is answered in time at any load above, and
    what is refused is refused on arrival."""
    fixed, per_row, size = 1_000, 50, 32
    capacity = size / (fixed + per_row * size)
    arrivals = poisson(load, capacity, slack)
    history = simulate(arrivals, fixed=fixed, per_row=per_row, max_queue_rows=4_096, max_batch_rows=size)
    good = sum(finished <= arrivals[place].at + slack for place, (_, finished) in history.done.items())
    assert good >= 0.95 * min(len(arrivals), capacity * 2_000_000)
    assert len(history.done) - good + len(history.late) <= 0.01 * len(arrivals)


def test_a_wrong_prediction_never_shuts_the_door_for_good() -> None:
    """A first batch that took a second must not refuse every request of 10 ms from then on."""
    clock = ManualClock()
    batcher: Batcher[str] = Batcher(clock.now, max_queue_rows=8, max_batch_rows=8)
    batcher.cost.observe(1, 1_000_000)
    for _ in range(200):
        batcher.offer(Job("job", 1, clock.now() + 10_000))
        batch = batcher.take()
        assert len(batch.jobs) == 1
        clock.advance(100)
        batcher.done(1, 100)
    assert batcher.cost.predict(1) < 200
