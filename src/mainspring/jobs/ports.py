"""Port of the job store. Every method is one transaction: after a crash it has happened completely or not at all.

`now` is the caller's machine's clock, UTC epoch microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.core.errors import MainspringError
from mainspring.jobs.model import (
    Claim,
    Ended,
    Job,
    Lease,
    NewJob,
    Outcome,
    Progress,
    Remembered,
    Renewal,
    Status,
    Step,
    Tick,
)


class JobStore(Protocol):
    """Jobs, their finished steps, and the last tick of each schedule. Safe across threads, processes and machines."""

    def enqueue(self, jobs: Sequence[NewJob], now: int) -> list[Job]:
        """Add jobs and return them. If a job with the same id, or handler and key, exists, it is returned unchanged.

        A part of a parent that has ended is cancelled from its beginning.

        Raises:
            Invalid: JSON cannot represent an argument; or a job needs one that is neither stored nor earlier in `jobs`,
                or that is a part of another parent. No job is added.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Job | None]:
        """Return jobs in the given order, `None` for unknown ids."""
        ...

    def find(
        self,
        *,
        statuses: Collection[Status] = (),
        handlers: Collection[str] = (),
        parent: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return at most `limit` jobs, newest first, with these statuses and handlers; an empty filter means all.

        Without `parent` the jobs have none; with it they are its parts, oldest first.
        `before` is the `enqueued_at` and `id` of the previous page's last job, which need not exist any more.
        """
        ...

    def counts(self) -> dict[Status, int]:
        """Return status -> number of jobs without a parent, for statuses that occur."""
        ...

    def steps(self, job: str) -> list[Step]:
        """Return a job's finished steps, oldest first."""
        ...

    def cancel(self, ids: Sequence[str], now: int) -> list[Job]:
        """Cancel waiting and queued jobs, ask running ones to stop, leave ended ones; return the resulting jobs.

        Parts of the jobs are cancelled with them; jobs that need a cancelled one are skipped.

        Raises:
            NotFound: A job does not exist. No job is cancelled.
        """
        ...

    def retry(self, ids: Sequence[str], now: int) -> list[Job]:
        """Queue failed, cancelled and skipped jobs again with all their attempts; finished steps stay finished.

        A job that needs others waits for them again; it is skipped again if one is not retried as well. A queued job
        that waits for its next attempt becomes due now. Return the resulting jobs.

        Raises:
            NotFound: A job does not exist. No job is queued.
            Conflict: A job is running or done. No job is queued.
        """
        ...

    def claim(self, holder: str, handlers: Collection[str], now: int, lease_us: int, limit: int = 1) -> list[Lease]:
        """Lease jobs of these handlers to run: queued ones that are due, and running ones with an expired lease, in the
        order of `Job.rank`.

        The longest overdue come first. Concurrent claims never return the same job. The lease expires at `now +
        lease_us`. A job whose runners died in all its attempts is not returned but marked as failed; one that was asked
        to stop is cancelled.
        """
        ...

    def take_over(self, holder: str, now: int) -> int:
        """Expire every lease of `holder`, left by a dead predecessor; return their number."""
        ...

    def renew(self, leases: Sequence[Lease], now: int, lease_us: int) -> list[Renewal]:
        """Extend leases to `now + lease_us`; a lease is lost if another runner has the job, or it has ended."""
        ...

    def record(self, lease: Lease, step: Step) -> None:
        """Store a finished step, and restart the count of attempts for the next step.

        Raises:
            Invalid: JSON cannot represent the result.
            Conflict: A step of this name is finished.
            LeaseLost: Another runner has the job, or it has ended. Nothing is stored.
        """
        ...

    def report(self, lease: Lease, progress: Progress) -> None:
        """Store the progress of a job.

        Raises:
            LeaseLost: Another runner has the job, or it has ended. Nothing is stored.
        """
        ...

    def end(self, lease: Lease, outcome: Outcome, now: int) -> Job:
        """Store the outcome of an attempt, release the lease, and return the job.

        A job with the outcome `QUEUED` or `WAITING` that was asked to stop meanwhile is cancelled. In the same
        transaction jobs that waited for this one are queued or skipped, and the next of its group gets its place.
        With `Outcome.gives_way` the next gets it although the job has not ended; the job waits for a place again. So
        does, once no other part of it runs or is due, the job that it is a part of, and all its parts wait for that.

        Raises:
            Invalid: JSON cannot represent the result.
            LeaseLost: Another runner has the job, or it has ended. Nothing is stored.
        """
        ...

    def end_and_claim(
        self, ended: Sequence[Ended], claim: Claim | None, now: int
    ) -> tuple[list[Job | MainspringError], list[Lease]]:
        """Store the outcomes of attempts and lease due jobs, all in one transaction.

        Return for each attempt its job, or the error with which `end` would refuse it, and the leases. Jobs that have
        just become due because of these ends are among those that are claimed; those that must be given up are left
        to `claim`.
        """
        ...

    def signal(self, job: str, step: Step) -> Job:
        """Store a step on behalf of a waiting job, which then continues.

        Raises:
            NotFound: There is no such job.
            Conflict: The job has not begun to wait, has ended, or has a step of this name.
        """
        ...

    def remembered(self, key: str) -> Remembered | None:
        """Return the result that was remembered under a key last."""
        ...

    def logs(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return the logs that outcomes brought, by job; jobs without one are left out."""
        ...

    def tick(self, ticks: Sequence[Tick], now: int) -> list[Job]:
        """Queue the job of each tick that is later than its schedule's last tick; return the queued jobs.

        Each tick is queued once, across concurrent calls. A new schedule starts after its first tick. A last tick more
        than `AHEAD` after `now` comes from a wrong clock: the schedule restarts as if it were new.
        """
        ...

    def last_ticks(self) -> dict[str, int]:
        """Return schedule name -> last tick, for every schedule ever seen."""
        ...

    def forget(self, statuses: Collection[Status], ended_before: int) -> int:
        """Remove jobs with these statuses that ended before a time; return their number. Their keys become free.

        Parts are removed with their parent, never before it. Remembered results from before that time are removed with
        the status `DONE`.
        """
        ...
