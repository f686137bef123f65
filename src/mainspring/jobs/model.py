"""Jobs, steps, leases and schedules. Times are UTC epoch microseconds of the machine's clock."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from mainspring.core.errors import Conflict, Invalid, MainspringError, NotFound
from mainspring.core.time import HOUR, MINUTE
from mainspring.jobs.plain import Plain
from mainspring.jobs.times import When

ATTEMPTS = 5  # maximum number of attempts at one step
HEAD_START = HOUR  # of one degree of priority
MOST_PRIORITY = 100
AHEAD = MINUTE  # maximum clock difference of machines; a tick further ahead comes from a wrong clock


class Status(StrEnum):
    """Status of a job."""

    WAITING = "waiting"  # for other jobs, for a place in its group, or for a signal
    QUEUED = "queued"  # waits for a runner, or for its next attempt
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # final: not retried without a request
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # a job that it needs was not done, or its condition is false


LONGEST_KEY = 256
ENDED = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED, Status.SKIPPED})


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to enqueue. Two jobs of one handler with the same `key` are one job.

    Args:
        handler: Name of what runs it.
        argument: A JSON value.
        attempts: Largest number of attempts at one step.
        not_before: Earliest start.
        schedule: Name of the schedule that queued it.
        id: Its id, from `new_id`, if the caller must know it beforehand: a job with this id is not added twice.
        parent: The job that it is a part of. Parts are listed, cancelled and forgotten with their parent.
        needs: Parts of the same parent that must be done first. If one ends otherwise, this job is skipped.
        after: Parts of the same parent that must have ended first, however they end.
        timeout_us: Longest time of an attempt (µs). The runner kills its process then, and the attempt has failed.
        group: Jobs of one group share a limit.
        group_limit: How many jobs of the group may be under way at once; this job waits until there are fewer.
        priority: Head start in hours, from -100 to 100: among due jobs, and among those that wait for a place in the
            group, the one comes first that would have been due first with its head start. So no job waits for ever.
        started_by: Name of who asked for it, as records name people; none for a schedule, and for a part.
        team: Named to pay for it; none leaves that to its definition and to who asked for it.

    Raises:
        Invalid: The key is empty, longer than 256 characters, or has some that cannot be printed.
    """

    handler: str
    argument: Plain = None
    key: str | None = None
    attempts: int = ATTEMPTS
    not_before: int = 0
    schedule: str | None = None
    id: str | None = None
    parent: str | None = None
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    timeout_us: int | None = None
    group: str | None = None
    group_limit: int | None = None
    priority: int = 0
    started_by: str | None = None
    team: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and not (1 <= len(self.key) <= LONGEST_KEY and self.key.isprintable()):
            raise Invalid(
                f"{self.key[:100]!r} is not the key of a job.", fix=f"use 1 to {LONGEST_KEY} printable characters."
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress reported by a job. Without `total` the amount of work is unknown."""

    done: float
    total: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as stored."""

    id: str
    handler: str
    argument: Plain
    key: str | None
    schedule: str | None
    status: Status
    enqueued_at: int
    due_at: int  # for a queued job: earliest start
    attempts: int  # at the current step
    most_attempts: int
    started_at: int | None = None  # start of the newest attempt
    ended_at: int | None = None
    holder: str | None = None  # the runner
    leased_until: int | None = None  # end of the lease, after which another runner may claim it
    cancelling: bool = False  # asked to stop at its next step
    progress: Progress | None = None
    result: Plain = None
    error: str | None = None  # error of the newest failed attempt
    parent: str | None = None
    waiting: int = 0  # number of jobs or signals that a waiting job still waits for
    timeout_us: int | None = None
    group: str | None = None
    group_limit: int | None = None
    admitted: bool = False  # whether it has a place in its group
    priority: int = 0
    started_by: str | None = None  # who asked for it
    team: str | None = None  # named to pay for it

    @property
    def rank(self) -> int:
        """Position among due jobs: the smallest is claimed first."""
        return self.due_at - self.priority * HEAD_START


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step with its result; it is never repeated."""

    name: str
    result: Plain
    ended_at: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job, held by the newest claim."""

    job: Job
    token: str


class Renewal(StrEnum):
    """Result of renewing a lease."""

    HELD = "held"
    CANCELLING = "cancelling"  # held, but the job must stop at its next step
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of an attempt.

    Args:
        again_at: Due time of the next attempt, `None` if there is none.
        counts: False for an interrupted attempt, which does not count.
        after: With the status `WAITING`, parts of the job: it continues when they have ended.
        signals: With the status `WAITING` and without `after`, the number of the job's steps that the attempt knew: it
            continues when there are more.
        cache: Key under which a result that is done is remembered.
        log: The end of what the attempts wrote, for machines that do not have the log; it replaces an earlier one.
        gives_way: With the status `QUEUED`, whether jobs that wait for its place in its group, or for that of the job
            that it is a part of, come first.
    """

    status: Status
    result: Plain = None
    error: str | None = None
    again_at: int | None = None
    counts: bool = True
    after: tuple[str, ...] = ()
    signals: int = 0
    cache: str | None = None
    log: str | None = None
    gives_way: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of one attempt."""

    lease: Lease
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Claim:
    """A runner's wish for due jobs.

    Args:
        holder: Name of the runner.
        handlers: Handlers that it has.
        lease_us: Time (µs) after which others may claim the jobs, unless their leases are renewed.
        limit: Largest number of jobs.
    """

    holder: str
    handlers: Collection[str]
    lease_us: int
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Remembered:
    """The remembered result of a job that was done."""

    result: Plain
    job: str
    at: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring job."""

    name: str
    handler: str
    when: When
    argument: Plain = None
    group: str | None = None  # of its jobs; see `NewJob`
    group_limit: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """A due time of a schedule."""

    schedule: Schedule
    at: int


class LeaseLost(Conflict):
    """Error: the lease is no longer valid, because another runner has the job or it has ended."""

    def __init__(self, job: str) -> None:
        super().__init__(f"This runner no longer holds the job {job}.")


class JobStopped(MainspringError):
    """An attempt that ends between steps: the job is cancelled, its runner stops, or its lease is lost.

    Args:
        again_after_us: With `why=None`, the time after which another attempt may begin.
    """

    def __init__(self, job: str, why: Renewal | None, *, again_after_us: int = 0) -> None:
        told = {Renewal.CANCELLING: "is cancelled", Renewal.LOST: "is run by another runner", None: "is interrupted"}
        super().__init__(f"The job {job} {told.get(why, 'is stopped')}.")
        self.why = why
        self.again_after_us = again_after_us


class JobHeld(JobStopped):
    """An attempt that is put off: the job waits in the queue, behind others of its group, and its progress says why.

    Args:
        note: One sentence.
    """

    def __init__(self, job: str, note: str, *, again_after_us: int) -> None:
        super().__init__(job, None, again_after_us=again_after_us)
        self.note = note


class StepFailed(MainspringError):
    """An attempt that failed where it ran: in a process of its own, or on another machine."""


class JobWaits(MainspringError):
    """An attempt that ends until parts of the job have ended, or until there are more than `signals` steps."""

    def __init__(self, job: str, after: tuple[str, ...], signals: int = 0) -> None:
        super().__init__(f"The job {job} waits.")
        self.after = after
        self.signals = signals


class JobSkipped(MainspringError):
    """An attempt that finds that the job need not run."""


def check_priority(given: object) -> None:
    """Raise if a value is not a priority.

    Raises:
        Invalid: It is not a whole number from -100 to 100.
    """
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > MOST_PRIORITY:
        raise Invalid(
            f"The priority is {given!r}.", fix=f"give a whole number from -{MOST_PRIORITY} to {MOST_PRIORITY}."
        )


def unknown(job: str) -> NotFound:
    """Return the error for an id that no job has."""
    return NotFound(f"There is no job {job[:140]!r}.", fix="`mainspring jobs list` lists them.")
