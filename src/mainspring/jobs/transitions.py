"""State transitions of jobs, as pure functions that every store uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mainspring.core.errors import Conflict
from mainspring.core.ids import new_id
from mainspring.jobs.model import ENDED, Job, NewJob, Outcome, Progress, Schedule, Status, Tick, check_priority
from mainspring.jobs.plain import decoded, encoded, storable


def queued(wanted: NewJob, id: str, now: int) -> Job:
    """Return a new job; its argument is a copy, as restored from JSON.

    Raises:
        Invalid: JSON cannot represent the argument, or the priority is out of bounds.
    """
    check_priority(wanted.priority)
    argument = decoded(encoded(wanted.argument, f"The argument of {wanted.handler}"))
    return Job(
        id=id,
        handler=wanted.handler,
        argument=argument,
        key=wanted.key,
        schedule=wanted.schedule,
        status=Status.QUEUED,
        enqueued_at=now,
        due_at=max(now, wanted.not_before),
        attempts=0,
        most_attempts=wanted.attempts,
        parent=wanted.parent,
        timeout_us=wanted.timeout_us,
        group=wanted.group,
        group_limit=wanted.group_limit,
        priority=wanted.priority,
        started_by=wanted.started_by,
        team=wanted.team,
    )


def all_queued(wanted: list[NewJob], now: int) -> list[Job]:
    """Return new jobs with ascending ids, except where the caller gave one."""
    ids = sorted(new_id() for _ in wanted)
    return [queued(each, each.id or id, now) for each, id in zip(wanted, ids, strict=True)]


@dataclass(frozen=True, slots=True)
class Needed:
    """A job that another waits for."""

    id: str
    done: bool  # whether it must be done, not only have ended


def placed(job: Job, needed: Iterable[Needed], statuses: Mapping[str, Status], now: int) -> Job:
    """Return a queued job as skipped, waiting for others, waiting for its group, or queued.

    Args:
        statuses: Status of each needed job.
    """
    needed = list(needed)
    for each in needed:
        status = statuses[each.id]
        if each.done and status in ENDED and status is not Status.DONE:
            return skipped(job, each.id, status, now)
    waiting = sum(statuses[each.id] not in ENDED for each in needed)
    if waiting or (job.group is not None and not job.admitted):
        return replace(job, status=Status.WAITING, waiting=waiting)
    return replace(job, status=Status.QUEUED, waiting=0)


def skipped(job: Job, need: str, status: Status, now: int) -> Job:
    """Return a job whose need was not done."""
    return replace(_ended(job, Status.SKIPPED, now), error=f"The job {need} that it needs is {status}.")


def of_tick(tick: Tick) -> NewJob:
    """Return the job of a schedule's tick."""
    of: Schedule = tick.schedule
    return NewJob(
        of.handler, of.argument, schedule=of.name, group=of.group, group_limit=of.group_limit, priority=of.priority
    )


def claimed(job: Job, holder: str, now: int, lease_us: int) -> Job:
    """Return the job as claimed by a runner; or ended, if it must not run any more."""
    if job.cancelling:
        return _ended(job, Status.CANCELLED, now)
    if job.attempts >= job.most_attempts:
        told = f"Its runner died {job.attempts} times at the same step."
        return replace(_ended(job, Status.FAILED, now), error=told if job.status is Status.RUNNING else job.error)
    return replace(
        job,
        status=Status.RUNNING,
        attempts=job.attempts + 1,
        started_at=now,
        holder=holder,
        leased_until=now + lease_us,
    )


def cancelled(job: Job, now: int) -> Job:
    """Return the job after a cancellation request."""
    if job.status in (Status.WAITING, Status.QUEUED):
        return _ended(job, Status.CANCELLED, now)
    return replace(job, cancelling=True) if job.status is Status.RUNNING else job


def retried(job: Job, now: int) -> Job:
    """Return the job after a retry request, before it waits for others.

    Raises:
        Conflict: The job is running or done.
    """
    if job.status in (Status.RUNNING, Status.DONE):
        told = "runs" if job.status is Status.RUNNING else "is done"
        raise Conflict(f"The job {job.id} ({job.handler}) {told}.", fix="start a new job with `mainspring jobs run`.")
    if job.status is Status.WAITING:
        return job
    return replace(job, status=Status.QUEUED, due_at=now, attempts=0, ended_at=None, cancelling=False)


def ended(job: Job, outcome: Outcome, now: int) -> Job:
    """Return the job after an attempt.

    Raises:
        Invalid: JSON cannot represent the result.
    """
    result = decoded(encoded(outcome.result, f"The result of {job.handler}"))
    error = None if outcome.error is None else storable(outcome.error)
    job = replace(job, result=result, error=error, attempts=job.attempts - (not outcome.counts and job.attempts > 0))
    if outcome.status in ENDED:
        return _ended(job, outcome.status, now)
    if job.cancelling:
        return _ended(job, Status.CANCELLED, now)
    job = replace(job, holder=None, leased_until=None)
    if outcome.status is Status.WAITING:  # the attempt has not failed: the next one begins to count anew
        return replace(job, status=Status.WAITING, attempts=0, waiting=0 if outcome.after else 1)
    return replace(job, status=Status.QUEUED, due_at=now if outcome.again_at is None else outcome.again_at)


def reported(progress: Progress) -> Progress:
    """Return progress in a form that every database accepts."""
    return replace(progress, note=storable(progress.note, 400))


def _ended(job: Job, status: Status, now: int) -> Job:
    return replace(
        job,
        status=status,
        ended_at=now,
        holder=None,
        leased_until=None,
        cancelling=False,
        waiting=0,
        admitted=False,
    )
