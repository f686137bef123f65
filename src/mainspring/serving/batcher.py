"""Which waiting requests run next, and which cannot be served in time. No thread, no timer, no clock of its own.

The discipline: whoever is idle takes all that waits, up to the rows of a batch (work-conserving: nobody waits for a
batch to fill). Among those that wait, the lower priority number goes first, then the earlier deadline, then the earlier
arrival. The queue is bounded in rows; a request whose predicted finish is behind its deadline is refused at once, so
that its time goes to one that can still make it. Instants are microseconds of the clock that is passed in.
"""

from __future__ import annotations

from bisect import insort
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
        cost: What is known of a batch's cost before the first.
    """

    def __init__(
        self, now: Callable[[], int], *, max_queue_rows: int, max_batch_rows: int, cost: Cost | None = None
    ) -> None:
        self._now = now
        self.max_queue_rows = max_queue_rows
        self.max_batch_rows = max_batch_rows
        self.cost = cost or Cost()
        self._queue: list[tuple[int, int, int, Job[Payload]]] = []  # sorted: priority, deadline, arrival
        self._count = 0
        self._rows = 0
        self._fill = 0  # rows that a batch could have taken the last time there was a choice
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
            wait_us = int(self._finish(now, 0) - now)
            raise Overloaded(f"{self._rows} rows wait already.", retry_after_ms=max(1, wait_us // 1000))
        # With nothing running and nothing waiting it runs now: only so can a prediction that was wrong be corrected.
        busy = self._rows > 0 or not self.idle
        if job.deadline <= now or (busy and self._finish(now, job.rows) > job.deadline):
            raise DeadlineExceeded("The answer would come after its deadline.")
        job.arrived = now
        self._count += 1
        self._rows += job.rows
        insort(self._queue, (job.priority, job.deadline, self._count, job))

    def take(self) -> Batch[Payload]:
        """Return what the idle executor runs now; without jobs, it stays idle. After a batch call `done`."""
        batch: Batch[Payload] = Batch()
        now = self._now()
        self._drop(batch, lambda job: job.cancelled or job.deadline <= now)
        self._fill = min(self._rows, self.max_batch_rows)
        while self._queue:
            full, full_rows = self._prefix(0)
            count, rows = self._in_time(full, now)
            if count == full or self._rest_in_time(count, now + self.cost.predict(rows)):
                break
            # To be in time for the first, this batch would be small and the next late: under load that repeats itself
            # until hardly anything is in time. So who cannot make it in a batch of full size gives way.
            finish = now + self.cost.predict(full_rows)
            if all(entry[3].deadline < finish for entry in self._queue):
                break
            self._drop(batch, lambda job, finish=finish: job.deadline < finish, within=full)  # type: ignore[misc]
        if self._queue:
            # Of jobs that are all too late by the prediction one runs nevertheless: the prediction may be wrong.
            count, rows = (count, rows) if count else (1, self._queue[0][3].rows)
            batch.jobs.extend(entry[3] for entry in self._queue[:count])
            del self._queue[:count]
            self._rows -= rows
            self._busy_until = now + self.cost.predict(rows)
        return batch

    def done(self, rows: int, took_us: float) -> None:
        """Say that the batch ran, and how long it took."""
        self.cost.observe(rows, took_us)
        self._busy_until = None

    def failed(self) -> None:
        """Say that the batch did not run to its end; nothing is learnt from it."""
        self._busy_until = None

    def _prefix(self, start: int) -> tuple[int, int]:
        """Return how many jobs from `start` on fill one batch, and their rows."""
        rows = 0
        for place in range(start, len(self._queue)):
            more = self._queue[place][3].rows
            if rows and rows + more > self.max_batch_rows:
                return place - start, rows
            rows += more
        return len(self._queue) - start, rows

    def _in_time(self, limit: int, now: int) -> tuple[int, int]:
        """Return how many of the first `limit` jobs can run together within all their deadlines, and their rows."""
        rows, deadline = 0, self._queue[0][3].deadline
        for count in range(limit):
            job = self._queue[count][3]
            deadline = min(deadline, job.deadline)
            if now + self.cost.predict(rows + job.rows) > deadline:
                return count, rows
            rows += job.rows
        return limit, rows

    def _rest_in_time(self, start: int, begin: float) -> bool:
        """Return whether the batch after the first `start` jobs, begun at `begin`, is within its deadlines."""
        if start == 0:
            return False
        count, rows = self._prefix(start)
        finish = begin + self.cost.predict(rows)
        return all(entry[3].deadline >= finish for entry in self._queue[start : start + count])

    def _drop(self, batch: Batch[Payload], gone: Callable[[Job[Payload]], bool], within: int | None = None) -> None:
        kept = []
        for entry in self._queue[:within]:
            job = entry[3]
            if not gone(job):
                kept.append(entry)
                continue
            self._rows -= job.rows
            if not job.cancelled:
                batch.late.append(job)
        self._queue[:within] = kept

    def _finish(self, now: int, rows: int) -> float:
        """Return when `rows` more would be done, if they came last.

        Their batch is taken to fill up, behind them, as the last one could have.
        """
        free = now if self._busy_until is None else max(now, self._busy_until)
        ahead, last = divmod(self._rows + rows - 1, self.max_batch_rows)
        return free + ahead * self.cost.predict(self.max_batch_rows) + self.cost.predict(max(last + 1, self._fill))
