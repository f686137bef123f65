"""Running jobs: claim one, hand it to its handler, keep how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import MINUTE, SECOND, Clock
from mainspring.jobs.heart import Heart
from mainspring.jobs.model import Job, JobStopped, Lease, LeaseLost, Outcome, Renewal, Schedule, Status, Tick
from mainspring.jobs.plain import Plain
from mainspring.jobs.ports import JobStore
from mainspring.jobs.running import JobRun

log = logging.getLogger("mainspring")
Handler = Callable[[JobRun], Plain]
LEASE = 15 * SECOND  # how long another waits that cannot know whether a runner is dead
_INTERRUPTED = Outcome(Status.QUEUED, counts=False)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long after the n-th failed attempt the next one is due: twice as long each time, up to the longest."""

    first_us: int = 2 * SECOND
    longest_us: int = 10 * MINUTE

    def wait(self, attempts: int) -> int:
        return int(min(self.longest_us, self.first_us * 2 ** min(attempts - 1, 40)))


class Runner:
    """Runs jobs one after the other. Several, in threads, processes or machines, share a store."""

    def __init__(
        self,
        store: JobStore,
        handlers: Mapping[str, Handler],
        clock: Clock,
        *,
        holder: str,
        stopping: Callable[[], bool] = lambda: False,
        backoff: Backoff = Backoff(),
        lease_us: int = LEASE,
    ) -> None:
        """Make a runner.

        Args:
            clock: The machine's.
            holder: Who it is. No two that live have one name.
            stopping: Whether it is to end: a running job then ends at its next step, and is queued again.
        """
        self._store = store
        self._handlers = handlers
        self._clock = clock
        self._holder = holder
        self._stopping = stopping
        self._backoff = backoff
        self._lease_us = lease_us
        self._ticks: dict[str, int] = {}

    def tick(self, schedules: Iterable[Schedule]) -> list[Job]:
        """Queue the jobs of schedules that are due. Asks the store only where a tick is new to this runner."""
        now = self._clock.now()
        ticks = [Tick(schedule, schedule.when.last(now)) for schedule in schedules]
        new = [tick for tick in ticks if self._ticks.get(tick.schedule.name) != tick.at]
        queued = self._store.tick(new, now) if new else []
        self._ticks |= {tick.schedule.name: tick.at for tick in new}
        return queued

    def run_one(self) -> Job | None:
        """Run the job that is due longest; return it as it then is, `None` if none is due."""
        leases = self._store.claim(self._holder, list(self._handlers), self._clock.now(), self._lease_us)
        return self._run(leases[0]) if leases else None

    def _run(self, lease: Lease) -> Job:
        with Heart(self._store, lease, self._clock, self._lease_us) as heart:

            def asked() -> Renewal | None:
                return None if self._stopping() and heart.said is Renewal.HELD else heart.said

            try:
                outcome = self._attempt(lease, JobRun(lease, self._store, self._clock, asked))
            except BaseException:  # somebody ends this process: another may go on at once
                self._end(lease, _INTERRUPTED)
                raise
        ended = self._end(lease, outcome)
        _tell(ended)
        return ended

    def _end(self, lease: Lease, outcome: Outcome) -> Job:
        try:
            return self._store.end(lease, outcome, self._clock.now())
        except LeaseLost as error:
            log.warning("%s", error)
            return lease.job
        except Invalid as error:  # the result
            return self._store.end(lease, Outcome(Status.FAILED, error=str(error)), self._clock.now())

    def _attempt(self, lease: Lease, run: JobRun) -> Outcome:
        """Return how an attempt ends. What is wrong with the job itself is not tried again."""
        try:
            return Outcome(Status.DONE, result=self._handlers[lease.job.handler](run))
        except JobStopped as stopped:
            if stopped.why is Renewal.CANCELLING:
                return Outcome(Status.CANCELLED)
            return replace(_INTERRUPTED, error=lease.job.error)
        except (Invalid, LeaseLost) as error:
            return Outcome(Status.FAILED, error=str(error))
        except MainspringError as error:
            return self._again(lease, str(error))
        except Exception as error:
            log.exception("job %s (%s) failed", lease.job.id, lease.job.handler)
            return self._again(lease, f"{type(error).__name__}: {error}")

    def _again(self, lease: Lease, error: str) -> Outcome:
        """Return what becomes of a job that may do better next time: the store knows which attempt this was."""
        [job] = self._store.get([lease.job.id])
        if job is None or job.attempts >= job.most_attempts:
            return Outcome(Status.FAILED, error=error)
        return Outcome(Status.QUEUED, error=error, again_at=self._clock.now() + self._backoff.wait(job.attempts))


def _tell(job: Job) -> None:
    told = f"job {job.id} ({job.handler})"
    if job.status is Status.FAILED:
        log.error("%s failed for good: %s", told, job.error)
    elif job.status is Status.QUEUED and job.error is not None:
        log.warning("%s failed, attempt %d of %d: %s", told, job.attempts, job.most_attempts, job.error)
    else:
        log.info("%s: %s", told, job.status)
