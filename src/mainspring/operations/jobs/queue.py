"""API of jobs: queue a job, watch it, list the schedules, and name the jobs that keep failing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from mainspring.core.ids import new_id
from mainspring.cost.paying import NOBODY, named_here, paid_by
from mainspring.jobs.model import ENDED, Job, NewJob, Status, unknown
from mainspring.jobs.plain import Plain, encoded
from mainspring.jobs.runner import Runner
from mainspring.operations.auditing import audit
from mainspring.operations.jobs.children import Children, find_logs, job_log
from mainspring.operations.jobs.handlers import check_begun, handlers
from mainspring.operations.models.curating import actor
from mainspring.operations.pipelines.names import RUN
from mainspring.operations.pipelines.triggers import pipeline_schedules
from mainspring.project import Project
from mainspring.project.running import alive, read_running
from mainspring.project.schedules import schedules_of

Told = Callable[[Job], None]
_LOOK_S = 0.2
_LOOKED_AT = 1_000  # newest jobs per status


def begin(
    project: Project,
    name: str,
    argument: Plain = None,
    *,
    key: str | None = None,
    priority: int = 0,
    by: str | None = None,
    team: str | None = None,
) -> Job:
    """Queue a job, or return the existing one with its key.

    Args:
        by: Who asks for it; by default who is signed in here, or else the user of this process.
        team: Named to pay for it, after `check_charge`; by default the one that this work names.

    Raises:
        NotFound: There is no such job.
        Invalid: The job does not accept the argument, or the argument names something that does not exist.
    """
    check_begun(project, name, argument)
    by = actor(project) if by is None else by
    team = named_here() if team is None else team
    wanted = NewJob(name, argument, key, id=new_id(), priority=priority, started_by=by, team=team or None)
    with project.audit.together():
        [made] = project.jobs.enqueue([wanted], project.wall.now())
        if made.id == wanted.id:
            audit(project, "jobs.run", f"job/{made.id}", f"{name}, charged to {team}" if team else name, who=by)
    return made


def cancel(project: Project, ids: Sequence[str], *, by: str | None = None) -> list[Job]:
    """Cancel jobs; see `JobStore.cancel`.

    Args:
        by: Who asks for it; by default who is signed in here, or else the user of this process.

    Raises:
        NotFound: A job does not exist. No job is cancelled.
    """
    by = actor(project) if by is None else by
    with project.audit.together():
        done = project.jobs.cancel(ids, project.wall.now())
        for each in done:
            audit(project, "jobs.cancel", f"job/{each.id}", each.handler, who=by)
    return done


def job(project: Project, id: str) -> Job:
    """Return a job.

    Raises:
        NotFound: There is no such job id.
    """
    [found] = project.jobs.get([id])
    if found is None:
        raise unknown(id)
    return found


def wait(project: Project, id: str, told: Told) -> Job:
    """Return a job once it has ended; until then `told` is called with it repeatedly."""
    while (found := job(project, id)).status not in ENDED:
        told(found)
        time.sleep(_LOOK_S)
    return found


def run_here(project: Project, id: str) -> Job:
    """Run in this process what is due, until a job has ended; return it. Steps of pipelines get child processes."""
    with closing(Children(project.settings)) as steps, paid_by(NOBODY):  # each job has payers of its own
        runner = Runner(project.jobs, handlers(project, steps=steps), project.wall, holder=f"command-{new_id()}")
        while (found := job(project, id)).status not in ENDED:
            if runner.run_one() is None:
                time.sleep(_LOOK_S)
    return found


def log(project: Project, id: str) -> str:
    """Return what a job wrote, at most the last megabyte or two; of another machine's job the end, once it has ended.

    Raises:
        NotFound: There is no such job.
    """
    id = job(project, id).id
    return find_logs(project, {id: job_log(project.settings.state, id)}).get(id, "")


def worker_is_up(project: Project) -> bool:
    """Return whether a worker of this machine runs this project's jobs."""
    running = read_running(project.settings.state)
    return running is not None and "worker" in running.children and alive(running.children["worker"])


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule with its last queued tick and its next one."""

    name: str
    job: str
    when: str
    argument: Plain
    last: int | None
    next: int


def planned(project: Project) -> list[Planned]:
    """Return a profile's schedules by name."""
    ticks, now = project.jobs.last_ticks(), project.wall.now()
    return sorted(
        (
            Planned(
                schedule.name,
                schedule.handler,
                str(schedule.when),
                schedule.argument,
                ticks.get(schedule.name),
                schedule.when.next(now),
            )
            for schedule in [*schedules_of(project.settings), *pipeline_schedules(project)]
        ),
        key=lambda plan: plan.name,
    )


def failing(project: Project) -> list[Job]:
    """Return the jobs that failed finally, newest first, without a later success with the same argument.

    A nightly job that failed once and succeeded every night since needs no attention.
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
    argument = job.argument or {}  # none is an empty one
    if job.parent is None and job.handler.startswith(RUN):  # its graph may have been corrected since
        argument = argument.get("parameters") or {}
    return job.handler, encoded(argument, "The argument")
