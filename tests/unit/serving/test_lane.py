"""A lane on a real event loop with real models: batches, threads, failures, cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import Any, ClassVar

import pytest

from kit.serving import NOW, bundle, expected, full_request, keyed_request, model
from mainspring.core.errors import DeadlineExceeded, Invalid, Overloaded, StorageFull, Unavailable
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Batch, Log
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.batching.batcher import Job
from mainspring.serving.plane import runtime
from mainspring.serving.plane.batch_run import Work
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.lane import Answer, Ask, Lane, monotonic_us
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.protocol.codec import decode_infer, encode

pytestmark = pytest.mark.slow

LONG_US = 60_000_000


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Bench:
    """A lane with what it writes to."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        *,
        rows: int = 4096,
        online: Any = None,
        log: Any = None,
        executor: Any = OnnxExecutor,
        reads: ThreadPoolExecutor | None = None,
        **shape: bool,
    ) -> None:
        self.log, self.metrics, self.clock = log or MemoryLedger(), EndpointMetrics(), ManualClock(NOW)
        self.lane = Lane(
            "late-arrival",
            "1",
            runtime.load(bundle(model_onnx=model(**shape)), online or MemoryOnlineStore(), executor),
            log=self.log,
            clock=self.clock,
            metrics=self.metrics,
            threads=threads,
            reads=reads or threads,
            max_queue_rows=rows,
        )

    def ask(self, body: dict[str, Any], *, within_us: int = LONG_US, priority: int = 0) -> Job[Ask]:
        rows = self.lane.runtime.schema.read(decode_infer(encode(body)).asked.inputs)
        now = monotonic_us()
        waiter = asyncio.get_running_loop().create_future()
        job = self.lane.job(rows, waiter, received=now, deadline=now + within_us, priority=priority, principal="key")
        self.lane.submit(job)
        return job

    @property
    def batches(self) -> int:
        buckets, _ = self.metrics.batch_rows.cumulative()
        return int(buckets[-1][1])


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@on_a_loop
async def test_what_one_turn_of_the_loop_brings_runs_together(threads: ThreadPoolExecutor) -> None:
    bench = Bench(threads)
    jobs = [bench.ask(keyed_request("AA")), bench.ask(full_request()), bench.ask(keyed_request("UA", "DL"))]
    answers = [await job.payload.waiter for job in jobs]
    assert bench.batches == 1
    assert [len(answer.ids) for answer in answers] == [1, 2, 2]
    stored = {"Carrier.flights_1h", "Carrier.delay_1h"}
    assert [set(answer.statuses) for answer in answers] == [stored, set(), stored]
    found = Counter(status for answer in answers for column in answer.statuses.values() for status in column)
    assert {status: count for status, count in bench.metrics.features.items() if count} == found
    assert found.total() == 6
    by_key = {"Carrier.flights_1h": [0], "Carrier.delay_1h": [None], "Schedule.thousands": [0.5], "Schedule.hour": [2]}
    assert answers[0].output("probability") == pytest.approx(expected(by_key), abs=1e-6)
    assert bench.log.find(answers[2].ids[1]).keys == {"flight_id": 2, "carrier": "DL"}
    assert {each.principal for each in bench.log.recent()} == {"key"}


@on_a_loop
async def test_what_was_answered_is_freed_at_once(threads: ThreadPoolExecutor) -> None:
    """Arrays of a large tensor must not wait until Python looks for cycles."""
    bench = Bench(threads)
    gc.collect()
    gc.disable()
    try:
        job = bench.ask(full_request())
        answer = await job.payload.waiter
        assert len(answer.ids) == 2
        del job, answer
        await asyncio.sleep(0)
        assert not [found for found in gc.get_objects() if type(found) is Work]
    finally:
        gc.enable()


class Stopped(OnnxExecutor):
    """A model whose calls were stopped, when the time of their requests was over."""

    calls = 0
    over: ClassVar[list[Job[Ask]]] = []

    def predict(self, inputs: Any, rows: int) -> Any:
        if rows > 2:
            Stopped.calls += 1
            for job in Stopped.over:
                job.deadline = 0
            raise ModelFailed("The model was stopped.")
        return super().predict(inputs, rows)


@on_a_loop
async def test_requests_whose_time_a_batch_took_are_not_run_again_one_by_one(threads: ThreadPoolExecutor) -> None:
    bench = Bench(threads, executor=Stopped)
    jobs = [bench.ask(full_request(), within_us=LONG_US) for _ in range(3)]
    Stopped.over[:] = jobs[:2]
    found = await asyncio.gather(*(job.payload.waiter for job in jobs), return_exceptions=True)
    assert [type(each) for each in found] == [DeadlineExceeded, DeadlineExceeded, Answer]
    assert Stopped.calls == 1


class Held(OnnxExecutor):
    """A slow model that answers when the test lets it."""

    go: ClassVar[threading.Event] = threading.Event()

    def predict(self, inputs: Any, rows: int) -> Any:
        assert Held.go.wait(60)
        return super().predict(inputs, rows)


def held(threads: ThreadPoolExecutor, **settings: Any) -> Bench:
    """Return a bench whose model answers when `Held.go` is set."""
    Held.go.set()
    bench = Bench(threads, slow=True, executor=Held, **settings)
    Held.go.clear()
    return bench


@on_a_loop
async def test_a_slow_model_leaves_the_loop_free_and_gathers_the_next_batch(threads: ThreadPoolExecutor) -> None:
    bench = held(threads)
    first = bench.ask(full_request())
    await asyncio.sleep(0)
    assert not bench.lane.batcher.idle
    others = [bench.ask(full_request()) for _ in range(4)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert not first.payload.waiter.done()
    Held.go.set()
    await asyncio.gather(*(job.payload.waiter for job in (first, *others)))
    assert bench.batches == 2


@on_a_loop
async def test_a_full_queue_refuses_and_says_when_to_come_again(threads: ThreadPoolExecutor) -> None:
    bench = held(threads, rows=4)
    running = bench.ask(full_request())
    await asyncio.sleep(0)
    waiting = [bench.ask(full_request()), bench.ask(full_request())]
    with pytest.raises(Overloaded) as refused:
        bench.ask(full_request())
    assert refused.value.retry_after_ms >= 1
    assert bench.metrics.rejections == {"queue_full": 1}
    Held.go.set()
    await asyncio.gather(*(job.payload.waiter for job in (running, *waiting)))


@on_a_loop
async def test_what_would_be_late_is_refused_at_once(threads: ThreadPoolExecutor) -> None:
    bench = held(threads)
    running = bench.ask(full_request())
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        bench.ask(full_request(), within_us=500)
    assert bench.metrics.rejections == {"too_late": 1}
    Held.go.set()
    await running.payload.waiter


@on_a_loop
async def test_a_cancelled_request_neither_runs_nor_is_logged(threads: ThreadPoolExecutor) -> None:
    bench = held(threads)
    running = bench.ask(full_request())
    await asyncio.sleep(0)
    cancelled, other = bench.ask(full_request()), bench.ask(keyed_request("AA"))
    cancelled.cancelled = True
    Held.go.set()
    await asyncio.gather(running.payload.waiter, other.payload.waiter)
    assert not cancelled.payload.waiter.done()
    assert len(bench.log.recent()) == 3


@pytest.mark.parametrize("slow", [False, True])
def test_a_row_that_the_model_cannot_take_fails_its_own_request_only(threads: ThreadPoolExecutor, slow: bool) -> None:
    async def run() -> None:
        bench = Bench(threads, exact_hour=True, slow=slow)
        poison = keyed_request("AA")
        poison["inputs"][3]["data"] = [None]  # scheduled_at: the hour is null, which an integer cannot be
        jobs = [bench.ask(keyed_request("AA")), bench.ask(poison), bench.ask(full_request())]
        found = await asyncio.gather(*(job.payload.waiter for job in jobs), return_exceptions=True)
        assert isinstance(found[1], Invalid)
        assert [len(answer.ids) for answer in (found[0], found[2])] == [1, 2]
        assert len(bench.log.recent()) == 3
        after = await bench.ask(full_request()).payload.waiter
        assert len(after.ids) == 2

    asyncio.run(run())


class SilentStore:
    """An online store that does not answer."""

    asked = 0

    def __init__(self, *, remote: bool) -> None:
        self.remote = remote

    def payloads(self, wanted: Any) -> Any:
        self.asked += 1
        raise Unavailable("no answer")


@pytest.mark.parametrize("remote", [False, True])
@on_a_loop
async def test_a_store_that_does_not_answer_is_asked_once_a_batch(threads: ThreadPoolExecutor, remote: bool) -> None:
    store = SilentStore(remote=remote)
    bench = Bench(threads, online=store)
    jobs = [bench.ask(keyed_request("AA")) for _ in range(5)]
    found = await asyncio.gather(*(job.payload.waiter for job in jobs), return_exceptions=True)
    assert {type(error) for error in found} == {Unavailable}
    assert store.asked == 1


class FarStore(MemoryOnlineStore):
    """An online store on another machine. Notes on which threads it is asked."""

    remote = True

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def read(self, wanted: Any) -> Any:
        self.threads.append(threading.get_ident())
        return super().read(wanted)


@on_a_loop
async def test_a_store_on_another_machine_is_not_asked_on_the_loop(threads: ThreadPoolExecutor) -> None:
    store = FarStore()
    bench = Bench(threads, online=store)
    answers = [
        await bench.ask(ask).payload.waiter for ask in (keyed_request("AA"), full_request(), keyed_request(None))
    ]
    assert [len(answer.ids) for answer in answers] == [1, 2, 1]
    assert len(store.threads) == 1  # without keys, or with a null one, there is nothing to ask
    assert threading.get_ident() not in store.threads


class LateLog(MemoryLedger):
    """A log whose disk says later whether it took a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.promised: list[Future[None]] = []

    def add(self, batch: Batch, *, sync: bool = False) -> Future[None]:
        assert sync
        super().add(batch)
        self.promised.append(Future())
        return self.promised[-1]


@on_a_loop
async def test_where_the_log_is_in_sync_nobody_is_answered_before_the_disk(threads: ThreadPoolExecutor) -> None:
    log = LateLog()
    bench = Bench(threads, log=log)
    bench.lane.recorder.policy = Log(sync=True)
    jobs = [bench.ask(keyed_request("AA")), bench.ask(full_request())]  # two entries: of keyed rows, and of full ones
    await asyncio.sleep(0.01)
    assert len(log.promised) == 2
    log.promised[0].set_result(None)
    await asyncio.sleep(0.01)
    assert not any(job.payload.waiter.done() for job in jobs)
    log.promised[1].set_result(None)
    answers = [await job.payload.waiter for job in jobs]
    assert [len(answer.ids) for answer in answers] == [1, 2]
    refused = bench.ask(full_request())
    await asyncio.sleep(0.01)
    log.promised[2].set_exception(StorageFull("No space left."))
    with pytest.raises(StorageFull):
        await refused.payload.waiter


@on_a_loop
async def test_the_clock_decides_the_time_of_features_and_log(threads: ThreadPoolExecutor) -> None:
    bench = Bench(threads)
    bench.clock.set(NOW + 5)
    answer = await bench.ask(keyed_request("AA")).payload.waiter
    assert bench.log.find(answer.ids[0]).at == NOW + 5


class Hanging(MemoryOnlineStore):
    """A store on another machine, which does not answer until it is told to."""

    remote = True

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.asked = 0

    def payloads(self, wanted: Any) -> Any:
        self.asked += 1
        assert self.answers.wait(60)
        return super().payloads(wanted)


@on_a_loop
async def test_no_request_waits_for_a_hanging_store_beyond_its_deadline(threads: ThreadPoolExecutor) -> None:
    store = Hanging()
    bench = Bench(threads, online=store)
    try:
        late = bench.ask(keyed_request("B6"), within_us=50_000)
        patient, other = bench.ask(keyed_request("UA")), bench.ask(keyed_request("DL", "AA"))
        with pytest.raises(Unavailable, match="did not respond in time"):
            await asyncio.wait_for(late.payload.waiter, 20)
        assert not patient.payload.waiter.done()
        store.answers.set()
        answers = await patient.payload.waiter, await other.payload.waiter
        assert [len(answer.ids) for answer in answers] == [1, 2]
        logged = [bench.log.find(name) for answer in answers for name in answer.ids]
        assert [each.keys["carrier"] for each in logged] == ["UA", "DL", "AA"]
        assert [answer.output("probability").size for answer in answers] == [1, 2]
        assert len(bench.log.recent()) == 3  # who was refused has no prediction
    finally:
        store.answers.set()


@on_a_loop
async def test_reads_that_hang_are_bounded_in_number_and_the_store_is_read_when_it_is_back(
    threads: ThreadPoolExecutor,
) -> None:
    store = Hanging()
    bench = Bench(threads, online=store)
    try:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(bench.ask(keyed_request("AA"), within_us=200_000).payload.waiter, 20)
        assert store.asked == 2  # as many as there are threads
    finally:
        store.answers.set()
    assert (await bench.ask(keyed_request("AA")).payload.waiter).statuses["Carrier.delay_1h"] != ["UNAVAILABLE"]


@on_a_loop
async def test_reads_that_hang_hold_up_no_endpoint_that_needs_no_store_elsewhere(threads: ThreadPoolExecutor) -> None:
    store, reads = Hanging(), ThreadPoolExecutor(2)
    hanging = [Bench(threads, online=store, reads=reads) for _ in range(2)]
    others = Bench(threads, reads=reads)
    try:
        waiting = [bench.ask(keyed_request("AA")).payload.waiter for bench in hanging]
        while store.asked < 2:  # all threads
            await asyncio.sleep(0.001)
        for body in (keyed_request("AA"), full_request()):
            assert (await asyncio.wait_for(others.ask(body).payload.waiter, 20)).ids
        assert not any(waiter.done() for waiter in waiting)
    finally:
        store.answers.set()
    await asyncio.gather(*waiting)
    reads.shutdown()


@on_a_loop
async def test_an_endpoint_of_defaults_answers_from_them_while_its_store_hangs(threads: ThreadPoolExecutor) -> None:
    store = Hanging()
    bench = Bench(threads, online=store)
    bench.lane.defaults = True
    try:
        job = bench.ask(keyed_request("AA"), within_us=2_000_000)
        answer = await asyncio.wait_for(job.payload.waiter, 20)
        assert answer.statuses["Carrier.delay_1h"] == ["UNAVAILABLE"]
        assert bench.metrics.features["UNAVAILABLE"] == 2
        assert not store.answers.is_set()
    finally:
        store.answers.set()


@on_a_loop
async def test_a_batch_whose_store_answers_in_the_turn_of_a_deadline_ends_once(threads: ThreadPoolExecutor) -> None:
    store = Hanging()
    bench = Bench(threads, online=store)
    job = bench.ask(keyed_request("AA"), within_us=200_000)
    while not store.asked:
        await asyncio.sleep(0)
    store.answers.set()
    while monotonic_us() < job.deadline + 20_000:  # the loop is busy until it finds both in one turn
        pass
    following = bench.ask(keyed_request("UA"))
    (found,) = await asyncio.gather(job.payload.waiter, return_exceptions=True)
    assert len((await following.payload.waiter).ids) == 1
    assert len(bench.log.recent()) == (1 if isinstance(found, Unavailable) else 2)
