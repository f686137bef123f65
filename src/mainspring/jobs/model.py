"""A job, its steps, and a schedule. Instants are UTC epoch microseconds of the machine's clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mainspring.core.errors import Conflict, MainspringError, NotFound
from mainspring.core.time import MINUTE
from mainspring.jobs.plain import Plain
from mainspring.jobs.times import When

ATTEMPTS = 5  # at one step, before a job has failed for good
AHEAD = MINUTE  # how much the clocks of machines may differ: a tick that is later than that is of a wrong one


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # waits for its turn, or for the next attempt
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # for good: nobody tries again before somebody says so
    CANCELLED = "cancelled"


ENDED = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class NewJob:
    """Something to do: which handler, with what. Two of one handler with the same `key` are one job."""

    handler: str
    argument: Plain = None
    key: str | None = None
    attempts: int = ATTEMPTS
    not_before: int = 0
    schedule: str | None = None  # which one asks for it


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job says that it is. Without a `total` nobody knows how much there is to do."""

    done: float
    total: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its store has it."""

    id: str
    handler: str
    argument: Plain
    key: str | None
    schedule: str | None
    status: Status
    enqueued_at: int
    due_at: int  # of a queued one: not before this
    attempts: int  # at the step where it is
    most_attempts: int
    started_at: int | None = None  # of its newest attempt
    ended_at: int | None = None
    holder: str | None = None  # who runs it
    leased_until: int | None = None  # its runner is given up then
    cancelling: bool = False  # it is asked to end at its next step
    progress: Progress | None = None
    result: Plain = None
    error: str | None = None  # of its newest attempt that failed


@dataclass(frozen=True, slots=True)
class Step:
    """A step that is finished and is never done again, with what it gave."""

    name: str
    result: Plain
    ended_at: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job, of whoever claimed it last."""

    job: Job
    token: str


class Renewal(StrEnum):
    """What comes of a renewed lease."""

    HELD = "held"
    CANCELLING = "cancelling"  # held, and the job is to end at its next step
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `again_at` is when the next one is due, `None` if there is none."""

    status: Status
    result: Plain = None
    error: str | None = None
    again_at: int | None = None
    counts: bool = True  # whether it was an attempt at all: one that was told to stop was not


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that is due again and again."""

    name: str
    handler: str
    when: When
    argument: Plain = None


@dataclass(frozen=True, slots=True)
class Tick:
    """An instant at which a schedule is due."""

    schedule: Schedule
    at: int


class LeaseLost(Conflict):
    """Somebody else runs the job by now, or nobody may."""

    def __init__(self, job: str) -> None:
        super().__init__(f"The job {job} is not held by this runner any more.")


class JobStopped(MainspringError):
    """A job's attempt ends at a step's edge: it is cancelled, its runner stops, or its lease is lost."""

    def __init__(self, job: str, why: Renewal | None) -> None:
        told = {Renewal.CANCELLING: "is cancelled", Renewal.LOST: "is run by somebody else", None: "is interrupted"}
        super().__init__(f"The job {job} {told.get(why, 'is stopped')}.")
        self.why = why


def unknown(job: str) -> NotFound:
    """Return the error for an id that no job has."""
    return NotFound(f"There is no job {job[:140]!r}.", fix="`mainspring jobs list` lists them.")
