"""Failed jobs that no later run has succeeded."""

from __future__ import annotations

from mainspring.jobs.model import Job, Status
from mainspring.jobs.plain import encoded
from mainspring.project import Project

_LOOKED_AT = 1_000  # of each status, the newest


def failing(project: Project) -> list[Job]:
    """Return the jobs that failed for good, newest first, and were not done since with the same argument.

    A nightly job that failed once and was done every night after it needs nobody.
    """
    failed = project.jobs.find(statuses={Status.FAILED}, limit=_LOOKED_AT)
    if not failed:
        return []
    done = project.jobs.find(statuses={Status.DONE}, handlers={job.handler for job in failed}, limit=_LOOKED_AT)
    newest: dict[tuple[str, str], int] = {}
    for job in done:
        newest[_same(job)] = max(job.ended_at or 0, newest.get(_same(job), 0))
    return [job for job in failed if newest.get(_same(job), -1) <= (job.ended_at or 0)]


def _same(job: Job) -> tuple[str, str]:
    return job.handler, encoded(job.argument or {}, "The argument")  # none is an empty one
