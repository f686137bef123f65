"""Jobs in the catalog: on SQLite one writer at a time, on Postgres with row locks that concurrent claims skip.

Writers that change which jobs wait for which take `order.lock` first, on Postgres, so they never wait for each other's
rows in a circle. Whatever takes it not changes only rows of jobs that run or are queued.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, upsert, writing
from mainspring.core.errors import Conflict, Invalid, MainspringError
from mainspring.core.ids import new_id
from mainspring.jobs import transitions
from mainspring.jobs.adapters import order
from mainspring.jobs.adapters.tables import (
    insert_new,
    job_cache,
    job_logs,
    job_of,
    job_schedules,
    job_steps,
    jobs,
    keep,
    row_of,
)
from mainspring.jobs.model import (
    AHEAD,
    ENDED,
    Claim,
    Ended,
    Job,
    Lease,
    LeaseLost,
    NewJob,
    Outcome,
    Progress,
    Remembered,
    Renewal,
    Status,
    Step,
    Tick,
    unknown,
)
from mainspring.jobs.plain import decoded, encoded

_AT_ONCE = 10_000  # parameters of a statement; SQLite takes 32,766


class CatalogJobs:
    """Job store in tables of the catalog: jobs, their needs and finished steps, ticks, and remembered results.

    Args:
        queued: Called when jobs were queued, for a runner that waits for some.
    """

    def __init__(self, engine: sa.Engine, queued: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._queued = queued
        self._name = engine.url.render_as_string(hide_password=True)

    def enqueue(self, wanted: Sequence[NewJob], now: int) -> list[Job]:
        made = transitions.all_queued(list(wanted), now)
        if not made:
            return []
        ordered = any(each.parent or each.group or each.needs or each.after for each in wanted)
        with self._writing(ordered=ordered) as connection:
            if ordered:
                made = order.placed(connection, list(zip(wanted, made, strict=True)), now)
            # In a fixed order, so that two callers with the same keys cannot deadlock.
            rows = [row_of(job) for job in sorted(made, key=lambda job: (job.handler, job.key or ""))]
            connection.execute(insert_new(self._engine, jobs), rows)
            keyed = sa.tuple_(jobs.c.handler, jobs.c.key).in_([(job.handler, job.key) for job in made if job.key])
            found = _jobs(connection, sa.select(jobs).where(keyed)) if any(job.key for job in made) else []
            named = [job.id for job, each in zip(made, wanted, strict=True) if each.id is not None]
            there = {job.id: job for job in _of_ids(connection, named)}
            if ordered:
                order.keep_needs(connection, wanted, made)
        self._queued()
        by_key = {(job.handler, job.key): job for job in found}
        return [there.get(job.id, job) if job.key is None else by_key[job.handler, job.key] for job in made]

    def get(self, ids: Sequence[str]) -> list[Job | None]:
        with self._reading() as connection:
            found = {job.id: job for job in _of_ids(connection, ids)}
        return [found.get(id) for id in ids]

    def find(
        self,
        *,
        statuses: Collection[Status] = (),
        handlers: Collection[str] = (),
        parent: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        order_by = (jobs.c.enqueued_at, jobs.c.id)
        if parent is None:
            query = sa.select(jobs).where(jobs.c.parent.is_(None)).order_by(*(each.desc() for each in order_by))
        else:
            query = sa.select(jobs).where(jobs.c.parent == parent).order_by(*order_by)
        query = query.limit(limit)
        if statuses:
            query = query.where(jobs.c.status.in_([each.value for each in statuses]))
        if handlers:
            query = query.where(jobs.c.handler.in_(handlers))
        if before is not None:
            query = query.where(sa.tuple_(jobs.c.enqueued_at, jobs.c.id) < before)
        with self._reading() as connection:
            return _jobs(connection, query)

    def counts(self) -> dict[Status, int]:
        query = sa.select(jobs.c.status, sa.func.count()).where(jobs.c.parent.is_(None)).group_by(jobs.c.status)
        with self._reading() as connection:
            return {Status(status): count for status, count in connection.execute(query)}

    def steps(self, job: str) -> list[Step]:
        query = sa.select(job_steps).where(job_steps.c.job == job).order_by(job_steps.c.number)
        with self._reading() as connection:
            return [Step(row.name, decoded(row.result), row.ended_at) for row in connection.execute(query)]

    def cancel(self, ids: Sequence[str], now: int) -> list[Job]:
        with self._writing(ordered=True) as connection:
            asked = _all(connection, ids)
            before = [job for job in asked if job.status not in ENDED]
            after = _kept(connection, [transitions.cancelled(job, now) for job in before])
            parts = _cancelled_parts(connection, ids, now)
            order.settle(connection, [*zip(before, after, strict=True), *parts], now)
            changed = {job.id: job for job in after}
            return [changed.get(job.id, job) for job in asked]

    def retry(self, ids: Sequence[str], now: int) -> list[Job]:
        with self._writing(ordered=True) as connection:
            before = _all(connection, ids)
            again = [transitions.retried(job, now) for job in before]
            again = _kept(connection, order.replaced(connection, again, now))
            order.wait_again(connection, before, again)
            order.admit(connection, {job.group for job in again if job.group is not None})
            found = {job.id: job for job in _of_ids(connection, ids)}  # with their places in groups
        self._queued()
        return [found[id] for id in ids]

    def claim(self, holder: str, handlers: Collection[str], now: int, lease_us: int, limit: int = 1) -> list[Lease]:
        taken: list[Lease] = []
        # Check first without a write transaction: usually nothing is due.
        while len(taken) < limit and any(self._any(query) for query in _due(handlers, now)):
            with self._writing() as connection:
                leases, over = _claimed(connection, Claim(holder, handlers, lease_us, limit - len(taken)), now)
            if not leases and not over:  # other runners have claimed all of it
                break
            taken += leases
            self._end_unclaimed([job.id for job in over], holder, now, lease_us)
        return taken

    def _end_unclaimed(self, ids: Sequence[str], holder: str, now: int, lease_us: int) -> None:
        """End jobs that must not be claimed any more, in a transaction of its own, which locks in order."""
        if not ids:
            return
        with self._writing(ordered=True) as connection:
            before = [
                job
                for job in _all(connection, ids)
                if job.status is Status.QUEUED or (job.leased_until is not None and job.leased_until <= now)
            ]
            after = [transitions.claimed(job, holder, now, lease_us) for job in before]
            pairs = [(was, job) for was, job in zip(before, after, strict=True) if job.status in ENDED]
            _kept(connection, [job for _, job in pairs])
            gone = [job.id for _, job in pairs if job.status is Status.CANCELLED]
            order.settle(connection, [*pairs, *_cancelled_parts(connection, gone, now)], now)

    def take_over(self, holder: str, now: int) -> int:
        mine = (jobs.c.holder == holder, jobs.c.status == Status.RUNNING.value)
        with self._writing() as connection:
            return connection.execute(jobs.update().where(*mine).values(leased_until=now, token=None)).rowcount

    def renew(self, leases: Sequence[Lease], now: int, lease_us: int) -> list[Renewal]:
        found = []
        for lease in leases:
            with self._writing() as connection:
                try:
                    [job] = _kept(connection, [replace(_held(connection, lease), leased_until=now + lease_us)])
                except LeaseLost:
                    found.append(Renewal.LOST)
                else:
                    found.append(Renewal.CANCELLING if job.cancelling else Renewal.HELD)
        return found

    def record(self, lease: Lease, step: Step) -> None:
        result = encoded(step.result, f"The result of the step {step.name}")
        with self._writing() as connection:
            _kept(connection, [replace(_held(connection, lease), attempts=1)])
            _step(connection, lease.job.id, step, result)

    def report(self, lease: Lease, progress: Progress) -> None:
        with self._writing() as connection:
            _kept(connection, [replace(_held(connection, lease), progress=transitions.reported(progress))])

    def end(self, lease: Lease, outcome: Outcome, now: int) -> Job:
        [found], _ = self.end_and_claim([Ended(lease, outcome)], None, now)
        if isinstance(found, MainspringError):
            raise found
        return found

    def end_and_claim(
        self, ended: Sequence[Ended], claim: Claim | None, now: int
    ) -> tuple[list[Job | MainspringError], list[Lease]]:
        found: dict[str, Job | MainspringError] = {}
        with self._writing(ordered=any(map(_orders, ended))) as connection:
            # By id, as `cancel` locks them, so that the two do not wait for each other.
            for each in sorted(ended, key=lambda each: each.lease.job.id):
                try:
                    found[each.lease.token] = self._ended(connection, each, now)
                except (LeaseLost, Invalid) as error:  # raised before anything of it was stored
                    found[each.lease.token] = error
            leases = [] if claim is None else _claimed(connection, claim, now)[0]
        return [found[each.lease.token] for each in ended], leases

    def _ended(self, connection: sa.Connection, of: Ended, now: int) -> Job:
        before = _held(connection, of.lease)
        job = transitions.ended(before, of.outcome, now)
        if job.status is Status.WAITING:
            job = order.waits(connection, job, of.outcome)
        _kept(connection, [job])
        if of.outcome.cache is not None and job.status is Status.DONE:
            row = {"key": of.outcome.cache, "result": encoded(job.result, "The result"), "job": job.id, "at": now}
            connection.execute(upsert(self._engine, job_cache, ["key"], ["result", "job", "at"]), row)
        if of.outcome.log:
            packed = zlib.compress(of.outcome.log.encode("utf-8", "backslashreplace"))
            connection.execute(upsert(self._engine, job_logs, ["job"], ["log"]), {"job": job.id, "log": packed})
        # Parts that it added after it was asked to stop are not begun.
        parts = _cancelled_parts(connection, [job.id], now) if job.status is Status.CANCELLED else []
        if job.status in ENDED and (parts or job.parent is not None or job.group is not None):
            order.settle(connection, [(before, job), *parts], now)
        if job.status is Status.QUEUED and of.outcome.gives_way:
            job = order.give_way(connection, job, now)
        return job

    def signal(self, job: str, step: Step) -> Job:
        result = encoded(step.result, f"The result of the step {step.name}")
        with self._writing(ordered=True) as connection:
            [found] = _all(connection, [job])
            asked = found.status is Status.WAITING and found.started_at is not None
            if not asked and found.status is not Status.RUNNING:
                raise Conflict(f"The job {job} does not wait for a signal: it is {found.status}.")
            _step(connection, job, step, result)
            if asked:
                found = order.signalled(found)
                _kept(connection, [found])
        self._queued()
        return found

    def remembered(self, key: str) -> Remembered | None:
        with self._reading() as connection:
            row = connection.execute(sa.select(job_cache).where(job_cache.c.key == key)).first()
        return None if row is None else Remembered(decoded(row.result), row.job, row.at)

    def logs(self, jobs: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        rest = sorted(set(jobs))
        with self._reading() as connection:
            for at in range(0, len(rest), _AT_ONCE):
                query = sa.select(job_logs).where(job_logs.c.job.in_(rest[at : at + _AT_ONCE]))
                found |= {row.job: zlib.decompress(row.log).decode() for row in connection.execute(query)}
        return found

    def tick(self, ticks: Sequence[Tick], now: int) -> list[Job]:
        if not ticks:
            return []
        due: list[NewJob] = []
        with self._writing(ordered=any(tick.schedule.group for tick in ticks)) as connection:
            for tick in sorted(ticks, key=lambda tick: tick.schedule.name):
                first = insert_new(self._engine, job_schedules)
                connection.execute(first, {"name": tick.schedule.name, "tick": tick.at})
                named, last = job_schedules.c.name == tick.schedule.name, job_schedules.c.tick
                connection.execute(job_schedules.update().where(named, last > now + AHEAD).values(tick=tick.at))
                later = (named, last < tick.at)
                # The row lock decides between concurrent calls with the same tick.
                if connection.execute(job_schedules.update().where(*later).values(tick=tick.at)).rowcount:
                    due.append(transitions.of_tick(tick))
            made = order.placed(connection, list(zip(due, transitions.all_queued(due, now), strict=True)), now)
            if made:
                connection.execute(jobs.insert(), [row_of(job) for job in made])
        if made:
            self._queued()
        return made

    def last_ticks(self) -> dict[str, int]:
        with self._reading() as connection:
            return {row.name: row.tick for row in connection.execute(sa.select(job_schedules))}

    def forget(self, statuses: Collection[Status], ended_before: int) -> int:
        ended = [each.value for each in statuses if each in ENDED]
        old = (jobs.c.parent.is_(None), jobs.c.status.in_(ended), jobs.c.ended_at < ended_before)
        with self._writing(ordered=True) as connection:
            connection.execute(jobs.delete().where(jobs.c.parent.in_(sa.select(jobs.c.id).where(*old))))
            if Status.DONE in statuses:
                connection.execute(job_cache.delete().where(job_cache.c.at < ended_before))
            return connection.execute(jobs.delete().where(*old)).rowcount

    def _any(self, query: sa.Select[Any]) -> bool:
        with self._reading() as connection:
            return connection.execute(query.with_only_columns(jobs.c.id).limit(1)).first() is not None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, *, ordered: bool = False) -> Iterator[sa.Connection]:
        """Open a write transaction. On SQLite it excludes other writers from its start, so its reads stay valid.

        Args:
            ordered: Whether it changes which jobs wait for which.
        """
        with catalog_errors(self._name), writing(self._engine) as connection:
            if ordered and self._engine.dialect.name != "sqlite":
                order.lock(connection)
            yield connection


def _jobs(connection: sa.Connection, query: sa.Select[Any]) -> list[Job]:
    return [job_of(dict(row)) for row in connection.execute(query).mappings()]


def _all(connection: sa.Connection, ids: Sequence[str]) -> list[Job]:
    """Return these jobs, locked until the transaction ends."""
    found = {job.id: job for job in _of_ids(connection, ids, locked=True)}
    for id in ids:
        if id not in found:
            raise unknown(id)
    return [found[id] for id in ids]


def _cancelled_parts(connection: sa.Connection, parents: Sequence[str], now: int) -> list[tuple[Job, Job]]:
    """Cancel the parts of jobs; return each that had not ended before and after."""
    if not parents:
        return []
    parts = sa.select(jobs).where(jobs.c.parent.in_(parents)).order_by(jobs.c.id).with_for_update()
    before = [job for job in _jobs(connection, parts) if job.status not in ENDED]
    after = _kept(connection, [transitions.cancelled(job, now) for job in before])
    return list(zip(before, after, strict=True))


def _of_ids(connection: sa.Connection, ids: Sequence[str], *, locked: bool = False) -> list[Job]:
    """Return the jobs of these ids that are stored, by id."""
    found, rest = [], sorted(set(ids))
    for at in range(0, len(rest), _AT_ONCE):
        query = sa.select(jobs).where(jobs.c.id.in_(rest[at : at + _AT_ONCE])).order_by(jobs.c.id)
        found += _jobs(connection, query.with_for_update() if locked else query)
    return found


def _step(connection: sa.Connection, job: str, step: Step, result: str) -> None:
    names = connection.scalars(sa.select(job_steps.c.name).where(job_steps.c.job == job)).all()
    if step.name in names:
        raise Conflict(f"The job {job} has already finished a step {step.name!r}.")
    row = {"job": job, "number": len(names) + 1, "name": step.name, "result": result}
    connection.execute(job_steps.insert().values(**row, ended_at=step.ended_at))


def _held(connection: sa.Connection, lease: Lease) -> Job:
    """Return the job of a valid lease, locked."""
    mine = (jobs.c.id == lease.job.id, jobs.c.token == lease.token, jobs.c.status == Status.RUNNING.value)
    found = _jobs(connection, sa.select(jobs).where(*mine).with_for_update())
    if not found:
        raise LeaseLost(lease.job.id)
    return found[0]


def _due(handlers: Collection[str], now: int) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Return the queries of the running jobs with an expired lease, and of the queued jobs that are due.

    Two, since each follows an index to the first jobs; one with OR would sort all that are due.
    """
    known = sa.select(jobs).where(jobs.c.handler.in_(handlers)).order_by(jobs.c.rank, jobs.c.id)
    expired = known.where(jobs.c.status == Status.RUNNING.value, jobs.c.leased_until <= now)
    return expired, known.where(jobs.c.status == Status.QUEUED.value, jobs.c.due_at <= now)


def _claimed(connection: sa.Connection, claim: Claim, now: int) -> tuple[list[Lease], list[Job]]:
    """Lease due jobs; return the leases, and the jobs that must be given up instead, unchanged."""
    due = [
        job
        for query in _due(claim.handlers, now)
        for job in _jobs(connection, query.limit(claim.limit).with_for_update(skip_locked=True))
    ]
    leases, over = [], []
    for job in sorted(due, key=lambda job: (job.rank, job.id))[: claim.limit]:
        made = transitions.claimed(job, claim.holder, now, claim.lease_us)
        if made.status is not Status.RUNNING:
            over.append(job)
            continue
        token = new_id()
        _kept(connection, [made], token=token)
        leases.append(Lease(made, token))
    return leases, over


def _orders(ended: Ended) -> bool:
    """Return whether the end of an attempt may change which jobs wait for which."""
    job = ended.lease.job
    plain = (Status.DONE, Status.FAILED, Status.SKIPPED)  # else it may have been cancelled, with its parts
    return job.parent is not None or job.group is not None or ended.outcome.status not in plain


def _kept(connection: sa.Connection, changed: list[Job], token: str | None = None) -> list[Job]:
    for job in changed:
        keep(connection, job, token)
    return changed
