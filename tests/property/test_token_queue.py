"""Fair queues against the bound of start-time fair queueing and against max-min fair shares, in simulated time."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import DeadlineExceeded, Invalid, Overloaded
from mainspring.llm.queueing import Admission, FairQueue, Job

CAPACITY, NEVER = 100, 10**15
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}
events = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "end", "cancel"]),
        st.sampled_from(sorted(WEIGHTS)),
        st.integers(0, CAPACITY),
        st.integers(0, 60),  # which job, and how long it waits at most
    ),
    max_size=120,
)


@settings(max_examples=examples(gate=25, deep=5000), deadline=None)
@given(events, st.integers(1, 12))
def test_each_call_ends_once_and_nothing_waits_that_fits(history, most_waiting) -> None:
    queue, now = FairQueue(CAPACITY, most_waiting), 0
    held: list[Job] = []
    waiting: list[Job] = []
    outcomes: dict[int, list[str]] = defaultdict(list)
    for kind, key, tokens, number in history:
        now += 1
        if kind == "offer":
            job = Job(key=key, tokens=tokens, weight=WEIGHTS[key], deadline=now + number)

            def start(job: Job = job) -> None:
                outcomes[id(job)].append("started")
                held.append(job)
                assert not job.waits

            def drop(error: Overloaded, job: Job = job) -> None:
                assert 100 <= error.retry_after_ms <= 60_000
                outcomes[id(job)].append("dropped")

            job.start, job.drop = start, drop
            waiting.append(job)
            try:
                queue.offer(job, now)
            except Overloaded:
                outcomes[id(job)].append("refused")
        elif kind == "end" and held:
            queue.end(held.pop(number % len(held)), now, tokens)
        elif kind == "cancel" and waiting:
            job = waiting[number % len(waiting)]
            if job.waits:
                outcomes[id(job)].append("cancelled")
            queue.cancel(job, now)
        assert queue.in_flight == sum(job.tokens for job in held) <= CAPACITY
        assert queue.waiting == sum(job.waits for job in waiting) <= most_waiting
    for job in list(held):
        queue.end(job, now)
    while any(job.held for job in held):
        for job in list(held):
            queue.end(job, now)
    assert not queue.waiting
    assert not queue.in_flight
    assert all(len(outcomes[id(job)]) == 1 for job in waiting)


@settings(max_examples=examples(gate=12, deep=2000), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 0.3, 4.0]))
def test_two_keys_that_wait_all_the_time_get_the_same_by_weight(seed, weight) -> None:
    draw, queue, now = random.Random(seed), FairQueue(CAPACITY, 10_000), 0
    weights, largest = {"a": 1.0, "b": weight, "c": 2.0}, {"a": 60, "b": 20, "c": 100}
    served: dict[str, int] = defaultdict(int)
    held: list[Job] = []

    def offer(key: str) -> None:
        job = Job(key=key, tokens=draw.randint(1, largest[key]), weight=weights[key], deadline=NEVER)

        def start() -> None:
            served[key] += job.tokens
            held.append(job)

        job.start = start
        queue.offer(job, now)

    for _ in range(40):
        for key in ("a", "b"):
            offer(key)
    since: dict[str, int] | None = None
    for step in range(60):
        now += 1
        if step % 3 == 0:
            offer("c")
        queue.end(held.pop(draw.randrange(len(held))), now)
        if step == draw.randint(5, 10) and since is None:
            since = dict(served)
        waits = {key: len(queue._flows[key].jobs) if key in queue._flows else 0 for key in ("a", "b")}
        if since is not None and min(waits.values()):
            a, b = ((served[key] - since.get(key, 0)) / weights[key] for key in ("a", "b"))
            assert abs(a - b) <= sum(largest[key] / weights[key] for key in ("a", "b")) + 1e-6


def test_shares_are_max_min_fair_whatever_the_keys_ask() -> None:
    """The water level: each gets what it asks or the level, whichever is less; the levels sum to the capacity."""
    draw = random.Random(7)
    asks = {"small": 0.05, "middle": 0.2, "greedy": 2.0, "flood": 5.0}  # of the capacity
    hold_us, until = 1000, 120_000
    queue, ends = FairQueue(1000, 200), list[tuple[int, int, Job]]()
    asked, served = defaultdict(int), defaultdict(int)
    arrivals = []
    for key, ask in asks.items():
        at = 0.0
        while (at := at + draw.expovariate(ask * 1000 / 50 / hold_us)) < until:
            arrivals.append((at, key))
    arrivals.sort()

    def start(job: Job) -> None:
        served[job.key] += job.tokens
        heapq.heappush(ends, (now + hold_us, id(job), job))

    for at, key in arrivals:
        while ends and ends[0][0] <= at:
            now, _, ended = heapq.heappop(ends)
            queue.end(ended, now)
        now = int(at)
        job = Job(key=key, tokens=draw.randint(30, 70), deadline=NEVER)
        job.start = lambda job=job: start(job)
        asked[key] += job.tokens
        try:
            queue.offer(job, now)
        except Overloaded:
            assert key in ("greedy", "flood")
    capacity = 1000 * until / hold_us
    assert sum(served.values()) > 0.93 * capacity  # the next call has to fit
    level = (sum(served.values()) - asked["small"] - asked["middle"]) / 2
    fair = {key: min(asked[key], level) for key in asks}
    assert served == pytest.approx(fair, rel=0.03)


def test_a_large_call_does_not_starve_beside_small_ones() -> None:
    queue, started = FairQueue(100, 1000), []
    small = [Job(key="small", tokens=10, deadline=NEVER) for _ in range(200)]
    for job in small:
        queue.offer(job, 0)
    large = Job(key="large", tokens=100, deadline=NEVER, start=lambda: started.append(True))
    queue.offer(large, 0)
    for number, job in enumerate(small):
        if started:
            break
        queue.end(job, number)
    assert number <= 20
    assert queue.in_flight == 100


def test_a_key_that_was_idle_is_neither_owed_nor_in_debt() -> None:
    queue, order, held = FairQueue(10, 1000), list[str](), list[Job]()

    def offer(key: str) -> None:
        job = Job(key=key, tokens=10, deadline=NEVER)
        job.start = lambda: (order.append(key), held.append(job))
        queue.offer(job, 0)

    for _ in range(20):
        offer("old")
    for _ in range(10):
        queue.end(held.pop(), 0)
    for _ in range(3):
        offer("new")
    while held:
        queue.end(held.pop(), 0)
    for _ in range(50):  # alone, it waits for nobody
        offer("old")
        queue.end(held.pop(), 0)
    offer("old")
    for key in ("late", "old"):
        for _ in range(4):
            offer(key)
    while held:
        queue.end(held.pop(), 0)
    assert order[-8:].index("old") <= 2
    assert sorted(order[11:16].count(key) for key in ("new", "old")) == [2, 3]
    assert order.count("new") == 3
    assert len(order) == 82


def test_what_was_asked_and_not_used_is_given_back_to_its_key() -> None:
    queue, order = FairQueue(100, 1000), list[str]()

    def offered(key: str) -> Job:
        job = Job(key=key, tokens=100, deadline=NEVER, start=lambda: order.append(key))
        queue.offer(job, 0)
        return job

    waiting = {key: [offered(key) for _ in range(12)] for key in ("wasteful", "exact")}
    while waiting["wasteful"] and waiting["exact"]:
        key = order[-1]
        queue.end(waiting[key].pop(0), 0, 20 if key == "wasteful" else 100)
    assert order.count("wasteful") >= 4 * (order.count("exact") - 1)


def test_a_call_that_never_fits_is_refused_for_good() -> None:
    with pytest.raises(Invalid, match="shorter prompt"):
        FairQueue(100).offer(Job(key="a", tokens=101, deadline=NEVER), 0)


def test_a_flood_of_one_key_takes_no_place_of_another() -> None:
    queue, dropped = FairQueue(10, 4), list[str]()
    for _ in range(5):
        queue.offer(Job(key="flood", tokens=10, deadline=NEVER, drop=lambda error: dropped.append("flood")), 0)
    with pytest.raises(Overloaded):
        queue.offer(Job(key="flood", tokens=10, deadline=NEVER), 0)
    for _ in range(2):
        queue.offer(Job(key="other", tokens=10, deadline=NEVER), 0)
    assert dropped == ["flood", "flood"]
    with pytest.raises(Overloaded):
        queue.offer(Job(key="other", tokens=10, deadline=NEVER), 0)


def test_a_call_waits_on_the_loop_until_its_turn_or_its_deadline_and_leaves_when_it_is_cancelled() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        of = Admission(FairQueue(10), lambda: int(loop.time() * 1e6))
        first = await of.enter("a", 10, within_us=10_000)
        with pytest.raises(DeadlineExceeded):
            await of.enter("b", 10, within_us=1000)
        waits = [asyncio.create_task(of.enter(key, 10, within_us=10_000_000)) for key in "cd"]
        await asyncio.sleep(0)
        assert of.queue.waiting == 2
        waits[0].cancel()
        await asyncio.sleep(0)
        of.leave(first, 3)
        second = await waits[1]
        assert (of.queue.waiting, of.queue.in_flight) == (0, 10)
        last = asyncio.create_task(of.enter("e", 10, within_us=10_000_000))
        await asyncio.sleep(0)
        of.leave(second)  # its turn comes in the moment in which it is cancelled
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        assert (of.queue.waiting, of.queue.in_flight) == (0, 0)

    asyncio.run(main())
