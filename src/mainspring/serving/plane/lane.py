"""One version behind one endpoint: its queue, and how a batch of it runs.

Everything here happens on the event loop, but for what is slow enough to be worth a thread: a model, and a read of an
online store on another machine, for which no request waits beyond its deadline. A batch is one read of the store, one
call of the model, one entry of the log; then its requests are answered. Where the endpoint has a cache, a request of
features or tensors is looked up before it is queued; one by key when its features are known.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures import Future as Pending
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar

from mainspring.core.errors import DeadlineExceeded, Invalid, MainspringError, Overloaded, Unavailable
from mainspring.core.ids import PredictionIds
from mainspring.core.time import Clock
from mainspring.ledger.model import Assigned, Log
from mainspring.ledger.ports import PredictionLog
from mainspring.ledger.recording import Recorder
from mainspring.security.model import Principal
from mainspring.serving.batching.batcher import Batcher, Job
from mainspring.serving.caching.responses import Responses, Reuse
from mainspring.serving.model import Unusual
from mainspring.serving.plane.absence import Absence
from mainspring.serving.plane.arms import ArmOutcomes, FailureBuffer
from mainspring.serving.plane.batch_run import Answer, Ask, Waiter, Work, alike, monotonic_us
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.flights import Flights
from mainspring.serving.plane.load import Load
from mainspring.serving.plane.metering import Charge, Quotas
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.plane.reusing import Reusing
from mainspring.serving.plane.runtime import MAX_ROWS, Runtime
from mainspring.serving.plane.screening import Screen, refusal, screen_of
from mainspring.serving.plane.shaping import Policies
from mainspring.serving.plane.shedding import Shedder
from mainspring.serving.plane.statistics import Statistics
from mainspring.serving.plane.watch import StoreDamaged
from mainspring.serving.protocol.schema import Rows

INLINE_US = 200.0  # a model call predicted to take longer runs in a thread
ONE_CORE_US = 2_000.0  # the same where a thread would only take turns with the event loop
LAST = 2**32 + 1  # the priority of who names none
_RECENT = 16  # batches
_SCREENED_AT_ONCE = 2_048  # values; more are screened in a thread
_SPARE_US = 5_000  # beside the model's time, for an answer from defaults that is still in time

__all__ = ["Answer", "Ask", "Lane", "monotonic_us"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Lane:
    """Runs the requests of one (endpoint, version).

    Args:
        version: The version's number, for replies and the log.
        log: Gets every prediction before its caller does.
        clock: Says what time it is for features and the log; deadlines go by the monotonic time.
        threads: Where slow models run.
        reads: Where an online store on another machine is read. As many reads as it has threads may hang at once.
        policy: What of the predictions the log keeps, and whether answers wait for it.
        defaults: Whether stored features have their defaults where the online store does not answer.
        failures: Gets the failed requests of rollouts; by default one that logs them.
        unusual: What becomes of rows that are unlike the training rows.
    """

    def __init__(
        self,
        endpoint: str,
        version: str,
        runtime: Runtime,
        *,
        log: PredictionLog,
        clock: Clock,
        metrics: EndpointMetrics,
        threads: Executor,
        reads: Executor,
        max_queue_rows: int,
        policy: Log | None = None,
        suspect: Callable[[StoreDamaged], None] = lambda _: None,
        defaults: bool = False,
        failures: FailureBuffer | None = None,
        unusual: Unusual | None = None,
    ) -> None:
        self.version = version
        self.runtime = runtime
        self.recorder = Recorder(
            log,
            endpoint=endpoint,
            model=runtime.manifest.model,
            version=version,
            digest=runtime.digest,
            keys=runtime.key_names,
            personal=runtime.personal,
            policy=policy,
        )
        self.defaults = defaults
        self.screen = screen_of(unusual, runtime)  # may be changed at any time
        self.arm = ArmOutcomes(self.recorder, metrics.arm(version), failures or FailureBuffer(log), clock)
        self.flights = Flights()
        self.reusing: Reusing | None = None
        self.streams = 0  # answers in parts that are under way
        self._assigned = False  # whether a rollout ever assigned a request to it
        self.statistics = Statistics(clock)
        self.load = Load()
        self.numbers = metrics.version(version)
        self._endpoint = endpoint
        self._ids = PredictionIds()
        self._clock = clock
        self._metrics = metrics
        self._threads = threads
        self._reads = reads
        self._suspect = suspect  # is told of damage in the online store
        self._inline_us = ONE_CORE_US if _cores() == 1 else INLINE_US
        self._loop = asyncio.get_running_loop()
        self._recent_us: deque[float] = deque(maxlen=_RECENT)
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None  # where the batcher waits for a fuller batch
        self._names = tuple(spec.name for spec in runtime.inputs)
        self._rest: deque[list[Job[Ask]]] = deque()  # of the batch that runs: what cannot run beside the others
        self._taken = self._rows = 0
        self._sound = True  # whether all of it ran to its end
        self.batcher: Batcher[Ask] = Batcher(
            monotonic_us, max_queue_rows=max_queue_rows, max_batch_rows=MAX_ROWS, cost=copy(runtime.cost)
        )
        self._absence = Absence.of(runtime)

    def use(self, responses: Responses | None) -> None:
        """Look for earlier answers among these from now on; `None`: nowhere."""
        if responses is None:
            self.reusing = None
        elif self.reusing is None or self.reusing.responses is not responses:
            self.reusing = Reusing(responses, self.runtime, self.version, self.flights, self._clock)

    @property
    def most_rows(self) -> int:
        """How many rows may wait for the answers of equal requests."""
        return self.batcher.max_queue_rows

    def job(
        self,
        rows: Rows,
        waiter: Waiter,
        *,
        received: int,
        deadline: int,
        priority: int,
        principal: str,
        request_id: str = "",
        assigned: Assigned | None = None,
        reuse: Reuse | None = None,
    ) -> Job[Ask]:
        """Return a request for `submit`."""
        if assigned is not None:
            self._assigned = True
        ask = Ask(rows, principal, received, waiter, request_id, assigned, reuse=reuse)
        return Job(ask, rows.count, deadline, priority, nbytes=rows.nbytes)

    def now(self) -> int:
        """Return the instant of a prediction, UTC epoch microseconds."""
        return self._clock.now()

    def take_ids(self, rows: int) -> list[str]:
        """Return ids of new predictions."""
        return self._ids.take(rows)

    def in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run a part of the model's work behind what waits for its thread."""
        return self._loop.run_in_executor(self._threads, work)

    def close_later(self, source: Generator[Any, None, None]) -> None:
        """Close a generator of the model, once it does nothing."""
        with suppress(RuntimeError):  # the server has stopped, and the model with it
            self._threads.submit(source.close)

    def check_time(self, received: int, deadline: float) -> None:
        """Raise `DeadlineExceeded` if the deadline has passed."""
        now = monotonic_us()
        if deadline <= now:
            self._metrics.rejections["too_late"] += 1
            self.statistics.failed(now - received)
            raise DeadlineExceeded("The deadline has already passed.")

    def check_shed(self, shedder: Shedder, priority: int, unit: str) -> None:
        """Raise if a request is shed; arguments as of `Shedder.check`, but that a priority of 0 is none."""
        try:
            shedder.check(priority or LAST, unit)
        except Overloaded:
            self._metrics.rejections["shed"] += 1
            raise

    def check_caller(self, policies: Policies, caller: Principal) -> None:
        """Raise if a caller gets no answers; errors as of `Policies.check`."""
        try:
            policies.check(caller)
        except MainspringError:
            self._metrics.rejections["restricted"] += 1
            raise

    def charge(self, quotas: Quotas, caller: Principal, rows: int, arrived: int) -> Charge:
        """Charge a request to its caller; arguments and errors as of `Quotas.charge`."""
        try:
            return quotas.charge(caller, rows, arrived)
        except MainspringError:
            self._metrics.rejections["quota"] += 1
            raise

    def check_queue(self, rows: int, *, received: int, deadline: float, priority: int) -> None:
        """Raise if a request of so many rows has no chance, before its tensors are decoded; errors as of `submit`."""
        if 0 < rows <= MAX_ROWS:
            try:
                self.batcher.check(rows, int(deadline), priority or LAST)
            except MainspringError as error:
                self._reject(error, received)
                raise

    def submit(self, job: Job[Ask]) -> None:
        """Let a request wait for its batch. Its waiter is told what becomes of it, in a later turn of the loop.

        Raises:
            Overloaded: The queue is full.
            DeadlineExceeded: It would be answered too late.
        """
        if self.reusing is None or not self.reusing.take(job, self):
            self.offer(job)

    def cancel(self, job: Job[Ask]) -> None:
        """Drop a request whose caller is gone, if nothing has begun for it."""
        if not self.flights.leave(job) and self.batcher.cancel(job):
            self.flights.fall(job)

    def offer(self, job: Job[Ask]) -> None:
        """Queue a request; errors as of `submit`."""
        self.load.asked += 1
        try:
            if self._absence is not None:
                self._absence.check(self, job.deadline)
            self.batcher.offer(job)
        except MainspringError as error:
            self.flights.fall(job)
            self._reject(error, job.payload.received)
            raise
        self.wake()

    def _reject(self, error: MainspringError, received: int) -> None:
        self._metrics.rejections["queue_full" if isinstance(error, Overloaded) else "too_late"] += 1
        self.load.lost += 1
        self.statistics.failed(monotonic_us() - received)

    def wake(self) -> None:
        """Run what is queued in the next turn of the loop, unless something runs."""
        if self._scheduled or not self.batcher.idle:
            return
        self._scheduled = True
        # By the next turn of the loop every request that this turn has decoded waits too: they run together.
        self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._absence is not None and self._absence.holds(self):
            return
        wait_us = self.batcher.wait_until() - monotonic_us()
        if wait_us > 0:
            self._timer = self._loop.call_later(wait_us / 1e6, self._run)
            return
        batch = self.batcher.take()
        self.expire(batch.late)
        if batch.jobs:
            self._taken, self._rows, self._sound = monotonic_us(), batch.rows, True
            self._metrics.batch_rows.observe(batch.rows)
            queue = self._metrics.stages["queue"]
            for job in batch.jobs:
                queue.observe((self._taken - job.arrived) / 1e6)
                self.load.waited_us += self._taken - job.arrived
            self.load.taken += len(batch.jobs)
            self._rest.extend(alike(batch.jobs))
            self._go_on()

    def expire(self, late: Sequence[Job[Ask]]) -> None:
        """Refuse queued requests whose deadline has passed."""
        for job in late:
            self._metrics.rejections["expired"] += 1
            job.payload.refused = True
            self.load.lost += 1
            self.fail(job, DeadlineExceeded("The deadline passed in the queue."))

    def _go_on(self) -> None:
        while self._rest:
            if not self._start(Work(self._rest.popleft(), self._taken, monotonic_us())):
                return
        if self._sound:
            self.batcher.done(self._rows, monotonic_us() - self._taken)
        else:
            self.batcher.failed()
        if self.batcher.waiting_rows:
            self.wake()

    def _start(self, work: Work) -> bool:
        """Run requests together. Returns whether they are done; if not, `_computed` will go on."""
        try:
            for job in work.jobs:
                if job.payload.rows.keyed:  # whose features are read now, and not when another comes
                    self.flights.close(job)
            if self.runtime.remote and not work.without_store and any(job.payload.rows.keyed for job in work.jobs):
                self._read(work)
                return False
            self._gather(work)
            return self._compute(work)
        except Exception as error:
            self._failed(work, error)
        return True

    def _compute(self, work: Work) -> bool:
        """Run the model on what was gathered. Returns whether it is done; if not, `_computed` will go on."""
        if self.reusing is not None and not self._found(work):
            return True
        screen = work.screen = self.screen
        if screen is None:
            return self._run_model(work)
        if work.rows * len(self._names) <= _SCREENED_AT_ONCE:
            return not self._screened(work, screen, screen.unusual(work.gathered.features, work.rows)) or (
                self._run_model(work)
            )
        screening = self._loop.run_in_executor(self._threads, screen.unusual, work.gathered.features, work.rows)

        def screened(done: asyncio.Future[dict[int, str] | None]) -> None:
            try:
                if self._screened(work, screen, done.result()) and not self._run_model(work):
                    return
            except Exception as error:
                self._failed(work, error)
            self._go_on()

        screening.add_done_callback(screened)
        return False

    def _found(self, work: Work) -> bool:
        """Take the requests for whose features there is an answer out of a batch. Returns whether any other is left."""
        hits = self.reusing.found(work, self.screen) if self.reusing is not None else None
        if hits is None:
            return True
        self._rows -= hits.rows
        self._metrics.found(hits.gathered.statuses.values())
        self.answer_again(hits)
        self._sound &= bool(work.jobs)  # the time of a batch without the model teaches nothing
        return bool(work.jobs)

    def answer_again(self, work: Work) -> None:
        """Answer requests whose answers were computed for others."""
        try:
            if work.screen is not None:
                self._count_screened(work.screen, work.unusual, work.rows)
            self._settle(work)
        except Exception as error:
            self.refuse(work, error)

    def _run_model(self, work: Work) -> bool:
        """Run the model. Returns whether it is done, as `_compute` does."""
        if self._slow(work.rows):
            running = self._loop.run_in_executor(self._threads, self._predict, work)
            running.add_done_callback(lambda done: self._computed(work, done))
            return False
        self._predict(work)
        self._finish(work)
        return True

    def _screened(self, work: Work, screen: Screen, found: Mapping[int, str] | None) -> bool:
        """Keep the unusual rows, or refuse their requests if they are to be. Returns whether any request is left.

        Args:
            found: The rows; `None` if they could not be checked.
        """
        self._count_screened(screen, found, work.rows)
        if found is None:
            return True
        if not screen.refuses:
            work.unusual, work.fallback = found, screen.answer
        if not screen.refuses or not found:
            return True
        stay, start, rows = [], 0, sorted(found)
        for job in work.jobs:
            place = bisect_left(rows, start)
            if place < len(rows) and rows[place] < start + job.rows:
                job.payload.refused = True
                self.fail(job, refusal(rows[place] - start, found[rows[place]]))
            else:
                stay.append(job)
            start += job.rows
        work.keep(stay)
        return bool(stay)

    def _count_screened(self, screen: Screen, found: Mapping[int, str] | None, rows: int) -> None:
        counted = self._metrics.screened
        if not screen.checks:
            counted["unchecked"] += rows
        elif found is not None:
            counted["refused" if screen.refuses else "fallback" if screen.answer else "flagged"] += len(found)

    def _read(self, work: Work) -> None:
        """Gather in a thread; a read that hangs is left to its own time-out when nobody can wait for it any more."""
        timer: asyncio.TimerHandle
        jobs = list(work.jobs)  # the thread sorts those of `work`
        reading = self._loop.run_in_executor(self._reads, self._gather, work)
        first = min(job.deadline for job in jobs)
        defaults = self.defaults and not self.runtime.functions  # they may hang, which no default replaces
        if defaults:  # from these everybody shall be answered in time
            now = monotonic_us()
            first = max((now + first) // 2, int(first - _SPARE_US - self.runtime.cost.predict(work.rows)))

        def wait(until: int) -> asyncio.TimerHandle:
            return self._loop.call_later(max(0, until - monotonic_us()) / 1e6, overdue)

        def overdue() -> None:
            nonlocal timer
            if reading.done():  # in this turn of the loop: `read` is called in the next
                return
            now, late = monotonic_us(), Unavailable("The online store did not respond in time.")
            for job in [job for job in jobs if job.deadline <= now and not defaults]:
                jobs.remove(job)
                self._metrics.rejections["expired"] += 1
                self.fail(job, late)
            if jobs and not defaults:
                timer = wait(min(job.deadline for job in jobs))
                return
            reading.remove_done_callback(read)
            reading.cancel()  # it may not have begun, behind others that hang
            self._sound = False
            if not jobs or self._start(Work(jobs, work.taken, now, without_store=True)):
                self._go_on()

        def read(done: asyncio.Future[None]) -> None:
            timer.cancel()
            try:
                if len(jobs) < len(work.jobs):
                    work.keep(jobs)
                done.result()
                if not self._compute(work):
                    return
            except Exception as error:
                self._failed(work, error)
            self._go_on()

        timer = wait(first)
        reading.add_done_callback(read)

    def _computed(self, work: Work, done: asyncio.Future[None]) -> None:
        try:
            done.result()
            self._finish(work)
        except Exception as error:
            self._failed(work, error)
        self._go_on()

    def _gather(self, work: Work) -> None:
        work.gather(self.runtime, self._names, self._clock.now(), defaults=self.defaults)
        work.read = monotonic_us()

    def _predict(self, work: Work) -> None:
        begun = time.monotonic_ns()
        work.called = begun // 1000
        self.load.begin(begun / 1000, min(work.rows, self._absence.executors if self._absence is not None else 1))
        try:
            work.outputs = self.runtime.executor.predict(work.gathered.features, work.rows)
        finally:
            ended = time.monotonic_ns()
            self.load.end(ended / 1000)
        work.took_us = (ended - begun) / 1000

    def _slow(self, rows: int) -> bool:
        """Return whether a batch belongs in a thread: by what warming up measured, and by the fastest of late. Code
        that is not ours always does.

        The fastest, because on a busy machine the others tell how long a call waited for a processor; moving them to a
        thread would only add to that.
        """
        if self._absence is not None and not self._absence.over:  # it left since, and is loaded first
            return True
        predicted = max(self.runtime.cost.predict(rows), min(self._recent_us, default=0.0))
        return predicted > self._inline_us or not self.runtime.executor.inline

    def _finish(self, work: Work) -> None:
        self._recent_us.append(work.took_us)
        self._metrics.stages["features"].observe((work.read - work.begun) / 1e6)
        self._metrics.stages["compute"].observe(work.took_us / 1e6)
        self._metrics.found(work.gathered.statuses.values())
        for process in self.runtime.functions:
            self._metrics.spent(process.function.name, *process.spent())
        if self.reusing is not None:
            self.reusing.keep(work)
        self._settle(work)

    def _settle(self, work: Work) -> None:
        """Log and answer requests, and those that waited for their answers."""
        followers = []
        for job, start, end in work.parts():
            if waited := self.flights.land(job):
                followers.append(work.again(waited, start, end))
        try:
            self._conclude(work)
        except Exception as error:
            for each in followers:
                self.refuse(each, error)
            raise
        for each in followers:
            try:
                self._conclude(each)
            except Exception as error:
                self.refuse(each, error)

    def _conclude(self, work: Work) -> None:
        work.fall_back()
        work.ids = self._ids.take(work.rows)
        waiting = work.record(self.recorder, monotonic_us(), assigned=self._assigned)
        work.unlogged = len(waiting)
        if not waiting:
            self._answer(work)
        for pending in waiting:
            pending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._logged, work, waiting))

    def _logged(self, work: Work, waiting: Sequence[Pending[None]]) -> None:
        work.unlogged -= 1
        if work.unlogged:
            return
        error = next((found for pending in waiting if (found := pending.exception()) is not None), None)
        if error is None:
            self._answer(work)
        else:
            self.refuse(work, error)

    def _answer(self, work: Work) -> None:
        self._metrics.rows += work.rows
        if self.reusing is not None:
            self.reusing.responses.count(job.payload.reuse for job in work.jobs)
        work.answer(self.statistics, monotonic_us())

    def _failed(self, work: Work, error: Exception) -> None:
        self._sound = False
        if isinstance(error, StoreDamaged):
            self._suspect(error)
        if len(work.jobs) > 1 and not _shared(error):
            # One request's rows made the batch fail: each answers for itself, unless it took too long for that.
            now = monotonic_us()
            for job in work.jobs:
                if job.deadline <= now:
                    self.fail(job, DeadlineExceeded("The deadline passed while the batch ran."))
            self._rest.extendleft([job] for job in reversed(work.jobs) if job.deadline > now)
        else:
            self.refuse(work, error)

    def refuse(self, work: Work, error: BaseException) -> None:
        """Tell requests an error."""
        if not isinstance(error, MainspringError):
            _log.error("A batch of endpoint %s failed.", self._endpoint, exc_info=error)
            error = ModelFailed("The model failed.")
        for job in work.jobs:
            self.fail(job, error)

    def fail(self, job: Job[Ask], error: Exception) -> None:
        """Tell a request its error, and those that wait for its answer."""
        self.fail_alone(job, error)
        self.flights.fall(job, error)

    def fail_alone(self, job: Job[Ask], error: Exception) -> None:
        """Tell a request its error, and those that wait for it nothing."""
        self.statistics.failed(monotonic_us() - job.payload.received)
        if not job.payload.waiter.done():
            job.payload.waiter.set_exception(error)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared(error: Exception) -> bool:
    """Return whether an error would meet every request of the batch: a store or a disk, not a value."""
    return isinstance(error, MainspringError) and not isinstance(error, (Invalid, ModelFailed))
