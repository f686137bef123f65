"""One job with all that is kept of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mainspring.console.jobs.listing import JobRow, row_of
from mainspring.jobs.model import ENDED, Job, Status, Step
from mainspring.jobs.plain import Plain
from mainspring.operations.jobs.queue import job as find_job
from mainspring.project import Project

STEPS = 50
_LONGEST, _LONGEST_LINE = 20_000, 400  # characters of a value on the page; the API has the whole


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
        return waits or self.job.status in (Status.FAILED, Status.CANCELLED)


def job_page(project: Project, id: str) -> JobPage:
    """Return a job with its steps.

    Raises:
        NotFound: There is none.
    """
    job = find_job(project, id)
    return JobPage(job, row_of(job, project.wall.now()), tuple(project.jobs.steps(job.id)))


def written(value: Plain) -> str:
    """Return a value as JSON over several lines, cut where it is long."""
    return _cut(json.dumps(value, ensure_ascii=False, indent=2), _LONGEST)


def line(value: Plain) -> str:
    """Return a value as JSON in one line, cut where it is long."""
    return _cut(json.dumps(value, ensure_ascii=False), _LONGEST_LINE)


def _cut(text: str, most: int) -> str:
    # A text out of JSON may have half of a surrogate pair, which no page can.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else f"{text[:most]} … {len(text) - most:,} more characters"
