"""Jobs in the catalog: on SQLite one writer at a time, on Postgres with row locks that concurrent claims skip."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict
from mainspring.core.ids import new_id
from mainspring.jobs import transitions
from mainspring.jobs.model import (
    AHEAD,
    ENDED,
    Job,
    Lease,
    LeaseLost,
    NewJob,
    Outcome,
    Progress,
    Renewal,
    Status,
    Step,
    Tick,
    unknown,
)
from mainspring.jobs.plain import decoded, encoded

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("handler", sa.String(128), nullable=False),
    sa.Column("argument", sa.Text, nullable=False),
    sa.Column("key", sa.String(256)),
    sa.Column("schedule", sa.String(128)),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("enqueued_at", sa.BigInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("most_attempts", sa.Integer, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("holder", sa.String(128)),
    sa.Column("token", sa.String(32)),
    sa.Column("leased_until", sa.BigInteger),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("progress", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("handler", "key"),
    sa.Index("jobs_by_status", "status", "due_at"),
    sa.Index("jobs_by_time", "enqueued_at", "id"),
)
job_steps = sa.Table(
    "job_steps",
    metadata,
    sa.Column("job", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("ended_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("job", "name"),
)
job_schedules = sa.Table(
    "job_schedules",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("tick", sa.BigInteger, nullable=False),
)


def row_of(job: Job) -> dict[str, Any]:
    """Return the columns of a job, without its lease's token."""
    progress = job.progress
    return {
        "id": job.id,
        "handler": job.handler,
        "argument": encoded(job.argument, "The argument"),
        "key": job.key,
        "schedule": job.schedule,
        "status": job.status.value,
        "enqueued_at": job.enqueued_at,
        "due_at": job.due_at,
        "attempts": job.attempts,
        "most_attempts": job.most_attempts,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "holder": job.holder,
        "leased_until": job.leased_until,
        "cancelling": job.cancelling,
        "progress": progress and encoded([progress.done, progress.total, progress.note], "The progress"),
        "result": None if job.result is None else encoded(job.result, "The result"),
        "error": job.error,
    }


def job_of(row: Mapping[str, Any]) -> Job:
    """Return the job of a row."""
    values = {name: row[name] for name in Job.__dataclass_fields__}
    progress = decoded(row["progress"])
    return Job(
        **values
        | {
            "argument": decoded(row["argument"]),
            "status": Status(row["status"]),
            "progress": None if progress is None else Progress(*progress),
            "result": decoded(row["result"]),
        }
    )


def insert_new(engine: sa.Engine, table: sa.Table, *keys: str) -> Any:
    """Return an INSERT that skips rows whose `keys` exist already; the same in both dialects."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(table)
    return insert.on_conflict_do_nothing(index_elements=keys)


class CatalogJobs:
    """Job store in three tables: jobs, their finished steps, and the last tick of each schedule."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def enqueue(self, wanted: Sequence[NewJob], now: int) -> list[Job]:
        made = transitions.all_queued(list(wanted), now)
        if not made:
            return []
        # In a fixed order, so that two callers with the same keys cannot deadlock.
        rows = [row_of(job) for job in sorted(made, key=lambda job: (job.handler, job.key or ""))]
        with self._writing() as connection:
            connection.execute(insert_new(self._engine, jobs, "handler", "key"), rows)
            keyed = sa.tuple_(jobs.c.handler, jobs.c.key).in_([(job.handler, job.key) for job in made if job.key])
            found = _jobs(connection, sa.select(jobs).where(keyed))
        there = {(job.handler, job.key): job for job in found}
        return [job if job.key is None else there[job.handler, job.key] for job in made]

    def get(self, ids: Sequence[str]) -> list[Job | None]:
        with self._reading() as connection:
            found = {job.id: job for job in _jobs(connection, sa.select(jobs).where(jobs.c.id.in_(ids)))}
        return [found.get(id) for id in ids]

    def find(
        self,
        *,
        statuses: Collection[Status] = (),
        handlers: Collection[str] = (),
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        query = sa.select(jobs).order_by(jobs.c.enqueued_at.desc(), jobs.c.id.desc()).limit(limit)
        if statuses:
            query = query.where(jobs.c.status.in_([each.value for each in statuses]))
        if handlers:
            query = query.where(jobs.c.handler.in_(handlers))
        if before is not None:
            query = query.where(sa.tuple_(jobs.c.enqueued_at, jobs.c.id) < before)
        with self._reading() as connection:
            return _jobs(connection, query)

    def counts(self) -> dict[Status, int]:
        query = sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)
        with self._reading() as connection:
            return {Status(status): count for status, count in connection.execute(query)}

    def steps(self, job: str) -> list[Step]:
        query = sa.select(job_steps).where(job_steps.c.job == job).order_by(job_steps.c.number)
        with self._reading() as connection:
            return [Step(row.name, decoded(row.result), row.ended_at) for row in connection.execute(query)]

    def cancel(self, ids: Sequence[str], now: int) -> list[Job]:
        with self._writing() as connection:
            return _kept(connection, [transitions.cancelled(job, now) for job in _all(connection, ids)])

    def retry(self, ids: Sequence[str], now: int) -> list[Job]:
        with self._writing() as connection:
            return _kept(connection, [transitions.retried(job, now) for job in _all(connection, ids)])

    def claim(self, holder: str, handlers: Collection[str], now: int, lease_us: int, limit: int = 1) -> list[Lease]:
        due = sa.or_(
            sa.and_(jobs.c.status == Status.QUEUED.value, jobs.c.due_at <= now),
            sa.and_(jobs.c.status == Status.RUNNING.value, jobs.c.leased_until <= now),
        )
        wanted = sa.select(jobs).where(due, jobs.c.handler.in_(handlers)).order_by(jobs.c.due_at, jobs.c.id)
        taken: list[Lease] = []
        # Check first without a write transaction: usually nothing is due.
        while len(taken) < limit and self._any(wanted):
            with self._writing() as connection:
                rest = wanted.limit(limit - len(taken)).with_for_update(skip_locked=True)
                found = [transitions.claimed(job, holder, now, lease_us) for job in _jobs(connection, rest)]
                if not found:  # other runners have claimed all of it
                    break
                for job in found:
                    token = new_id()
                    _kept(connection, [job], token=token)
                    if job.status is Status.RUNNING:
                        taken.append(Lease(job, token))
        return taken

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
            names = connection.scalars(sa.select(job_steps.c.name).where(job_steps.c.job == lease.job.id)).all()
            if step.name in names:
                raise Conflict(f"The job {lease.job.id} has already finished a step {step.name!r}.")
            row = {"job": lease.job.id, "number": len(names) + 1, "name": step.name, "result": result}
            connection.execute(job_steps.insert().values(**row, ended_at=step.ended_at))

    def report(self, lease: Lease, progress: Progress) -> None:
        with self._writing() as connection:
            _kept(connection, [replace(_held(connection, lease), progress=transitions.reported(progress))])

    def end(self, lease: Lease, outcome: Outcome, now: int) -> Job:
        with self._writing() as connection:
            [job] = _kept(connection, [transitions.ended(_held(connection, lease), outcome, now)])
            return job

    def tick(self, ticks: Sequence[Tick], now: int) -> list[Job]:
        if not ticks:
            return []
        made = []
        with self._writing() as connection:
            for tick in sorted(ticks, key=lambda tick: tick.schedule.name):
                first = insert_new(self._engine, job_schedules, "name")
                connection.execute(first, {"name": tick.schedule.name, "tick": tick.at})
                named, last = job_schedules.c.name == tick.schedule.name, job_schedules.c.tick
                connection.execute(job_schedules.update().where(named, last > now + AHEAD).values(tick=tick.at))
                later = (named, last < tick.at)
                # The row lock decides between concurrent calls with the same tick.
                if connection.execute(job_schedules.update().where(*later).values(tick=tick.at)).rowcount:
                    made.append(transitions.of_tick(tick, now))
            if made:
                connection.execute(jobs.insert(), [row_of(job) for job in made])
        return made

    def last_ticks(self) -> dict[str, int]:
        with self._reading() as connection:
            return {row.name: row.tick for row in connection.execute(sa.select(job_schedules))}

    def forget(self, statuses: Collection[Status], ended_before: int) -> int:
        ended = [each.value for each in statuses if each in ENDED]
        gone = jobs.delete().where(jobs.c.status.in_(ended), jobs.c.ended_at < ended_before)
        with self._writing() as connection:
            return connection.execute(gone).rowcount

    def _any(self, query: sa.Select[Any]) -> bool:
        with self._reading() as connection:
            return connection.execute(query.with_only_columns(jobs.c.id).limit(1)).first() is not None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Open a write transaction. On SQLite it excludes other writers from its start, so its reads stay valid."""
        with catalog_errors(self._name), self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()


def _jobs(connection: sa.Connection, query: sa.Select[Any]) -> list[Job]:
    return [job_of(dict(row)) for row in connection.execute(query).mappings()]


def _all(connection: sa.Connection, ids: Sequence[str]) -> list[Job]:
    """Return these jobs, locked until the transaction ends."""
    query = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
    found = {job.id: job for job in _jobs(connection, query)}
    for id in ids:
        if id not in found:
            raise unknown(id)
    return [found[id] for id in ids]


def _held(connection: sa.Connection, lease: Lease) -> Job:
    """Return the job of a valid lease, locked."""
    mine = (jobs.c.id == lease.job.id, jobs.c.token == lease.token, jobs.c.status == Status.RUNNING.value)
    found = _jobs(connection, sa.select(jobs).where(*mine).with_for_update())
    if not found:
        raise LeaseLost(lease.job.id)
    return found[0]


def _kept(connection: sa.Connection, changed: list[Job], **more: str) -> list[Job]:
    for job in changed:
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(**row_of(job), **more))
    return changed
