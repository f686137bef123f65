"""Runner of jobs: claims a job, calls its handler, renews its lease meanwhile, and stores the outcome."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar, cast

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import MINUTE, SECOND, Clock
from mainspring.jobs.model import (
    ENDED,
    Claim,
    Ended,
    Job,
    JobHeld,
    JobSkipped,
    JobStopped,
    JobWaits,
    Lease,
    LeaseLost,
    Outcome,
    Progress,
    Renewal,
    Schedule,
    Status,
    Step,
    Tick,
)
from mainspring.jobs.plain import Plain, decoded, encoded
from mainspring.jobs.ports import JobStore

LEASE = 15 * SECOND  # time after which a silent runner counts as dead
_INTERRUPTED = Outcome(Status.QUEUED, counts=False)
log = logging.getLogger("mainspring")
T = TypeVar("T")
Asked = Callable[[], Renewal | None]  # the newest request; `None` if the runner stops


class JobRun:
    """One attempt at a job. Steps finished in an earlier attempt are not repeated: their recorded results are
    returned.
    """

    def __init__(self, lease: Lease, store: JobStore, clock: Clock, asked: Asked) -> None:
        self._lease = lease
        self._store = store
        self._clock = clock
        self._asked = asked
        self._finished = {step.name: step.result for step in store.steps(lease.job.id)}
        self._begun: Counter[str] = Counter()
        self.cache: str | None = None
        self._log: Callable[[], str] | None = None

    @property
    def id(self) -> str:
        """The job's id, the same in every attempt."""
        return self._lease.job.id

    @property
    def argument(self) -> Plain:
        """The argument with which the job was queued."""
        return self._lease.job.argument

    @property
    def started_by(self) -> str:
        """Name of who asked for the job; empty where nobody did."""
        return self._lease.job.started_by or ""

    @property
    def team(self) -> str:
        """The team that was named to pay for the job; empty where none was."""
        return self._lease.job.team or ""

    def step(self, name: str, do: Callable[[], T]) -> T:
        """Run `do` once across attempts: return its result, or the recorded result of an earlier attempt.

        A crash between the end of `do` and its recording repeats it, so `do` must be idempotent. The result must be
        representable in JSON, and is returned as JSON restores it, also the first time: a tuple becomes a list. The
        n-th step with a name is matched to the n-th one in every attempt.

        Raises:
            JobStopped: The attempt stops here; do not catch it.
            Invalid: JSON cannot represent the result of `do`.
        """
        self._begun[name] += 1
        count = self._begun[name]
        known = name if count == 1 else f"{name} #{count}"
        if known in self._finished:
            return cast("T", self._finished[known])
        self.check()
        return cast("T", self.record(known, do()))

    @property
    def priority(self) -> int:
        """The job's priority, which its parts share."""
        return self._lease.job.priority

    @property
    def finished(self) -> Mapping[str, Plain]:
        """Results of finished steps, by name."""
        return self._finished

    @property
    def timeout_us(self) -> int | None:
        """Longest time of this attempt (µs)."""
        return self._lease.job.timeout_us

    def asked(self) -> Renewal | None:
        """Return whether the job may go on; `None` if its runner stops."""
        return self._asked()

    def record(self, name: str, result: Plain) -> Plain:
        """Record a finished step, and return its result as JSON restores it.

        Raises:
            Invalid: JSON cannot represent the result.
        """
        result = decoded(encoded(result, f"The result of the step {name}"))
        self._store.record(self._lease, Step(name, result, self._clock.now()))
        self._finished[name] = result
        return result

    def remember(self, key: str) -> None:
        """Let the job's result be remembered under a key, if it is done."""
        self.cache = key

    def keep_log(self, read: Callable[[], str]) -> None:
        """Let the end of the job's log be stored with the attempt's outcome, for other machines."""
        self._log = read

    def log(self) -> str | None:
        """Return the end of the log that is to be stored, `None` for none."""
        return None if self._log is None else self._log()

    def wait_for(self, ids: Iterable[str]) -> None:
        """End the attempt until these parts of the job have ended; return if they have.

        Raises:
            JobWaits: They have not; do not catch it.
        """
        ids = tuple(ids)
        if any(job is not None and job.status not in ENDED for job in self._store.get(ids)):
            raise JobWaits(self.id, ids)

    def wait_for_signal(self) -> NoReturn:
        """End the attempt until the job has a further step.

        Raises:
            JobWaits: Always; do not catch it.
        """
        raise JobWaits(self.id, (), len(self._finished))

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report the job's progress."""
        self._store.report(self._lease, Progress(done, total, note))

    def check(self) -> None:
        """Raise if the job must stop. Long steps should call this regularly.

        Raises:
            JobStopped: The job is cancelled, another runner has it, or its runner stops.
        """
        asked = self._asked()
        if asked is not Renewal.HELD:
            raise JobStopped(self.id, asked)


class Heart:
    """Renews a lease three times per lease period. Its thread exists only while the job runs."""

    def __init__(self, store: JobStore, lease: Lease, clock: Clock, lease_us: int) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._lease_us = lease_us
        self._until = clock.now() + lease_us
        self._said = Renewal.HELD
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"job-{lease.job.id}", daemon=True)

    @property
    def said(self) -> Renewal:
        """Result of the last renewal. A lease that could not be renewed in time counts as lost."""
        return Renewal.LOST if self._clock.now() >= self._until else self._said

    def _beat(self) -> None:
        while not self._ended.wait(self._lease_us / 3e6):
            now = self._clock.now()
            try:
                [self._said] = self._store.renew([self._lease], now, self._lease_us)
            except MainspringError as error:  # the store may recover before the lease expires
                log.warning("job %s: its lease was not renewed: %s", self._lease.job.id, error)
            else:
                self._until = now + self._lease_us

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


Handler = Callable[[JobRun], Plain]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: the delay after the n-th failed attempt, doubled each time, up to a maximum."""

    first_us: int = 2 * SECOND
    longest_us: int = 10 * MINUTE

    def wait(self, attempts: int) -> int:
        return int(min(self.longest_us, self.first_us * 2 ** min(attempts - 1, 40)))


class Runner:
    """Runs jobs. Several runners, in threads, processes or machines, can share a store."""

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
        """Create a runner.

        Args:
            clock: The machine's clock.
            holder: Name of the runner, unique among live runners.
            stopping: Returns whether to stop: a running job then stops at its next step, and is queued again.
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
        """Queue the jobs of due schedules. Calls the store only for ticks that are new to this runner."""
        now = self._clock.now()
        ticks = [Tick(schedule, schedule.when.last(now)) for schedule in schedules]
        new = [tick for tick in ticks if self._ticks.get(tick.schedule.name) != tick.at]
        queued = self._store.tick(new, now) if new else []
        self._ticks |= {tick.schedule.name: tick.at for tick in new}
        return queued

    def run_one(self) -> Job | None:
        """Run the longest overdue job; return its new state, `None` if none is due."""
        leases = self.claim(1)
        return self.run(leases[0]) if leases else None

    def claim(self, limit: int) -> list[Lease]:
        """Claim due jobs, the longest overdue first. Each must be run soon: until then its lease is not renewed."""
        return self._store.claim(self._holder, list(self._handlers), self._clock.now(), self._lease_us, limit)

    def run(self, lease: Lease) -> Job:
        """Run a claimed job and return its new state. Threads may run jobs of one runner at once."""
        ended = self._end(lease, self.attempt(lease))
        _tell(ended)
        return ended

    def attempt(self, lease: Lease) -> Outcome:
        """Run a claimed job, and return the outcome, which is still to be stored at once."""
        with Heart(self._store, lease, self._clock, self._lease_us) as heart:

            def asked() -> Renewal | None:
                return None if self._stopping() and heart.said is Renewal.HELD else heart.said

            try:
                run = JobRun(lease, self._store, self._clock, asked)
                return replace(self._attempt(lease, run), log=run.log())
            except BaseException:  # the process is being stopped: let another runner continue at once
                self._end(lease, _INTERRUPTED)
                raise

    def end_and_claim(self, ended: Sequence[Ended], limit: int) -> list[Lease]:
        """Store outcomes and claim at most `limit` due jobs, in one transaction, and return their leases."""
        claim = Claim(self._holder, list(self._handlers), self._lease_us, limit) if limit else None
        found, leases = self._store.end_and_claim(ended, claim, self._clock.now())
        for each, job in zip(ended, found, strict=True):
            if isinstance(job, Job):
                _tell(job)
            elif isinstance(job, LeaseLost):
                log.warning("%s", job)
            else:  # the result is not JSON
                _tell(self._end(each.lease, Outcome(Status.FAILED, error=str(job))))
        return leases

    def _end(self, lease: Lease, outcome: Outcome) -> Job:
        try:
            return self._store.end(lease, outcome, self._clock.now())
        except LeaseLost as error:
            log.warning("%s", error)
            return lease.job
        except Invalid as error:  # the result is not JSON
            return self._store.end(lease, Outcome(Status.FAILED, error=str(error)), self._clock.now())

    def _attempt(self, lease: Lease, run: JobRun) -> Outcome:
        """Run one attempt and return its outcome. An error of the job itself is not retried."""
        try:
            result = self._handlers[lease.job.handler](run)
            return Outcome(Status.DONE, result=result, cache=run.cache)
        except JobWaits as waits:
            return Outcome(Status.WAITING, after=waits.after, signals=waits.signals)
        except JobSkipped as skipped:
            return Outcome(Status.SKIPPED, error=skipped.what)
        except JobHeld as held:
            with suppress(LeaseLost):  # the end of the attempt says so
                run.progress(0, note=held.note)
            again_at = self._clock.now() + held.again_after_us
            return replace(_INTERRUPTED, error=lease.job.error, again_at=again_at, gives_way=True)
        except JobStopped as stopped:
            if stopped.why is Renewal.CANCELLING:
                return Outcome(Status.CANCELLED)
            later = self._clock.now() + stopped.again_after_us if stopped.again_after_us else None
            return replace(_INTERRUPTED, error=lease.job.error, again_at=later)
        except (Invalid, LeaseLost) as error:
            return Outcome(Status.FAILED, error=str(error))
        except MainspringError as error:
            return self._again(lease, str(error))
        except Exception as error:
            log.exception("job %s (%s) failed", lease.job.id, lease.job.handler)
            return self._again(lease, f"{type(error).__name__}: {error}")

    def _again(self, lease: Lease, error: str) -> Outcome:
        """Return the outcome of a retryable failure; the store knows the number of attempts."""
        [job] = self._store.get([lease.job.id])
        if job is None or job.attempts >= job.most_attempts:
            return Outcome(Status.FAILED, error=error)
        return Outcome(Status.QUEUED, error=error, again_at=self._clock.now() + self._backoff.wait(job.attempts))


def _tell(job: Job) -> None:
    told = f"job {job.id} ({job.handler})"
    if job.status is Status.FAILED:
        log.error("%s failed permanently: %s", told, job.error)
    elif job.status is Status.QUEUED and job.error is not None:
        log.warning("%s failed, attempt %d of %d: %s", told, job.attempts, job.most_attempts, job.error)
    else:
        log.info("%s: %s", told, job.status)
