"""View models of the tables of jobs and schedules, and of one job, for the templates and the API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.ids import ID_PATTERN
from mainspring.jobs.model import ENDED, Job, Progress, Status, Step
from mainspring.jobs.plain import Plain
from mainspring.operations.jobs.queue import Planned, planned
from mainspring.operations.jobs.queue import job as find_job
from mainspring.project import Project

SHOWN = 25
_BRIEF = 120  # characters of an error in the table
_PLACE = re.compile(rf"(\d{{1,16}})-({ID_PATTERN})")

# Status -> the stylesheet's class.
STATES: Mapping[Status, str] = {
    Status.WAITING: "waits",
    Status.QUEUED: "waits",
    Status.RUNNING: "live",
    Status.DONE: "fresh",
    Status.FAILED: "late",
    Status.CANCELLED: "drifted",
    Status.SKIPPED: "drifted",
}
STEPS = 50
_LONGEST, _LONGEST_LINE = 20_000, 400  # characters of a value on the page; the API has all of it


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job. Instants are UTC epoch microseconds; `took_us` is the duration of its newest attempt, until now if it
    runs.
    """

    id: str
    handler: str
    status: Status
    schedule: str | None
    key: str | None
    asked_at: int
    due_at: int | None  # for a queued job that waits
    attempts: int  # at the step where it is
    most_attempts: int
    progress: Progress | None
    took_us: int | None
    cancelling: bool
    error: str | None
    priority: int
    started_by: str | None
    team: str | None

    @property
    def brief(self) -> str:
        """The beginning of its error, in one line."""
        line = next(iter((self.error or "").splitlines()), "")
        return line if len(line) <= _BRIEF else f"{line[: _BRIEF - 1]}…"


@dataclass(frozen=True, slots=True)
class JobList:
    """Some of the jobs, newest first. `counts` covers all jobs by status; `next` is where older ones begin."""

    rows: tuple[JobRow, ...]
    status: Status | None
    counts: Mapping[Status, int]
    before: str
    next: str
    schedules: tuple[Planned, ...]

    @property
    def all(self) -> int:
        return sum(self.counts.values())

    @property
    def of(self) -> int:
        """Number of jobs of the requested status."""
        return self.all if self.status is None else self.counts[self.status]


def job_list(project: Project, *, status: str = "", before: str = "", limit: int = SHOWN) -> JobList:
    """Return the newest jobs of a status, or those older than `before`.

    Raises:
        Invalid: There is no such status, or `before` is not a valid position.
    """
    chosen = _status(status)
    found = project.jobs.find(
        statuses=() if chosen is None else {chosen}, before=_place(before) if before else None, limit=limit + 1
    )
    rows, counts, now = found[:limit], project.jobs.counts(), project.wall.now()
    return JobList(
        rows=tuple(row_of(job, now) for job in rows),
        status=chosen,
        counts={each: counts.get(each, 0) for each in Status},
        before=before,
        next=f"{rows[-1].enqueued_at}-{rows[-1].id}" if len(found) > limit else "",
        schedules=tuple(planned(project)),
    )


def row_of(job: Job, now: int) -> JobRow:
    """Return the table's row of a job."""
    return JobRow(
        id=job.id,
        handler=job.handler,
        status=job.status,
        schedule=job.schedule,
        key=job.key,
        asked_at=job.enqueued_at,
        due_at=job.due_at if job.status is Status.QUEUED and job.due_at > now else None,
        attempts=job.attempts,
        most_attempts=job.most_attempts,
        progress=job.progress,
        took_us=took(job, now),
        cancelling=job.cancelling,
        error=job.error,
        priority=job.priority,
        started_by=job.started_by,
        team=job.team,
    )


def took(job: Job, now: int) -> int | None:
    """Return the duration (µs) of a job's newest attempt, until now if it runs; `None` if none or unknown.

    A job that was cancelled while it waited for its next attempt has no running time to report.
    """
    if job.started_at is None or job.status in (Status.WAITING, Status.QUEUED):
        return None
    if job.status is Status.CANCELLED and (job.attempts == 0 or job.error is not None):
        return None
    return max(0, (now if job.ended_at is None else job.ended_at) - job.started_at)  # two machines' clocks may differ


def _status(text: str) -> Status | None:
    if not text:
        return None
    try:
        return Status(text)
    except ValueError:
        raise Invalid("There is no such job status.", fix=f"use one of {[each.value for each in Status]}.") from None


def _place(text: str) -> tuple[int, str]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise Invalid(
            "This is not a position in the list of jobs.", fix="use `next` of the previous page, or leave it out."
        )
    return int(match[1]), match[2]


@dataclass(frozen=True, slots=True)
class JobPage:
    """A job, and its finished steps, oldest first."""

    job: Job
    row: JobRow
    steps: tuple[Step, ...]

    @property
    def may_be_cancelled(self) -> bool:
        return self.job.status not in ENDED and not self.job.cancelling

    @property
    def may_be_retried(self) -> bool:
        waits = self.job.status is Status.QUEUED and self.row.due_at is not None
        return waits or self.job.status in (Status.FAILED, Status.CANCELLED, Status.SKIPPED)


def job_page(project: Project, id: str) -> JobPage:
    """Return a job with its steps.

    Raises:
        NotFound: There is no such job.
    """
    job = find_job(project, id)
    return JobPage(job, row_of(job, project.wall.now()), tuple(project.jobs.steps(job.id)))


def written(value: Plain) -> str:
    """Return a value as JSON over several lines, truncated if long."""
    return _cut(json.dumps(value, ensure_ascii=False, indent=2), _LONGEST)


def line(value: Plain) -> str:
    """Return a value as JSON in one line, truncated if long."""
    return _cut(json.dumps(value, ensure_ascii=False), _LONGEST_LINE)


def _cut(text: str, most: int) -> str:
    # A text from JSON may contain half of a surrogate pair, which a page cannot encode.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else f"{text[:most]} … {len(text) - most:,} more characters"
