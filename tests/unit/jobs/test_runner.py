"""Runners: steps once, attempts with patience, an end on request, one run a tick."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kit.waiting import wait_until
from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.time import HOUR, SECOND, ManualClock, SystemClock
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import Job, JobStopped, NewJob, Progress, Schedule, Status
from mainspring.jobs.runner import Backoff, Handler, JobRun, Runner
from mainspring.jobs.times import Every
from mainspring.project.catalog import memory_catalog

NOW = 1_000 * HOUR
DEAD = KeyboardInterrupt  # as if the process ended there


class Bench:
    """A store, a clock, and runners over them."""

    def __init__(self, handlers: Mapping[str, Handler], stopping: Callable[[], bool] = lambda: False) -> None:
        self.store, self.clock, self.handlers, self.stopping = (
            CatalogJobs(memory_catalog()),
            ManualClock(NOW),
            handlers,
            stopping,
        )

    def runner(self, holder: str = "ana") -> Runner:
        backoff = Backoff(first_us=10, longest_us=35)
        return Runner(self.store, self.handlers, self.clock, holder=holder, stopping=self.stopping, backoff=backoff)

    def queue(self, handler: str, argument: Any = None, **told: Any) -> str:
        return self.store.enqueue([NewJob(handler, argument, **told)], self.clock.now())[0].id

    def job(self, id: str) -> Job:
        [found] = self.store.get([id])
        assert found is not None
        return found


def test_a_job_is_done_with_what_its_handler_returns() -> None:
    bench = Bench({"add": lambda run: {"sum": sum(run.argument), "pair": (1, 2)}})
    job = bench.queue("add", (1, 2, 3))
    assert bench.job(job).argument == [1, 2, 3]
    ended = bench.runner().run_one()
    assert ended == bench.job(job)
    assert (ended.status, ended.result, ended.ended_at) == (Status.DONE, {"sum": 6, "pair": [1, 2]}, NOW)
    assert bench.runner().run_one() is None


def test_a_finished_step_is_not_done_again_and_gives_what_it_gave() -> None:
    done: list[str] = []
    dies = [True]

    def act(name: str) -> tuple[str, int]:
        done.append(name)
        return name, len(done)

    def work(run: JobRun) -> Any:
        found = [run.step("buy", lambda: act("buy")), run.step("buy", lambda: act("buy again"))]
        if dies.pop():
            raise DEAD
        return [*found, run.step("pay", lambda: act("pay"))]

    bench = Bench({"shop": work})
    dies.insert(0, False)
    job = bench.queue("shop")
    with pytest.raises(DEAD):
        bench.runner().run_one()
    assert bench.job(job).status is Status.QUEUED
    ended = bench.runner("bob").run_one()
    assert done == ["buy", "buy again", "pay"]
    assert ended is not None
    assert ended.result == [["buy", 1], ["buy again", 2], ["pay", 3]]
    assert [step.name for step in bench.store.steps(job)] == ["buy", "buy #2", "pay"]


def test_a_step_gives_the_first_time_what_it_gives_later() -> None:
    seen: list[Any] = []
    bench = Bench({"see": lambda run: seen.append(run.step("a", lambda: (1, {"x": (2,)})))})
    bench.queue("see")
    bench.runner().run_one()
    assert seen == [[1, {"x": [2]}]]


def test_what_fails_is_tried_again_with_more_patience_each_time_and_then_no_more() -> None:
    tries: list[int] = []

    def fail(run: JobRun) -> None:
        tries.append(bench.clock.now() - NOW)
        raise Unavailable(f"The server is away ({len(tries)}).")

    bench = Bench({"fail": fail})
    job = bench.queue("fail", attempts=5)
    while bench.clock.now() < NOW + 200:
        bench.runner().run_one()
        bench.clock.advance(1)
    assert tries == [0, 10, 30, 65, 100]
    dead = bench.job(job)
    assert (dead.status, dead.attempts, dead.error) == (Status.FAILED, 5, "The server is away (5).")
    bench.store.retry([job], bench.clock.now())
    bench.runner().run_one()
    assert len(tries) == 6
    assert bench.job(job).status is Status.QUEUED


def test_each_step_has_all_attempts() -> None:
    tries = {"a": 0, "b": 0}

    def stubborn(name: str) -> None:
        tries[name] += 1
        if tries[name] < 3:
            raise ValueError(name)

    def work(run: JobRun) -> None:
        for name in tries:
            run.step(name, lambda name=name: stubborn(name))

    bench = Bench({"work": work})
    job = bench.queue("work", attempts=3)
    for _ in range(300):
        bench.runner().run_one()
        bench.clock.advance(1)
    assert bench.job(job).status is Status.DONE
    assert tries == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    "handler", [lambda run: object(), lambda run: run.step("a", lambda: {1}), lambda run: _invalid()]
)
def test_what_is_wrong_with_the_job_itself_is_not_tried_again(handler: Handler) -> None:
    bench = Bench({"wrong": handler})
    job = bench.queue("wrong")
    ended = bench.runner().run_one()
    assert ended == bench.job(job)
    assert ended.status is Status.FAILED
    assert ended.error


def _invalid() -> None:
    raise Invalid("No such view.")


def test_a_surprise_is_kept_with_its_kind() -> None:
    bench = Bench({"odd": lambda run: {}["x"]})
    job = bench.queue("odd", attempts=1)
    bench.runner().run_one()
    assert bench.job(job).error == "KeyError: 'x'"


def test_a_runner_that_stops_gives_its_job_back_after_the_step() -> None:
    stop = threading.Event()

    def work(run: JobRun) -> None:
        run.step("a", stop.set)
        run.step("b", lambda: pytest.fail("it was to stop"))

    bench = Bench({"work": work}, stop.is_set)
    job = bench.queue("work", attempts=1)
    bench.runner().run_one()
    assert (bench.job(job).status, bench.job(job).attempts, bench.job(job).error) == (Status.QUEUED, 0, None)


def test_an_attempt_that_its_machine_ended_counts_not_and_is_made_again_later() -> None:
    def preempted(run: JobRun) -> None:
        raise JobStopped(run.id, None, again_after_us=SECOND)

    bench = Bench({"work": preempted})
    job = bench.queue("work", attempts=1)
    bench.runner().run_one()
    found = bench.job(job)
    assert (found.status, found.attempts, found.error, found.due_at) == (Status.QUEUED, 0, None, NOW + SECOND)
    assert bench.runner().run_one() is None


def test_a_cancelled_job_ends_at_its_next_step() -> None:
    store, clock = CatalogJobs(memory_catalog()), SystemClock()

    def work(run: JobRun) -> None:
        store.cancel([run.id], clock.now())
        while True:
            run.step("again", lambda: None)

    [job] = store.enqueue([NewJob("work")], clock.now())
    ended = Runner(store, {"work": work}, clock, holder="ana", lease_us=SECOND // 4).run_one()
    assert ended is not None
    assert (ended.id, ended.status, ended.error) == (job.id, Status.CANCELLED, None)


def test_who_lost_the_lease_stops_and_spoils_nothing() -> None:
    taken: list[Job] = []

    def work(run: JobRun) -> str:
        bench.clock.advance(HOUR)  # the machine slept
        taken.extend(lease.job for lease in bench.store.claim("bob", ["work"], bench.clock.now(), HOUR))
        with pytest.raises(JobStopped):
            run.check()
        run.step("a", lambda: pytest.fail("it is bob's"))
        return "done"

    bench = Bench({"work": work})
    job = bench.queue("work")
    bench.runner().run_one()
    assert [each.id for each in taken] == [job]
    assert (bench.job(job).status, bench.job(job).holder) == (Status.RUNNING, "bob")


def test_a_lease_is_kept_while_a_long_step_runs() -> None:
    store, clock, lease_us = CatalogJobs(memory_catalog()), ManualClock(NOW), SECOND // 4
    others: list[Any] = []
    until: list[int] = []
    renew = store.renew

    def renewed(*given: Any) -> Any:
        found = renew(*given)
        until.append(clock.now() + lease_us)
        return found

    store.renew = renewed  # type: ignore[method-assign]

    def step() -> None:
        for _ in range(4):
            wait_until(lambda: until and until[-1] == clock.now() + lease_us, "a renewal")
            clock.advance(lease_us // 2)
            others.extend(store.claim("bob", ["long"], clock.now(), SECOND))

    [job] = store.enqueue([NewJob("long")], clock.now())
    Runner(store, {"long": lambda run: run.step("sleep", step)}, clock, holder="ana", lease_us=lease_us).run_one()
    assert others == []
    assert store.find()[0].status is Status.DONE
    assert store.find()[0].id == job.id


def test_progress_is_kept() -> None:
    bench = Bench({"walk": lambda run: run.progress(1, 3, "north")})
    job = bench.queue("walk")
    bench.runner().run_one()
    assert bench.job(job).progress == Progress(1, 3, "north")


def test_two_runners_queue_a_tick_once_and_a_missed_one_not_at_all() -> None:
    bench = Bench({"count": lambda run: None})
    schedules = [Schedule("hourly", "count", Every(HOUR))]
    one, two = bench.runner("ana"), bench.runner("bob")
    queued = []
    for passed in (0, 10, HOUR, HOUR + 10, 5 * HOUR, 5 * HOUR + 10, 4 * HOUR):
        bench.clock.set(NOW + passed)
        for runner in (one, two, bench.runner("eve")):
            queued += [(passed, job.schedule) for job in runner.tick(schedules)]
    assert queued == [(HOUR, "hourly"), (5 * HOUR, "hourly")]
