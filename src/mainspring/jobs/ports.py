"""Port of the job store. Every method is one transaction: after a crash it has happened completely or not at all.

`now` is the caller's machine's clock, UTC epoch microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.jobs.model import Job, Lease, NewJob, Outcome, Progress, Renewal, Status, Step, Tick


class JobStore(Protocol):
    """Jobs, their finished steps, and the last tick of each schedule. Safe across threads, processes and machines."""

    def enqueue(self, jobs: Sequence[NewJob], now: int) -> list[Job]:
        """Add jobs and return them. If a job with the same handler and key exists, that job is returned unchanged.

        Raises:
            Invalid: JSON cannot represent an argument. No job is added.
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
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return at most `limit` jobs, newest first, with these statuses and handlers; an empty filter means all.

        `before` is the `enqueued_at` and `id` of the previous page's last job, which need not exist any more.
        """
        ...

    def counts(self) -> dict[Status, int]:
        """Return status -> number of jobs, for statuses that occur."""
        ...

    def steps(self, job: str) -> list[Step]:
        """Return a job's finished steps, oldest first."""
        ...

    def cancel(self, ids: Sequence[str], now: int) -> list[Job]:
        """Cancel queued jobs, ask running ones to stop, leave ended ones unchanged; return the resulting jobs.

        Raises:
            NotFound: A job does not exist. No job is cancelled.
        """
        ...

    def retry(self, ids: Sequence[str], now: int) -> list[Job]:
        """Queue failed and cancelled jobs again with all their attempts; finished steps stay finished.

        A queued job that waits for its next attempt becomes due now. Return the resulting jobs.

        Raises:
            NotFound: A job does not exist. No job is queued.
            Conflict: A job is running or done. No job is queued.
        """
        ...

    def claim(self, holder: str, handlers: Collection[str], now: int, lease_us: int, limit: int = 1) -> list[Lease]:
        """Lease jobs of these handlers to run: queued ones that are due, and running ones with an expired lease.

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

        A job with the outcome `QUEUED` that was asked to stop meanwhile is cancelled.

        Raises:
            Invalid: JSON cannot represent the result.
            LeaseLost: Another runner has the job, or it has ended. Nothing is stored.
        """
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
        """Remove jobs with these statuses that ended before a time; return their number. Their keys become free."""
        ...
