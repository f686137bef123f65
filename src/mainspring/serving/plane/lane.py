"""One version behind one endpoint: its queue, and who may join it.

Everything here happens on the event loop, but for what is slow enough to be worth a thread: a model, and a read of an
online store on another machine, for which no request waits beyond its deadline. A batch is one read of the store, one
call of the model, one entry of the log; then its requests are answered (`plane.course`, `plane.replies`). Where the
endpoint has a cache, a request of features or tensors is looked up before it is queued; one by key when its features
are known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar

from mainspring.core.errors import DeadlineExceeded, MainspringError, Overloaded
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
from mainspring.serving.plane.batch_run import Answer, Ask, Waiter, Work, monotonic_us
from mainspring.serving.plane.course import Course, inline_us
from mainspring.serving.plane.flights import Flights
from mainspring.serving.plane.load import Load
from mainspring.serving.plane.metering import Charge, Quotas
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.plane.replies import Replies
from mainspring.serving.plane.reusing import Reusing
from mainspring.serving.plane.runtime import MAX_ROWS, Runtime
from mainspring.serving.plane.screening import screen_of
from mainspring.serving.plane.shaping import Policies
from mainspring.serving.plane.shedding import Shedder
from mainspring.serving.plane.statistics import Statistics
from mainspring.serving.plane.uses import LaneUses
from mainspring.serving.plane.watch import StoreDamaged
from mainspring.serving.protocol.schema import Rows

LAST = 2**32 + 1  # the priority of who names none
_RECENT = 16  # batches

__all__ = ["Answer", "Ask", "Lane", "monotonic_us"]

T = TypeVar("T")


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
        uses: Gets what its callers had, and the times of its model.
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
        uses: LaneUses | None = None,
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
        self.statistics = Statistics(clock)
        self.load = Load()
        self.numbers = metrics.version(version)
        self.uses = uses or LaneUses()
        self.metrics = metrics
        self.replies = Replies(endpoint, self.recorder, self.statistics, metrics, self.flights)
        self.names = tuple(spec.name for spec in runtime.inputs)
        self.reads = reads
        self.suspect = suspect  # is told of damage in the online store
        self.inline_us = inline_us()
        self.recent_us: deque[float] = deque(maxlen=_RECENT)  # of calls of the model
        self._clock = clock
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None  # where the batcher waits for a fuller batch
        self.batcher: Batcher[Ask] = Batcher(
            monotonic_us, max_queue_rows=max_queue_rows, max_batch_rows=MAX_ROWS, cost=copy(runtime.cost)
        )
        self._absence = Absence.of(runtime)
        self._several = not runtime.executor.inline  # whether the model may have several executors

    def use(self, responses: Responses | None) -> None:
        """Look for earlier answers among these from now on; `None`: nowhere."""
        self.replies.responses = responses
        if responses is None:
            self.reusing = None
        elif self.reusing is None or self.reusing.responses is not responses:
            self.reusing = Reusing(responses, self.runtime, self.version, self.flights, self._clock)

    @property
    def here(self) -> bool:
        """Whether the model is in memory."""
        return self._absence is None or self._absence.over

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
            self.replies.assigned = True
        ask = Ask(rows, principal, received, waiter, request_id, assigned, reuse=reuse)
        return Job(ask, rows.count, deadline, priority, nbytes=rows.nbytes)

    def predict(self, features: Mapping[str, Any], rows: int, executors: int) -> Mapping[str, Any]:
        """Return the model's outputs; so many of its executors divide the rows."""
        if self._absence is not None and executors > 1:
            return self._absence.executor.predict(features, rows, executors)
        return self.runtime.executor.predict(features, rows)

    def now(self) -> int:
        """Return the instant of a prediction, UTC epoch microseconds."""
        return self._clock.now()

    def take_ids(self, rows: int) -> list[str]:
        """Return ids of new predictions."""
        return self.replies.ids.take(rows)

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
            self.metrics.rejections["too_late"] += 1
            self.statistics.failed(now - received)
            raise DeadlineExceeded("The deadline has already passed.")

    def check_shed(self, shedder: Shedder, priority: int, unit: str) -> None:
        """Raise if a request is shed; arguments as of `Shedder.check`, but that a priority of 0 is none."""
        try:
            shedder.check(priority or LAST, unit)
        except Overloaded:
            self.metrics.rejections["shed"] += 1
            raise

    def check_caller(self, policies: Policies, caller: Principal) -> None:
        """Raise if a caller gets no answers; errors as of `Policies.check`."""
        try:
            policies.check(caller)
        except MainspringError:
            self.metrics.rejections["restricted"] += 1
            self.uses.refused(caller)
            raise

    def charge(self, quotas: Quotas, caller: Principal, rows: int, arrived: int) -> Charge:
        """Charge a request to its caller; arguments and errors as of `Quotas.charge`."""
        try:
            return quotas.charge(caller, rows, arrived)
        except MainspringError:
            self.metrics.rejections["quota"] += 1
            self.uses.refused(caller)
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
        self.metrics.rejections["queue_full" if isinstance(error, Overloaded) else "too_late"] += 1
        self.load.lost += 1
        self.statistics.failed(monotonic_us() - received)

    def wake(self) -> None:
        """Run what is queued in the next turn of the loop, unless every executor runs something."""
        if self._absence is not None and self._several:
            self.batcher.executors = self._absence.executors
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
        self._take()
        if self.batcher.waiting_rows:  # for another executor
            self.wake()

    def _take(self) -> None:
        batch = self.batcher.take()
        self.expire(batch.late)
        if batch.jobs:
            taken = monotonic_us()
            self.metrics.batch_rows.observe(batch.rows)
            queue = self.metrics.stages["queue"]
            for job in batch.jobs:
                queue.observe((taken - job.arrived) / 1e6)
                self.load.waited_us += taken - job.arrived
            self.load.taken += len(batch.jobs)
            Course(self, batch, taken).go_on()

    def ended(self, course: Course) -> None:
        """Go on after a batch that has ended."""
        if course.sound:
            self.batcher.done(course.batch, monotonic_us() - course.taken, course.rows)
        else:
            self.batcher.failed(course.batch)
        if self.batcher.waiting_rows:
            self.wake()

    def expire(self, late: Sequence[Job[Ask]]) -> None:
        """Refuse queued requests whose deadline has passed."""
        for job in late:
            self.metrics.rejections["expired"] += 1
            job.payload.refused = True
            self.load.lost += 1
            self.replies.fail(job, DeadlineExceeded("The deadline passed in the queue."))

    def answer_again(self, work: Work) -> None:
        """Answer requests whose answers were computed for others."""
        self.replies.answer_again(work)

    def refuse(self, work: Work, error: BaseException) -> None:
        """Tell requests an error."""
        self.replies.refuse(work, error)

    def fail_alone(self, job: Job[Ask], error: Exception) -> None:
        """Tell a request its error, and those that wait for it nothing."""
        self.replies.fail_alone(job, error)
