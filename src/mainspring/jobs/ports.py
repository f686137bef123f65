"""Where jobs are kept. Every method is one transaction: after a kill it has happened or it has not.

`now` is the caller's machine's clock, UTC epoch microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.jobs.model import Job, Lease, NewJob, Outcome, Progress, Renewal, Status, Step, Tick


class JobStore(Protocol):
    """Jobs, their finished steps, and how far each schedule has come. Safe between threads, processes and machines."""

    def enqueue(self, jobs: Sequence[NewJob], now: int) -> list[Job]:
        """Add jobs, and return them. One whose handler and key are there already is the job that is there, as it is.

        Raises:
            Invalid: An argument is nothing that JSON can say. None is added.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Job | None]:
        """Return jobs in the order asked, `None` for one that is not there."""
        ...

    def find(
        self,
        *,
        statuses: Collection[Status] = (),
        handlers: Collection[str] = (),
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return at most `limit` jobs, newest first, of these statuses and handlers; of all where none is named.

        `before` is the `enqueued_at` and `id` of the last job of the page before: what is older follows, whether that
        one is still there or not.
        """
        ...

    def counts(self) -> dict[Status, int]:
        """Return how many jobs there are of each status that there is."""
        ...

    def steps(self, job: str) -> list[Step]:
        """Return a job's finished steps, oldest first."""
        ...

    def cancel(self, ids: Sequence[str], now: int) -> list[Job]:
        """End queued jobs, ask running ones to end, leave ended ones as they are. Return them as they are then.

        Raises:
            NotFound: There is no such job. None is cancelled.
        """
        ...

    def retry(self, ids: Sequence[str], now: int) -> list[Job]:
        """Queue failed and cancelled jobs again, with all their attempts; what they finished stays finished.

        A queued one that waits for its next attempt is due now. Return them as they are then.

        Raises:
            NotFound: There is no such job. None is queued.
            Conflict: One runs, or is done. None is queued.
        """
        ...

    def claim(self, holder: str, handlers: Collection[str], now: int, lease_us: int, limit: int = 1) -> list[Lease]:
        """Take jobs of these handlers to run: queued ones that are due, and running ones whose lease is over.

        What is due longest comes first. Of many who claim at once each job has one. The lease is over at
        `now + lease_us`. A job whose attempts are used up, since its runners died, is not given but failed.
        """
        ...

    def take_over(self, holder: str, now: int) -> int:
        """Let every lease of `holder` be over: of its predecessor, which is dead. Return how many there were."""
        ...

    def renew(self, leases: Sequence[Lease], now: int, lease_us: int) -> list[Renewal]:
        """Let leases be over at `now + lease_us`; one that somebody else has taken, or that has ended, is lost."""
        ...

    def record(self, lease: Lease, step: Step) -> None:
        """Keep a finished step, and count attempts anew: this is the first at the next step.

        Raises:
            Invalid: The result is nothing that JSON can say.
            Conflict: A step of this name is finished.
            LeaseLost: Somebody else has the job. Nothing is kept.
        """
        ...

    def report(self, lease: Lease, progress: Progress) -> None:
        """Keep how far a job is.

        Raises:
            LeaseLost: Somebody else has the job. Nothing is kept.
        """
        ...

    def end(self, lease: Lease, outcome: Outcome, now: int) -> Job:
        """Keep how an attempt ended, give the lease back, and return the job.

        A job that goes on (`QUEUED`) and was asked to end meanwhile is cancelled.

        Raises:
            Invalid: The result is nothing that JSON can say.
            LeaseLost: Somebody else has the job. Nothing is kept.
        """
        ...

    def tick(self, ticks: Sequence[Tick], now: int) -> list[Job]:
        """Queue the job of each tick that is later than its schedule's last; return those that were queued.

        A last tick that is over `AHEAD` later than `now` is of a clock that was wrong: the schedule begins anew, as one
        that is seen for the first time.

        Each tick is queued once, however many ask. A schedule that is seen for the first time begins after its tick.
        """
        ...

    def last_ticks(self) -> dict[str, int]:
        """Return the last tick of every schedule that was ever seen."""
        ...

    def forget(self, statuses: Collection[Status], ended_before: int) -> int:
        """Remove jobs of these statuses that ended before an instant; return how many. Their keys are free again."""
        ...
