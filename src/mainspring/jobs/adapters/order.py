"""Jobs that wait for others: who is queued, skipped or admitted to its group when a job is added or ends.

Every function runs in a transaction that holds `lock`, and changes rows of waiting jobs only. Each change touches the
jobs concerned, found by index: its cost does not grow with the number of jobs that wait.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from mainspring.core.errors import Invalid
from mainspring.jobs import transitions
from mainspring.jobs.adapters.tables import STATE, job_needs, job_steps, jobs, keep_state, state_of
from mainspring.jobs.model import ENDED, Job, NewJob, Outcome, Status
from mainspring.jobs.transitions import Needed

_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtext('mainspring jobs'), hashtext(current_schema()))")
_UNDER_WAY = [each.value for each in Status if each not in ENDED]
_AT_ONCE = 10_000


def lock(connection: sa.Connection) -> None:
    """Wait until no other transaction on Postgres changes which jobs of this catalog wait for which."""
    connection.execute(_LOCK)


def placed(connection: sa.Connection, made: Sequence[tuple[NewJob, Job]], now: int) -> list[Job]:
    """Return new jobs as they are stored: queued, waiting, skipped or cancelled.

    Raises:
        Invalid: A job needs one that is neither stored nor before it, or that belongs to another parent.
    """
    named = {id for each, _ in made for id in (*each.needs, *each.after)}
    named |= {each.parent for each, _ in made if each.parent is not None}
    known = dict(_statuses(connection, named))
    statuses = {id: status for id, (status, _) in known.items()}
    taken: dict[str, int] = {}
    found = []
    for wanted, queued in made:
        job = queued
        for need in (*wanted.needs, *wanted.after):
            if need not in known or wanted.parent is None or known[need][1] != wanted.parent:
                raise Invalid(
                    f"The job {job.handler} needs {need!r}, which is not an earlier part of the same parent.",
                    fix="add jobs with their parent, each after those that it needs.",
                )
        if job.group is not None:
            if job.group not in taken:
                taken[job.group] = _admitted(connection, job.group)
            ready = all(statuses[each.id] in ENDED for each in _needed(wanted))
            job = replace(job, admitted=ready and taken[job.group] < (job.group_limit or 1))
        parent = known.get(wanted.parent or "")
        if parent is not None and parent[0] in ENDED:
            job = transitions.cancelled(job, now)
        else:
            job = transitions.placed(job, _needed(wanted), statuses, now)
        if job.admitted and job.group is not None:
            taken[job.group] += 1
        known[job.id] = (job.status, wanted.parent)
        statuses[job.id] = job.status
        found.append(job)
    return found


def keep_needs(connection: sa.Connection, wanted: Sequence[NewJob], made: Sequence[Job]) -> None:
    """Store what new jobs wait for, unless an earlier call has stored them."""
    rows = [_row(job.id, each) for new, job in zip(wanted, made, strict=True) for each in _needed(new)]
    there: set[str] = set()
    ids = sorted({row["job"] for row in rows})
    for at in range(0, len(ids), _AT_ONCE):
        query = sa.select(job_needs.c.job).distinct().where(job_needs.c.job.in_(ids[at : at + _AT_ONCE]))
        there |= set(connection.scalars(query))
    if fresh := [row for row in rows if row["job"] not in there]:
        connection.execute(job_needs.insert(), fresh)


def waits(connection: sa.Connection, job: Job, outcome: Outcome) -> Job:
    """Return a job whose attempt ended in order to wait, and store what it waits for."""
    connection.execute(job_needs.delete().where(job_needs.c.job == job.id))
    if not outcome.after:
        query = sa.select(sa.func.count()).select_from(job_steps).where(job_steps.c.job == job.id)
        come = (connection.scalar(query) or 0) > outcome.signals
        return signalled(job) if come else job
    needed = [Needed(id, done=False) for id in dict.fromkeys(outcome.after)]
    known = {id: status for id, (status, _) in _statuses(connection, outcome.after)}
    connection.execute(job_needs.insert(), [_row(job.id, each) for each in needed])
    kept = replace(job, admitted=True)  # whatever it waits for, it keeps its place
    found = transitions.placed(kept, [each for each in needed if each.id in known], known, 0)
    return replace(found, admitted=job.admitted)


def signalled(job: Job) -> Job:
    """Return a waiting job that may go on."""
    return replace(job, status=Status.QUEUED, waiting=0)


def replaced(connection: sa.Connection, again: Sequence[Job], now: int) -> list[Job]:
    """Return retried jobs as they are stored: they wait for what they need, and parts for their parent's place."""
    rows = connection.execute(sa.select(job_needs).where(job_needs.c.job.in_([job.id for job in again]))).all()
    needed: dict[str, list[Needed]] = defaultdict(list)
    for row in rows:
        needed[row.job].append(Needed(row.need, done=row.done))
    known = {id: status for id, (status, _) in _statuses(connection, {row.need for row in rows})}
    known |= {job.id: job.status for job in again}
    # With a place such a job goes on, and waits for its parts; these wait until then.
    held = {job.id for job in again if job.status is Status.QUEUED and job.group is not None and not job.admitted}
    held &= {job.parent for job in again}
    found = {}
    for job in sorted(again, key=lambda job: job.id):
        if job.status is Status.QUEUED:
            # Of a need that is gone nothing is known any more: it counts as ended.
            there = [] if job.id in held else [each for each in needed[job.id] if each.id in known]
            placed = transitions.placed(job, there, known, now)
            if job.parent in held and placed.status is not Status.SKIPPED:
                placed = replace(placed, status=Status.WAITING, waiting=placed.waiting + 1)
            found[job.id] = placed
            known[job.id] = found[job.id].status
    return [found.get(job.id, job) for job in again]


def wait_again(connection: sa.Connection, before: Sequence[Job], again: Sequence[Job]) -> None:
    """Let the jobs that wait for others wait for those of them, too, that had ended and were retried."""
    ids = {job.id for job in again}
    opened = [job.id for was, job in zip(before, again, strict=True) if was.status in ENDED and job.status not in ENDED]
    for job, needs in _dependents(connection, opened):
        if job.id not in ids:
            keep_state(connection, replace(job, waiting=job.waiting + len(needs)))


def settle(connection: sa.Connection, ended: Iterable[tuple[Job, Job]], now: int) -> None:
    """Queue or skip the jobs that waited for jobs that have just ended, and give away their places in groups.

    Args:
        ended: Each job before and after; those that have not ended are ignored.
    """
    over, groups = [], set[str]()
    for before, job in ended:
        if job.status in ENDED:
            over.append(job)
            if before.admitted and job.group is not None:
                groups.add(job.group)
    while over:
        statuses = {job.id: job.status for job in over}
        over = []
        for job, needs in _dependents(connection, list(statuses)):
            changed = _after_ends(job, needs, statuses, now)
            if changed.status is Status.SKIPPED:
                over.append(changed)
            elif changed.status is Status.WAITING and changed.waiting == 0:
                groups.add(str(changed.group))
            keep_state(connection, changed)
    admit(connection, groups)


def _after_ends(job: Job, needs: Sequence[Needed], statuses: Mapping[str, Status], now: int) -> Job:
    """Return a waiting job after some of its needs have ended."""
    for each in needs:
        if each.done and statuses[each.id] is not Status.DONE:
            return transitions.skipped(job, each.id, statuses[each.id], now)
    return _with_fewer(job, len(needs))


def _with_fewer(job: Job, ended: int) -> Job:
    """Return a waiting job that waits for fewer others."""
    if job.waiting > ended:
        return replace(job, waiting=job.waiting - ended)
    if job.group is not None and not job.admitted:
        return replace(job, waiting=0)
    return signalled(job)


def admit(connection: sa.Connection, groups: Iterable[str]) -> None:
    """Queue the next jobs of groups that have free places, and the parts that were retried with one of them."""
    rest = set(groups)
    while rest:
        group = min(rest)
        rest.remove(group)
        taken = _admitted(connection, group)
        first = _waiting_in(group).order_by(jobs.c.rank, jobs.c.id).limit(1)
        while found := connection.execute(first).mappings().first():
            job = state_of(dict(found))
            if taken >= (job.group_limit or 1):
                break
            keep_state(connection, replace(job, status=Status.QUEUED, admitted=True))
            rest |= _let_go(connection, job.id)
            taken += 1


def give_way(connection: sa.Connection, job: Job, now: int) -> Job:
    """Return a queued job that is put off as it is stored: behind those that wait for its place or its parent's."""
    if job.admitted and job.group is not None:
        _put_behind(connection, job)
    if job.parent is not None:
        _put_off(connection, job.parent, job, now)
    [stored] = _states(connection, jobs.c.id == job.id)
    return replace(job, status=stored.status, waiting=stored.waiting, admitted=stored.admitted)


def _put_off(connection: sa.Connection, id: str, part: Job, now: int) -> None:
    """Let a job that waits for its parts give its place away, and all its parts wait until it has one again.

    Nothing changes if nobody wants the place, or while another part works: the part that is put off looks again.
    """
    [parent] = _states(connection, jobs.c.id == id)
    if parent.status is not Status.WAITING or not parent.admitted or parent.group is None:
        return
    if connection.execute(_waiting_in(parent.group).limit(1)).first() is None:
        return
    parts = _states(connection, jobs.c.parent == id, jobs.c.status.in_(_UNDER_WAY))
    if any(each.id != part.id and _works(each, now) for each in parts):
        return
    for each in parts:
        keep_state(connection, replace(each, status=Status.WAITING, waiting=each.waiting + 1, admitted=False))
    _put_behind(connection, replace(parent, due_at=part.due_at))
    admit(connection, {each.group for each in parts if each.group is not None})


def _works(part: Job, now: int) -> bool:
    return part.status is Status.RUNNING or (part.status is Status.QUEUED and part.due_at <= now)


def _put_behind(connection: sa.Connection, job: Job) -> None:
    """Give the place of a job to the next of its group; it has one again if there is none."""
    waiting = replace(job, status=Status.WAITING, waiting=0, admitted=False)
    keep_state(connection, replace(waiting, waiting=1))  # until the next has the place, whatever their priorities
    admit(connection, {str(job.group)})
    keep_state(connection, waiting)
    admit(connection, {str(job.group)})


def _states(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> list[Job]:
    """Return jobs without what is large, by id, locked."""
    query = sa.select(*STATE).where(*which).order_by(jobs.c.id).with_for_update()
    return [state_of(dict(row)) for row in connection.execute(query).mappings()]


def _waiting_in(group: str) -> sa.Select[Any]:
    return sa.select(*STATE).where(
        jobs.c.group == group, jobs.c.status == Status.WAITING.value, jobs.c.waiting == 0, ~jobs.c.admitted
    )


def _let_go(connection: sa.Connection, parent: str) -> set[str]:
    """Let the parts of a job that got its place wait for it no longer; return the groups that they wait for now."""
    groups = set()
    query = sa.select(*STATE).where(jobs.c.parent == parent, jobs.c.status == Status.WAITING.value)
    for row in connection.execute(query.order_by(jobs.c.id)).mappings().all():
        job = state_of(dict(row))
        changed = _with_fewer(job, 1)
        if changed.status is Status.WAITING and changed.waiting == 0:
            groups.add(str(job.group))
        keep_state(connection, changed)
    return groups


def _admitted(connection: sa.Connection, group: str) -> int:
    query = sa.select(sa.func.count()).select_from(jobs)
    query = query.where(jobs.c.group == group, jobs.c.status.in_(_UNDER_WAY), jobs.c.admitted)
    return connection.scalar(query) or 0


def _statuses(connection: sa.Connection, ids: Iterable[str]) -> Iterable[tuple[str, tuple[Status, str | None]]]:
    """Yield (id, (status, parent)) of the jobs that are stored."""
    rest = sorted(set(ids))
    for at in range(0, len(rest), _AT_ONCE):
        query = sa.select(jobs.c.id, jobs.c.status, jobs.c.parent).where(jobs.c.id.in_(rest[at : at + _AT_ONCE]))
        for row in connection.execute(query):
            yield row.id, (Status(row.status), row.parent)


def _dependents(connection: sa.Connection, ended: Sequence[str]) -> list[tuple[Job, list[Needed]]]:
    """Return the waiting jobs that need jobs that have ended, with those needs."""
    needs: dict[str, list[Needed]] = defaultdict(list)
    found: dict[str, Job] = {}
    for at in range(0, len(ended), _AT_ONCE):
        some = ended[at : at + _AT_ONCE]
        query = sa.select(*STATE, job_needs.c.need, job_needs.c.done).join(job_needs, job_needs.c.job == jobs.c.id)
        query = query.where(job_needs.c.need.in_(some), jobs.c.status == Status.WAITING.value).order_by(jobs.c.id)
        for row in connection.execute(query).mappings():
            found[row["id"]] = state_of(dict(row))
            needs[row["id"]].append(Needed(row["need"], done=row["done"]))
    return [(job, needs[id]) for id, job in found.items()]


def _needed(wanted: NewJob) -> list[Needed]:
    both = dict.fromkeys(wanted.after, False) | dict.fromkeys(wanted.needs, True)
    return [Needed(id, done=done) for id, done in both.items()]


def _row(job: str, need: Needed) -> dict[str, Any]:
    return {"job": job, "need": need.id, "done": need.done}
