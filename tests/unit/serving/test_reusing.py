"""Earlier answers on a lane: every history of requests as a plain table has it, and many equal requests at once."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.serving import NOW, bundle, expected, model
from kit.waiting import wait_until_async
from mainspring.core.errors import DeadlineExceeded, Invalid, Overloaded
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.batching.batcher import Job
from mainspring.serving.caching.answers import Answers
from mainspring.serving.caching.digests import digest
from mainspring.serving.caching.responses import Responses
from mainspring.serving.model import Cache
from mainspring.serving.plane import runtime
from mainspring.serving.plane.lane import Ask, Lane, monotonic_us
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.protocol.schema import Rows

LONG_US = 60_000_000
CACHE = Cache(ttl="10s")


class Gate(OnnxExecutor):
    """A model that counts its rows, and waits or fails when it is told to."""

    def __init__(self, made: Bundle) -> None:
        super().__init__(made)
        self.inline = False
        self.rows = 0
        self.open = threading.Event()
        self.open.set()
        self.errors: list[Exception] = []

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        self.open.wait(30)
        self.rows += rows
        if self.errors:
            raise self.errors.pop()
        return super().predict(inputs, rows)


@cache
def loaded(bias: float) -> runtime.Runtime:
    return runtime.load(bundle(bias, model_onnx=model(bias)), MemoryOnlineStore(), Gate)


@dataclass
class Bench:
    """Lanes of one endpoint, each of a version, with the answers that they share."""

    cache: Cache = CACHE
    clock: ManualClock = field(default_factory=ManualClock)
    mark: str = ""
    log: MemoryLedger = field(default_factory=MemoryLedger)
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __post_init__(self) -> None:
        self.responses = Responses(self.cache, self.clock.now, lambda: self.mark)
        self.metrics = EndpointMetrics()
        self.lanes: dict[str, Lane] = {}

    def lane(self, version: str = "1") -> Lane:
        if version not in self.lanes:
            made = loaded(float(version) - 1)
            self.lanes[version] = lane = Lane(
                "late-arrival", version, made, log=self.log, clock=ManualClock(NOW), metrics=self.metrics,
                threads=self.threads, reads=self.threads, max_queue_rows=4096,
            )  # fmt: skip
            lane.use(self.responses)
        return self.lanes[version]

    def ask(
        self, hour: int = 7, *, version: str = "1", owner: str = "ana", control: str = "", priority: int = 0,
        within_us: int = LONG_US,
    ) -> Job[Ask]:  # fmt: skip
        now, lane = monotonic_us(), self.lane(version)
        job = lane.job(
            Rows(row(hour), 1, 100), asyncio.get_running_loop().create_future(), received=now, deadline=now + within_us,
            priority=priority or 9, principal=owner, reuse=self.responses.asked(owner, control),
        )  # fmt: skip
        lane.submit(job)
        return job

    @property
    def logged(self) -> list[Prediction]:
        self.log.compact()
        return self.log.recent(limit=10_000)  # of one instant, so as they came

    @property
    def gate(self) -> Gate:
        executor = self.lane().runtime.executor
        assert isinstance(executor, Gate)
        return executor


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    loaded(0.0).executor.__dict__.update(rows=0, errors=[])
    with made.threads:
        yield made
        made.gate.open.set()


def row(hour: int) -> dict[str, Any]:
    return {
        "Carrier.flights_1h": [3], "Carrier.delay_1h": [12.5], "Schedule.thousands": [0.5], "Schedule.hour": [hour],
    }  # fmt: skip


def answer(hour: int, version: str = "1") -> float:
    return expected(row(hour), float(version) - 1)[0]


async def said(job: Job[Ask]) -> float:
    return float((await job.payload.waiter).output("probability")[0])  # type: ignore[misc]


def outcome(job: Job[Ask]) -> str:
    assert job.payload.reuse is not None
    return job.payload.reuse.outcome


ASKS = st.tuples(
    st.just("ask"), st.integers(0, 3), st.sampled_from(["1", "2"]), st.sampled_from(["ana", "bo"]),
    st.sampled_from(["", "", "", "no-cache", "no-store", "max-age=4", "max-age=0"]),
)  # fmt: skip
STEPS = st.lists(st.one_of(ASKS, ASKS, ASKS, st.tuples(st.just("pass"), st.integers(0, 12)), st.just(("erase",))))


@given(STEPS, st.sampled_from(["owner", "all"]))
@settings(max_examples=examples(gate=40, deep=2_000), deadline=None)
def test_every_history_is_answered_as_a_table_says(steps: list[tuple[Any, ...]], by: Any) -> None:
    async def run() -> None:
        bench = Bench(Cache(ttl="10s", by=by))
        table: dict[tuple[Any, ...], int] = {}  # what was asked -> when it was computed
        logged = []
        with bench.threads:
            for step in steps:
                if step[0] == "pass":
                    bench.clock.advance(step[1] * 1_000_000)
                elif step[0] == "erase":
                    bench.mark += "."
                    table.clear()
                else:
                    _, hour, version, owner, control = step
                    key, now = (hour, version, owner if by == "owner" else ""), bench.clock.now()
                    oldest = {"": 9_999_999, "max-age=4": 4_000_000, "max-age=0": 0}.get(control, -1)
                    hit = key in table and now - table[key] <= oldest
                    if not hit and control != "no-store":
                        table[key] = now
                    job = bench.ask(hour, version=version, owner=owner, control=control)
                    assert await said(job) == pytest.approx(answer(hour, version), abs=1e-6)
                    assert outcome(job) == ("hit" if hit else "refused" if oldest < 0 else "miss")
                    logged.append((version, owner, float(hour), hit))
        assert sum(bench.responses.outcomes.values()) == len(logged)
        kept = bench.logged
        assert [(each.version, each.principal, each.features["Schedule.hour"], each.cached) for each in kept] == logged
        assert len({each.id for each in kept}) == len(kept)

    asyncio.run(run())


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 900)),
            st.tuples(st.just("get"), st.integers(0, 9), st.none() | st.integers(0, 12)),
            st.tuples(st.just("pass"), st.integers(0, 6), st.none()),
            st.tuples(st.just("erase"), st.integers(0, 1), st.none()),
        )
    )
)
@settings(max_examples=examples(gate=100, deep=20_000), deadline=None)
def test_the_room_is_kept_and_none_is_given_that_is_not_the_newest_or_too_old(
    steps: list[tuple[str, int, Any]],
) -> None:
    clock = ManualClock()
    answers, table = Answers(3_000, 10, clock.now), dict[int, tuple[int, int]]()  # key -> when, which
    for number, (what, one, other) in enumerate(steps):
        if what == "pass":
            clock.advance(one)
        elif what == "put":
            answers.put(bytes([one]), str(one % 2), number, other)
            table[one] = clock.now(), number
            assert answers.get(bytes([one])) == number
        elif what == "erase":
            answers.erase(str(one))
            table = {key: each for key, each in table.items() if key % 2 != one}
        else:
            at, which = table.get(one, (0, None))
            found = answers.get(bytes([one]), other)
            assert found in (None, which)
            assert found is None or clock.now() - at < 10
            assert found is None or other is None or clock.now() - at <= other
        assert 0 <= answers.nbytes <= 3_000
        assert len(answers) * 512 <= answers.nbytes
    answers.erase()
    assert (len(answers), answers.nbytes, answers._new_bytes) == (0, 0, 0)


def test_new_questions_of_one_caller_do_not_push_the_answers_of_others_out() -> None:
    answers = Answers(100 * 512, 10**9, ManualClock().now)
    for key in [*range(80)] * 3:
        if answers.get(b"%d" % key) is None:
            answers.put(b"%d" % key, "", key, 0)
    for key in range(1_000, 6_000):
        answers.put(b"%d" % key, "", key, 0)
    assert sum(answers.get(b"%d" % key) is not None for key in range(80)) == 80


def test_an_erasure_leaves_nothing_of_the_answers_that_left_before() -> None:
    kept = Answers(4_000, 1_000_000, lambda: 0)
    for number in range(100):
        kept.put(b"%d" % number, "ann", number, 100)
    assert kept.evicted
    kept.erase("ann")
    assert not any(len(each) for each in vars(kept).values() if hasattr(each, "__len__"))


def test_often_asked_answers_stay_better_than_by_last_use() -> None:
    places = 1 / np.arange(1, 5_001) ** 0.9
    drawn = np.random.default_rng(5).choice(5_000, 40_000, p=places / places.sum()).tolist()
    answers, last, hits, hits_last = Answers(500 * 512, 10**9, ManualClock().now), OrderedDict[int, None](), 0, 0
    for key in drawn:
        if answers.get(b"%d" % key) is None:
            answers.put(b"%d" % key, "", key, 0)
        else:
            hits += 1
        hits_last += key in last
        last[key] = None
        last.move_to_end(key)
        if len(last) > 500:
            last.popitem(last=False)
    assert hits > 1.08 * hits_last


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=3), st.just(0.0)
)


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
@settings(max_examples=examples(gate=100, deep=10_000), deadline=None)
def test_inputs_that_differ_have_different_digests(one: list[Any], other: list[Any]) -> None:
    assert digest("", {"a": one, "b": [1]}) == digest("", {"b": [1], "a": list(one)})
    same = list(map(repr, one)) == list(map(repr, other))
    assert (digest("", {"a": one}) == digest("", {"a": other})) == same
    assert digest("x", {"a": one}) != digest("", {"a": one})


def test_arrays_are_told_apart_by_type_shape_and_values() -> None:
    arrays = [
        np.zeros((2, 2), np.float32), np.zeros(4, np.float32), np.zeros((2, 2), np.int32), np.ones((2, 2), np.float32),
        np.array(["ab", "c"], object), np.array(["a", "bc"], object), np.array([b"ab", b"c"], object),
    ]  # fmt: skip
    assert len({digest("", {"a": each}) for each in arrays}) == len(arrays)
    assert digest("", {"a": np.arange(6).reshape(2, 3)[:, ::2]}) == digest("", {"a": np.array([[0, 2], [3, 5]])})
    assert digest("", {"a": [object()]}) is None


def test_a_hundred_equal_requests_at_once_cost_one_prediction(bench: Bench) -> None:
    async def body() -> None:
        bench.gate.open.clear()
        jobs = [bench.ask() for _ in range(50)]
        await asyncio.sleep(0.05)  # the model has the first
        jobs += [bench.ask() for _ in range(50)]
        other = bench.ask(8)
        bench.gate.open.set()
        assert [await said(job) for job in jobs] == [pytest.approx(answer(7), abs=1e-6)] * 100
        assert await said(other) == pytest.approx(answer(8), abs=1e-6)
        assert bench.gate.rows == 2
        assert [outcome(job) for job in jobs] == ["miss"] + ["joined"] * 99
        assert len({job.payload.waiter.result().ids[0] for job in jobs}) == 100  # type: ignore[attr-defined]
        assert sum(each.cached for each in bench.logged) == 99
        assert bench.lane().flights.waiting_rows == 0
        again = bench.ask()
        await said(again)
        assert outcome(again) == "hit"

    asyncio.run(body())


def test_a_leader_that_leaves_is_succeeded_and_one_that_runs_answers_the_others(bench: Bench) -> None:
    async def body() -> None:
        bench.gate.open.clear()
        bench.ask(1)  # keeps the model
        await asyncio.sleep(0.05)
        jobs = [bench.ask() for _ in range(4)]
        bench.lane().cancel(jobs[0])  # in the queue
        bench.lane().cancel(jobs[2])  # behind it
        bench.gate.open.set()
        assert await said(jobs[1]) == await said(jobs[3])
        assert not jobs[0].payload.waiter.done()
        assert not jobs[2].payload.waiter.done()
        assert bench.gate.rows == 2
        assert [outcome(each) for each in jobs[1::2]] == ["miss", "joined"]
        bench.gate.open.clear()
        first, second = bench.ask(9), bench.ask(9)
        await asyncio.sleep(0.05)  # the model has it
        bench.lane().cancel(first)
        first.payload.waiter.cancel()  # type: ignore[attr-defined]
        bench.gate.open.set()
        assert await said(second) == pytest.approx(answer(9), abs=1e-6)
        assert bench.gate.rows == 3

    asyncio.run(body())


def test_the_error_of_a_leader_is_its_own(bench: Bench) -> None:
    async def body() -> None:
        bench.gate.open.clear()
        bench.gate.errors.append(Invalid("A row that the model does not take."))
        jobs = [bench.ask() for _ in range(3)]
        await asyncio.sleep(0.05)
        bench.gate.open.set()
        with pytest.raises(Invalid):
            await jobs[0].payload.waiter  # type: ignore[misc]
        assert [await said(each) for each in jobs[1:]] == [pytest.approx(answer(7), abs=1e-6)] * 2
        assert [outcome(each) for each in jobs[1:]] == ["miss", "miss"]
        assert [each.cached for each in bench.logged] == [False, False]

    asyncio.run(body())


def test_each_waits_until_its_own_deadline(bench: Bench) -> None:
    async def body() -> None:
        bench.gate.open.clear()
        bench.ask(1)
        await asyncio.sleep(0.05)
        leader = bench.ask(within_us=400_000)
        short, long = bench.ask(within_us=100_000), bench.ask()
        begun = monotonic_us()
        with pytest.raises(DeadlineExceeded, match="equal request"):
            await short.payload.waiter  # type: ignore[misc]
        assert monotonic_us() - begun < 350_000
        assert not leader.payload.waiter.done()
        assert short.payload.refused
        await asyncio.sleep(0.45)
        bench.gate.open.set()
        with pytest.raises(DeadlineExceeded):  # in the queue
            await leader.payload.waiter  # type: ignore[misc]
        assert await said(long) == pytest.approx(answer(7), abs=1e-6)
        assert outcome(long) == "miss"

    asyncio.run(body())


def test_an_urgent_request_waits_for_no_other_and_few_wait_at_all(bench: Bench) -> None:
    async def body() -> None:
        bench.lane().batcher.max_queue_rows = 2
        bench.gate.open.clear()
        jobs = [bench.ask(priority=5), bench.ask(priority=1), bench.ask(priority=5)]
        assert [outcome(each) for each in jobs] == ["miss", "miss", "joined"]
        bench.ask(priority=5)
        for control in ("", "no-cache"):
            with pytest.raises(Overloaded):
                bench.ask(priority=5, control=control)
        assert bench.lane().flights.waiting_rows == 2
        bench.gate.open.set()
        await asyncio.gather(*(said(each) for each in jobs))

    asyncio.run(body())


def test_an_answer_that_was_under_way_at_an_erasure_is_not_kept(bench: Bench) -> None:
    async def body() -> None:
        bench.gate.open.clear()
        job = bench.ask()
        await asyncio.sleep(0.05)
        bench.mark = "later"
        bench.gate.open.set()
        await said(job)
        assert len(bench.responses) == 0
        again = bench.ask()
        await said(again)
        assert outcome(again) == "miss"
        assert len(bench.responses) == 1

    asyncio.run(body())


def test_what_a_full_log_refuses_is_refused_to_all_who_waited(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        jobs = [bench.ask() for _ in range(3)]
        monkeypatch.setattr(bench.log, "add", lambda *_a, **_b: 1 / 0)
        await wait_until_async(lambda: all(each.payload.waiter.done() for each in jobs))
        assert all(each.payload.waiter.exception() for each in jobs)  # type: ignore[attr-defined]

    asyncio.run(body())


@pytest.mark.parametrize("ttl", [True, 5, None])
def test_the_ttl_of_a_cache_is_a_text(ttl):
    with pytest.raises(Invalid, match="The ttl of a cache is"):
        Cache(ttl=ttl)
