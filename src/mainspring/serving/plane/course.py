"""The course of one batch through its lane: features read, unusual rows screened, the model called, requests answered.

What cannot run beside the others of a batch runs after them: rows of another shape, and the requests of a batch that
failed, one by one.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mainspring.core.cores import usable_cores
from mainspring.core.errors import DeadlineExceeded, Invalid, MainspringError, Unavailable
from mainspring.serving.batching.batcher import Batch
from mainspring.serving.plane.batch_run import Ask, Work, alike, monotonic_us
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.screening import Screen, refusal
from mainspring.serving.plane.watch import StoreDamaged

if TYPE_CHECKING:
    from mainspring.serving.plane.lane import Lane

INLINE_US = 200.0  # a model call predicted to take longer runs in a thread
ONE_CORE_US = 2_000.0  # the same where a thread would only take turns with the event loop
_SCREENED_AT_ONCE = 2_048  # values; more are screened in a thread
_SPARE_US = 5_000  # beside the model's time, for an answer from defaults that is still in time


class Course:
    """A batch that left the queue.

    Attributes:
        batch: The batch, as the queue knows it.
        taken: When it did, monotonic, µs.
        rows: Those that the model computes, or would have.
        sound: Whether all of it ran to its end, so that its time says what such a batch takes.
    """

    __slots__ = ("_lane", "_rest", "batch", "rows", "sound", "taken")

    def __init__(self, lane: Lane, batch: Batch[Ask], taken: int) -> None:
        self.batch = batch
        self.taken = taken
        self.rows = batch.rows
        self.sound = True
        self._lane = lane
        self._rest = deque(alike(batch.jobs))

    def go_on(self) -> None:
        """Run its parts; the lane is told when the last has ended."""
        while self._rest:
            if not self._start(Work(self._rest.popleft(), self.taken, monotonic_us())):
                return
        self._lane.ended(self)

    def _start(self, work: Work) -> bool:
        """Run requests together. Returns whether they are done; if not, `go_on` is called once they are."""
        lane = self._lane
        try:
            for job in work.jobs:
                if job.payload.rows.keyed:  # whose features are read now, and not when another comes
                    lane.flights.close(job)
            if lane.runtime.remote and not work.without_store and any(job.payload.rows.keyed for job in work.jobs):
                self._read(work)
                return False
            self._gather(work)
            lane.uses.loop_us += work.read - work.begun
            return self._compute(work)
        except Exception as error:
            self._failed(work, error)
        return True

    def _compute(self, work: Work) -> bool:
        """Run the model on what was gathered. Returns whether it is done, as `_start` does."""
        lane = self._lane
        if lane.reusing is not None and not self._found(work):
            return True
        screen = work.screen = lane.screen
        if screen is None:
            return self._run_model(work)
        if work.rows * len(lane.names) <= _SCREENED_AT_ONCE:
            return not self._screened(work, screen, screen.unusual(work.gathered.features, work.rows)) or (
                self._run_model(work)
            )
        screening = lane.in_thread(lambda: screen.unusual(work.gathered.features, work.rows))

        def screened(done: asyncio.Future[dict[int, str] | None]) -> None:
            try:
                if self._screened(work, screen, done.result()) and not self._run_model(work):
                    return
            except Exception as error:
                self._failed(work, error)
            self.go_on()

        screening.add_done_callback(screened)
        return False

    def _found(self, work: Work) -> bool:
        """Take the requests for whose features there is an answer out of a batch. Returns whether any other is left."""
        lane = self._lane
        hits = lane.reusing.found(work, lane.screen) if lane.reusing is not None else None
        if hits is None:
            return True
        self.rows -= hits.rows
        lane.metrics.found(hits.gathered.statuses.values())
        lane.answer_again(hits)
        self.sound &= bool(work.jobs)  # the time of a batch without the model teaches nothing
        return bool(work.jobs)

    def _run_model(self, work: Work) -> bool:
        """Run the model. Returns whether it is done, as `_start` does."""
        if self._slow(work.rows):
            running = self._lane.in_thread(lambda: self._predict(work))
            running.add_done_callback(lambda done: self._computed(work, done))
            return False
        try:
            self._predict(work)
        finally:
            self._lane.uses.loop_us += work.took_us
        self._finish(work)
        return True

    def _screened(self, work: Work, screen: Screen, found: Mapping[int, str] | None) -> bool:
        """Keep the unusual rows, or refuse their requests if they are to be. Returns whether any request is left.

        Args:
            found: The rows; `None` if they could not be checked.
        """
        replies = self._lane.replies
        replies.count_screened(screen, found, work.rows)
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
                replies.fail(job, refusal(rows[place] - start, found[rows[place]]))
            else:
                stay.append(job)
            start += job.rows
        work.keep(stay)
        return bool(stay)

    def _read(self, work: Work) -> None:
        """Gather in a thread; a read that hangs is left to its own time-out when nobody can wait for it any more."""
        timer: asyncio.TimerHandle
        lane, loop = self._lane, asyncio.get_running_loop()
        jobs = list(work.jobs)  # the thread sorts those of `work`
        reading = loop.run_in_executor(lane.reads, self._gather, work)
        first = min(job.deadline for job in jobs)
        defaults = lane.defaults and not lane.runtime.functions  # they may hang, which no default replaces
        if defaults:  # from these everybody shall be answered in time
            now = monotonic_us()
            first = max((now + first) // 2, int(first - _SPARE_US - lane.runtime.cost.predict(work.rows)))

        def wait(until: int) -> asyncio.TimerHandle:
            return loop.call_later(max(0, until - monotonic_us()) / 1e6, overdue)

        def overdue() -> None:
            nonlocal timer
            if reading.done():  # in this turn of the loop: `read` is called in the next
                return
            now, late = monotonic_us(), Unavailable("The online store did not respond in time.")
            for job in [job for job in jobs if job.deadline <= now and not defaults]:
                jobs.remove(job)
                lane.metrics.rejections["expired"] += 1
                lane.replies.fail(job, late)
            if jobs and not defaults:
                timer = wait(min(job.deadline for job in jobs))
                return
            reading.remove_done_callback(read)
            reading.cancel()  # it may not have begun, behind others that hang
            self.sound = False
            if not jobs or self._start(Work(jobs, work.taken, now, without_store=True)):
                self.go_on()

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
            self.go_on()

        timer = wait(first)
        reading.add_done_callback(read)

    def _computed(self, work: Work, done: asyncio.Future[None]) -> None:
        self._lane.uses.thread_us += work.took_us * min(self.batch.executors, work.rows)
        try:
            done.result()
            self._finish(work)
        except Exception as error:
            self._failed(work, error)
        self.go_on()

    def _gather(self, work: Work) -> None:
        lane = self._lane
        work.gather(lane.runtime, lane.names, lane.now(), defaults=lane.defaults)
        work.read = monotonic_us()

    def _predict(self, work: Work) -> None:
        lane = self._lane
        begun = time.monotonic_ns()
        work.called = begun // 1000
        executors = min(self.batch.executors, work.rows)
        lane.load.begin(begun / 1000, executors)
        try:
            work.outputs = lane.predict(work.gathered.features, work.rows, executors)
        finally:
            ended = time.monotonic_ns()
            lane.load.end(ended / 1000, executors)
            work.took_us = (ended - begun) / 1000

    def _slow(self, rows: int) -> bool:
        """Return whether a batch belongs in a thread: by what warming up measured, and by the fastest of late. Code
        that is not ours always does.

        The fastest, because on a busy machine the others tell how long a call waited for a processor; moving them to a
        thread would only add to that.
        """
        lane = self._lane
        if not lane.here:  # the model left since, and is loaded first
            return True
        predicted = max(lane.runtime.cost.predict(rows), min(lane.recent_us, default=0.0))
        return predicted > lane.inline_us or not lane.runtime.executor.inline

    def _finish(self, work: Work) -> None:
        lane = self._lane
        lane.recent_us.append(work.took_us)
        lane.metrics.stages["features"].observe((work.read - work.begun) / 1e6)
        lane.metrics.stages["compute"].observe(work.took_us / 1e6)
        lane.metrics.found(work.gathered.statuses.values())
        for process in lane.runtime.functions:
            lane.metrics.spent(process.function.name, *process.spent())
        if lane.reusing is not None:
            lane.reusing.keep(work)
        lane.replies.settle(work)

    def _failed(self, work: Work, error: Exception) -> None:
        self.sound = False
        if isinstance(error, StoreDamaged):
            self._lane.suspect(error)
        if len(work.jobs) > 1 and not _shared(error):
            # One request's rows made the batch fail: each answers for itself, unless it took too long for that.
            now = monotonic_us()
            for job in work.jobs:
                if job.deadline <= now:
                    self._lane.replies.fail(job, DeadlineExceeded("The deadline passed while the batch ran."))
            self._rest.extendleft([job] for job in reversed(work.jobs) if job.deadline > now)
        else:
            self._lane.replies.refuse(work, error)


def inline_us() -> float:
    """Return how long a model call may be predicted to take on the event loop, by the cores of this process."""
    return ONE_CORE_US if usable_cores() == 1 else INLINE_US


def _shared(error: Exception) -> bool:
    """Return whether an error would meet every request of the batch: a store or a disk, not a value."""
    return isinstance(error, MainspringError) and not isinstance(error, (Invalid, ModelFailed))
