"""Deadline-aware dynamic batcher. It has no thread, no timer and no clock of its own.

The discipline (why: docs/explanation/batching.md): an idle executor takes the queued jobs, up to the rows of a batch.
It waits for more only while requests are being lost and a fuller batch is predicted to lose fewer. Queued jobs run by
priority (the lower number first), then by deadline, then by arrival. The queue is bounded in rows and bytes. A request
whose predicted finish is behind its deadline is refused at once, which leaves the time to one that can still meet its
deadline. Instants are microseconds of the clock that is passed in.

Several executors run batches at the same time. One that is idle takes as many of the queued rows as make all of them
done soonest, the others taking the rest as they become free: half of them where two are idle, all of them where the
others are busy for longer than the batch takes, or where a batch's rows cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Any, Generic

from mainspring.core.errors import DeadlineExceeded, Overloaded
from mainspring.serving.batching.estimates import Cost, Traffic
from mainspring.serving.batching.waiting import Job, Payload, Waiting, choose

__all__ = ["Batch", "Batcher", "Job"]

ADMIT, RUN = 2.0, 1.0  # how many standard deviations slower than predicted a batch may be and still be in time
_PATIENCE = 2 / 3  # of the time a request has beyond a batch's fixed cost: the most that its batch is expected to grow
_GAIN = 1.05  # what waiting must be predicted to win to be worth it
_TIMER_US = 1_000  # how much too late a timer may be
_TRIALS = 9  # for so many times a trial's length there is no other, once one was late
_SHRINK, _GROW = 3 / 4, 1 / 32  # the cap on a batch's rows: of what it is, of what it may be at most


@dataclass(slots=True, eq=False)
class Batch(Generic[Payload]):
    """Jobs to run now, and expired jobs.

    Attributes:
        executors: How many compute it, each a part of its rows.
        tight: The first deadline, if it was predicted in time.
        oldest: The first arrival.
        full: Whether there were more than it could hold.
        trial: A job that was let in although it was predicted to be late.
        busy_until: When it is predicted to be done.
    """

    jobs: list[Job[Payload]] = field(default_factory=list)
    late: list[Job[Payload]] = field(default_factory=list)
    rows: int = 0
    executors: int = 1
    tight: int | None = None
    oldest: int = 0
    full: bool = False
    trial: Job[Payload] | None = None
    busy_until: float = 0.0


class Batcher(Generic[Payload]):
    """The queue of one or more executors, each of which runs one batch at a time.

    Args:
        now: The clock.
        max_queue_rows: The most rows that wait; a larger request waits alone.
        max_queue_bytes: The most bytes that wait; a larger request waits alone.
        max_batch_rows: The most rows of a batch; a larger request runs alone.
        cost: Prior estimate of a batch's cost.

    Attributes:
        executors: How many there are; may be changed at any time.
    """

    def __init__(
        self,
        now: Callable[[], int],
        *,
        max_queue_rows: int,
        max_batch_rows: int,
        max_queue_bytes: int = 1 << 28,
        cost: Cost | None = None,
    ) -> None:
        self._now = now
        self.max_queue_rows = max_queue_rows
        self.max_queue_bytes = max_queue_bytes
        self.max_batch_rows = max_batch_rows
        self.cap_rows = max_batch_rows  # what a batch may hold for now
        self.cost = cost or Cost()
        self._waiting: Waiting[Payload] = Waiting()
        self._traffic = Traffic()
        self.executors = 1
        self._running: list[Batch[Payload]] = []
        self._busy = 0  # executors
        self._cut_at = -1  # when the cap was last lowered
        self._trial: Job[Payload] | None = None  # waits although it was predicted to be late
        self._no_trial_before = 0
        self._longest_us = 0.0  # how long any batch takes, all but surely
        self._learn()

    @property
    def waiting_rows(self) -> int:
        return self._waiting.rows

    @property
    def waiting_bytes(self) -> int:
        return self._waiting.nbytes

    @property
    def idle(self) -> bool:
        """Whether an executor is."""
        return self._busy < self.executors

    def offer(self, job: Job[Payload]) -> None:
        """Queue a job.

        Raises:
            Overloaded: The queue is full.
            DeadlineExceeded: It would be done too late, or one that waits already would be.
        """
        now = self._now()
        self._admit(now, job, alone=self.idle and not self._waiting.rows)
        self._traffic.arrived += job.rows
        job.arrived = now
        self._waiting.push(job)

    def check(self, rows: int, deadline: int, priority: int) -> None:
        """Raise if `offer` would refuse a job now, before the work is done that makes it one.

        Nothing is refused while the executor is idle and nobody waits. The job's bytes are not known yet, so too many
        of them may be refused as too late.

        Raises:
            Overloaded, DeadlineExceeded: As `offer`.
        """
        if not self.idle or self._waiting.rows:
            job: Job[Any] = Job(None, rows, deadline, priority)
            self._admit(self._now(), job, alone=False)

    def _admit(self, now: int, job: Job[Any], *, alone: bool) -> None:
        """Raise, and count the job among the arrivals, if it cannot wait."""
        waiting = self._waiting
        if job.deadline <= now:
            raise DeadlineExceeded("The deadline has already passed.")
        if waiting.rows and (
            waiting.rows + job.rows > self.max_queue_rows or waiting.nbytes + job.nbytes > self.max_queue_bytes
        ):
            self._traffic.arrived += job.rows
            wait_us = self._finish(now, waiting.rows, 0, 0) - now
            raise Overloaded(
                f"{waiting.rows} rows of {waiting.nbytes} bytes are already queued.",
                retry_after_ms=max(1, int(wait_us / 1000)),
            )
        late_us = self._late_alone(now, job) if alone else self._late_behind(now, job)
        if late_us > 0:
            self._traffic.arrived += job.rows
            raise DeadlineExceeded("The response would miss the deadline.", retry_after_ms=max(1, int(late_us / 1000)))

    def cancel(self, job: Job[Payload]) -> bool:
        """Drop a job and return whether it was still queued."""
        job.cancelled = True
        if not job.order:
            return False
        self._waiting.remove(job)
        return True

    @property
    def first_deadline(self) -> int:
        """The earliest deadline of the queued jobs, of which there is one."""
        return self._waiting.first_deadline

    def expired(self, by: int | None = None) -> list[Job[Payload]]:
        """Drop and return the queued jobs whose deadline has passed, or is before `by`."""
        late: list[Job[Payload]] = []
        for priority in tuple(self._waiting.priorities):
            self._waiting.expire(priority, self._now() if by is None else by, late)
        return late

    def wait_until(self) -> int:
        """Return when the idle executor should take: now, or later where that is predicted to lose fewer requests.

        What arrives just after a batch began is lost if two batches in a row take longer than its slack. Where that
        happens, a batch that begins later loses as many, but less often. Ask again after every `offer`.
        """
        now, rows, rate = self._now(), self._waiting.rows, self._traffic.rate
        if not self._traffic.scarce or not rate or not rows or rows >= self.cap_rows or self.executors > 1:
            return now
        slower = 1 + ADMIT * self.cost.usual_deviation
        heads = (queue.entries[0][2] for queue in self._waiting.queues.values())
        first = min(heads, key=lambda job: job.deadline)
        spare = first.deadline - now - _TIMER_US - self.cost.predict(rows) * slower
        wait = min(spare / (1 + self.cost.per_row_us * rate * slower), (self.cap_rows - rows) / rate)
        if rate * wait < 1:
            return now
        slack = first.deadline - first.arrived

        def kept(wait: float) -> float:
            """Return the part of the time whose arrivals are accepted, if each batch waits so long."""
            takes = self.cost.predict(rows + rate * wait)
            return (wait + min(takes, max(0.0, slack - takes))) / (wait + takes)

        return now + int(wait) if kept(wait) > _GAIN * kept(0) else now

    def take(self) -> Batch[Payload]:
        """Return what an idle executor runs now; without jobs, it stays idle. After a batch call `done`."""
        batch: Batch[Payload] = Batch()
        now, waiting = self._now(), self._waiting
        for priority in tuple(waiting.priorities):
            waiting.expire(priority, now, batch.late)
        if not waiting.rows:
            return batch
        most = self.cap_rows
        if self.executors > 1:
            most = min(most, ceil(self._share(now, waiting.rows, self.cost.per_row_us)))
        self._traffic.choice(min(waiting.rows + self._traffic.missed, most))
        for priority in tuple(waiting.priorities):
            if not self._add(priority, now, batch, most):
                break
        if batch.jobs:
            self._trial = None
        else:
            self._try(batch)
        self._learn()
        if batch.jobs:
            self._traffic.begin(now)
            batch.full = bool(waiting.rows) and most == self.cap_rows
            batch.oldest = batch.jobs[0].arrived
            batch.executors = self._over(batch.rows, batch.rows + waiting.rows)
            batch.busy_until = now + self.cost.predict(batch.rows / batch.executors)
            self._running.append(batch)
            self._busy += batch.executors
        return batch

    def done(self, batch: Batch[Payload], took_us: float, rows: int | None = None) -> None:
        """Record that a batch ran, its duration, and of how many rows, by default all of its."""
        now = self._now()
        rows = ceil((batch.rows if rows is None else rows) / batch.executors)
        self.cost.observe(rows, took_us)
        self._end(batch)
        if batch.trial is not None:
            if now > batch.trial.deadline:
                self._no_trial_before = now + int(_TRIALS * took_us)
        elif batch.tight is not None and now > batch.tight:
            # Lowered where that much less would have been in time. Who waited already when the cap was last lowered was
            # let in by what was believed before, and says nothing of the cap since.
            saved = (1 - _SHRINK) * rows * self.cost.per_row_us
            if rows > 1 and batch.oldest > self._cut_at and now - batch.tight <= saved:
                self.cap_rows = max(1, int(min(self.cap_rows, rows) * _SHRINK))
                self._cut_at = now
        elif batch.full and self.cap_rows < self.max_batch_rows:
            self.cap_rows = min(self.max_batch_rows, self.cap_rows + max(1, int(self.max_batch_rows * _GROW)))
        self._learn()

    def _learn(self) -> None:
        """Set what follows from the cost, the cap and the traffic, once any of them has changed."""
        rows = max(self.cap_rows, ceil(self._traffic.waiting))
        self._longest_us = self.cost.predict(rows) * (1 + ADMIT * self.cost.usual_deviation)

    def failed(self, batch: Batch[Payload]) -> None:
        """Record that a batch failed. The cost model learns nothing from it."""
        self._end(batch)

    def _end(self, batch: Batch[Payload]) -> None:
        self._running.remove(batch)
        self._busy -= batch.executors

    def _free_at(self, now: int) -> list[float]:
        """Return when each executor is free, the first one first. A batch that should be through takes as long again as
        it is late."""
        found = [float(now)] * (self.executors - self._busy)
        for batch in self._running:
            found += [max(batch.busy_until, 2 * now - batch.busy_until)] * batch.executors
        found.sort()
        return found

    def _over(self, rows: int, waiting: int) -> int:
        """Return how many executors divide a batch of so many of the waiting rows: those that are idle, by its part."""
        idle = self.executors - self._busy
        return 1 if idle < 2 else max(1, min(idle * rows // waiting, rows))

    def _first_free(self, now: int) -> float:
        """Return the first of `_free_at`."""
        if self._busy < self.executors:
            return now
        return min([max(batch.busy_until, 2 * now - batch.busy_until) for batch in self._running])

    def _share(self, now: int, rows: int, per_row: float) -> float:
        """Return how many of these rows the executor that is free first should run, for all to be done soonest: each
        takes rows until all that take any end at once."""
        free = self._free_at(now)
        if not per_row:
            return rows / free.count(free[0])
        level, summed = 0.0, 0.0
        for count, at in enumerate(free):
            if count and at >= level:
                break
            summed += at
            level = (rows * per_row + summed) / (count + 1)
        return min(rows, (level - free[0]) / per_row)

    def _late_alone(self, now: int, job: Job[Payload]) -> float:
        """Return the lateness (µs) of a job that runs at once.

        It runs whatever is predicted: only so can a prediction that was wrong be corrected. If the last such one was
        late indeed, another has to wait for a while.
        """
        rows = ceil(job.rows / (self.executors - self._busy))
        if now + self._takes(rows) > job.deadline:
            late_us = now + self.cost.predict(rows) - job.deadline
            if late_us > 0 and now < self._no_trial_before:
                return late_us
            self._trial = job
        return 0

    def _late_behind(self, now: int, job: Job[Payload]) -> float:
        """Return by how much a job is too late behind those that run and wait, or makes another of its priority."""
        waiting, slack = self._waiting, job.deadline - now
        if self._trial is None and waiting.rows + job.rows <= self.cap_rows:
            # The usual case in few steps: even the longest batch would be done before the first deadline.
            free = self._first_free(now)
            first = min(job.deadline, waiting.first_deadline) if waiting.rows else job.deadline
            if free + self._longest_us <= first:
                return 0
        # A trial gives way to whoever can be in time, so it is not ahead of anybody.
        trial_rows = self._trial.rows if self._trial is not None and self._trial.order else 0
        ahead = waiting.rows - trial_rows
        if ahead + job.rows <= self.cap_rows and (
            self._finish(now, 0, ahead + job.rows, slack)
            <= (min(job.deadline, waiting.first_deadline) if ahead == waiting.rows > 0 else job.deadline)
        ):
            return 0  # all in one batch
        if waiting.is_last(job):
            if ahead and not trial_rows:
                ahead = max(ahead, self.cap_rows)  # the first cannot wait for it, so it would run in the next batch
            late_us = self._finish(now, ahead, job.rows, slack) - job.deadline
        else:
            ahead = waiting.rows_ahead(job)
            late_us = self._finish(now, ahead, job.rows, slack) - job.deadline
            if late_us <= 0:
                late_us = self._makes_late(now, job, ahead)
        if late_us > 0 and now + self.cost.predict(job.rows) <= job.deadline:
            self._traffic.missed += job.rows
        return late_us

    def _makes_late(self, now: int, job: Job[Payload], ahead: int) -> float:
        """Return the lateness (µs) that running `job` first causes a queued job of its priority.

        Of each batch behind it the first is looked at, whose deadline is the earliest.
        """
        before, batch = ahead + job.rows, -1
        for other in self._waiting.behind(job):
            if before // self.cap_rows > batch:
                batch = before // self.cap_rows
                slack = other.deadline - now
                late_us = self._finish(now, before, other.rows, slack) - other.deadline
                if late_us > 0 and self._finish(now, before - job.rows, other.rows, slack) <= other.deadline:
                    return late_us
            before += other.rows
        return 0

    def _finish(self, now: int, ahead: int, rows: int, slack: int) -> float:
        """Return when `rows` more behind `ahead` are done, all but surely.

        Their batch is taken to fill up behind them as the recent ones could have, but not beyond what arrives within
        `slack` less what such a batch takes: nobody is refused in favour of those who do not come.
        """
        free = self._first_free(now)
        cost, traffic = self.cost, self._traffic
        if self.executors > 1:  # those ahead and these are divided among them, these last
            each = cost.per_row_us + cost.fixed_us / self.cap_rows
            ahead = max(0, ceil(self._share(now, ahead + rows, each)) - rows)
        full, last = divmod(ahead + rows - 1, self.cap_rows)
        longest = cost.predict(last + 1)
        if traffic.waiting > last + 1:
            come = traffic.rate / (1 + traffic.rate * cost.per_row_us) * (slack - cost.fixed_us)
            most = cost.fixed_us + _PATIENCE * (slack - cost.fixed_us)
            longest = max(longest, min(cost.predict(ceil(min(traffic.waiting, come))), most))
        if not full:
            return free + longest * (1 + ADMIT * cost.usual_deviation)
        # Of one batch most are near what is usual; a sum of several has the deviation of the sum.
        each = cost.predict(self.cap_rows)
        off = sqrt((cost.usual_deviation * longest) ** 2 + full * (cost.deviation * each) ** 2)
        return free + full * each + longest + ADMIT * off

    def _takes(self, rows: float) -> float:
        """Return how long a batch may take to be called in time."""
        return self.cost.predict(rows) * (1 + RUN * self.cost.usual_deviation)

    def _add(self, priority: int, now: int, batch: Batch[Payload], most: int) -> bool:
        """Move into a batch of at most so many rows what runs of one priority, and return whether the next one may add
        to it."""
        queue, before = self._waiting.queues[priority], batch.rows
        entries, skip, room = queue.entries, 0, most
        if before:
            room = self._room(batch, now, most)
            if room <= 0:
                return False
        count, rows = (len(entries), queue.rows) if queue.rows <= room else self._prefix(priority, room, before == 0)
        if not count:
            return False
        waiting = before + self._waiting.rows

        def takes(rows: int) -> float:
            return self._takes((before + rows) / self._over(before + rows, waiting))

        if now + takes(rows) > entries[0][0]:
            skip, count = choose(
                [(deadline, job.rows) for deadline, _, job in entries],
                takes,
                now=now,
                max_rows=room,
            )
            if not count:
                return not before
            if before and sum(entry[2].rows for entry in entries[skip : skip + count]) > room:
                return False
        tight = entries[skip][0]
        batch.tight = tight if batch.tight is None else min(batch.tight, tight)
        whole = skip + count == len(entries)
        if skip:
            self._waiting.pop(priority, skip, batch.late)
        batch.rows += self._waiting.pop(priority, count, batch.jobs)
        return whole

    def _room(self, batch: Batch[Payload], now: int, most: int) -> int:
        """Return how many rows can join a batch within its deadlines."""
        room, cost = most - batch.rows, self.cost
        if cost.per_row_us:
            left = ((batch.tight or now) - now) / (1 + RUN * cost.usual_deviation) - cost.predict(batch.rows)
            room = min(room, int(left / cost.per_row_us))
        return room

    def _prefix(self, priority: int, room: int, alone: bool) -> tuple[int, int]:
        """Return how many of the first jobs fit into `room` rows, and their rows; if `alone`, one in any case."""
        rows, entries = 0, self._waiting.queues[priority].entries
        for place, (_, _, job) in enumerate(entries):
            if rows + job.rows > room and (rows or not alone):
                return place, rows
            rows += job.rows
        return len(entries), rows

    def _try(self, batch: Batch[Payload]) -> None:
        """Drop all queued jobs but the trial job: by the prediction, all are too late."""
        trial, waiting = self._trial, self._waiting
        self._trial = None
        if trial is not None and trial.order:
            waiting.remove(trial)
            batch.jobs.append(trial)
            batch.rows = trial.rows
            batch.trial = trial
        for priority in tuple(waiting.priorities):
            waiting.pop(priority, None, batch.late)
