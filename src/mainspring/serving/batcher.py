"""Which waiting requests run next, and which cannot be served in time. No thread, no timer, no clock of its own.

The discipline: whoever is idle takes all that waits, up to the rows of a batch (work-conserving: nobody waits for a
batch to fill). Among those that wait, the lower priority number goes first, then the earlier deadline, then the earlier
arrival. The queue is bounded in rows; a request whose predicted finish is behind its deadline is refused at once, so
that its time goes to one that can still make it. Instants are microseconds of the clock that is passed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mainspring.core.errors import DeadlineExceeded, Overloaded
from mainspring.serving.cost import Cost

Payload = TypeVar("Payload")


@dataclass(eq=False, slots=True)
class Job(Generic[Payload]):
    """One request that waits. Setting `cancelled` while it waits drops it."""

    payload: Payload
    rows: int
    deadline: int
    priority: int = 0
    arrived: int = 0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Batch(Generic[Payload]):
    """What to run now, and what came too late."""

    jobs: list[Job[Payload]] = field(default_factory=list)
    late: list[Job[Payload]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(job.rows for job in self.jobs)


class Batcher(Generic[Payload]):
    """The queue of one executor, which runs one batch at a time.

    Args:
        now: The clock.
        max_queue_rows: The most rows that wait.
        max_batch_rows: The most rows of a batch; a larger request runs alone.
    """

    def __init__(self, now: Callable[[], int], *, max_queue_rows: int, max_batch_rows: int) -> None:
        self._now = now
        self.max_queue_rows = max_queue_rows
        self.max_batch_rows = max_batch_rows
        self.cost = Cost()
        self._heap: list[tuple[int, int, int, Job[Payload]]] = []
        self._count = 0
        self._rows = 0
        self._busy_until: float | None = None

    @property
    def waiting_rows(self) -> int:
        return self._rows

    @property
    def idle(self) -> bool:
        return self._busy_until is None

    def offer(self, job: Job[Payload]) -> None:
        """Let a job wait.

        Raises:
            Overloaded: The queue is full.
            DeadlineExceeded: It would be done too late.
        """
        now = self._now()
        if self._rows and self._rows + job.rows > self.max_queue_rows:
            raise Overloaded(
                f"{self._rows} rows wait already.", retry_after_ms=max(1, int(self._finish(now, 0) - now) // 1000)
            )
        # With nothing running and nothing waiting it runs now: only so can a prediction that was wrong be corrected.
        if job.deadline <= now or ((self._rows or not self.idle) and self._finish(now, job.rows) > job.deadline):
            raise DeadlineExceeded("The answer would come after its deadline.")
        job.arrived = now
        self._count += 1
        self._rows += job.rows
        heapq.heappush(self._heap, (job.priority, job.deadline, self._count, job))

    def take(self) -> Batch[Payload]:
        """Return what the idle executor runs now; without jobs, it stays idle. After a batch call `done`."""
        batch: Batch[Payload] = Batch()
        now, rows, deadline = self._now(), 0, 0
        while self._heap:
            job = self._heap[0][3]
            if job.cancelled:
                self._pop()
                continue
            last = len(self._heap) == 1 and not batch.jobs
            if job.deadline <= now or (not last and now + self.cost.predict(job.rows) > job.deadline):
                batch.late.append(self._pop())
                continue
            if batch.jobs:
                together = rows + job.rows
                deadline = min(deadline, job.deadline)
                if together > self.max_batch_rows or now + self.cost.predict(together) > deadline:
                    break
            else:
                deadline = job.deadline
            rows += job.rows
            batch.jobs.append(self._pop())
        if batch.jobs:
            self._busy_until = now + self.cost.predict(rows)
        return batch

    def done(self, rows: int, took_us: float) -> None:
        """Say that the batch ran, and how long it took."""
        self.cost.observe(rows, took_us)
        self._busy_until = None

    def failed(self) -> None:
        """Say that the batch did not run to its end; nothing is learnt from it."""
        self._busy_until = None

    def _pop(self) -> Job[Payload]:
        job = heapq.heappop(self._heap)[3]
        self._rows -= job.rows
        return job

    def _finish(self, now: int, rows: int) -> float:
        """Return when `rows` more would be done, if they came last."""
        free = now if self._busy_until is None else max(now, self._busy_until)
        return free + self.cost.predict_queue(self._rows + rows, self.max_batch_rows)
