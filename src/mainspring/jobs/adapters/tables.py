"""Tables of jobs in the catalog, and their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import metadata
from mainspring.jobs.model import Job, Progress, Status
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
    sa.Column("parent", sa.String(32)),
    sa.Column("waiting", sa.Integer, nullable=False, server_default="0"),
    sa.Column("timeout_us", sa.BigInteger),
    sa.Column("group", sa.String(128)),
    sa.Column("group_limit", sa.Integer),
    sa.Column("admitted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rank", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("started_by", sa.Text),
    sa.Column("team", sa.String(128)),
    sa.UniqueConstraint("handler", "key"),
    sa.Index("jobs_by_rank", "status", "rank", "id"),
    sa.Index("jobs_by_parent", "parent", "enqueued_at", "id"),
    sa.Index("jobs_by_group", "group", "status", "rank"),
)
job_needs = sa.Table(
    "job_needs",
    metadata,
    sa.Column("job", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("need", sa.String(32), primary_key=True),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Index("job_needs_by_need", "need"),
)
job_cache = sa.Table(
    "job_cache",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("job", sa.String(32), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
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
job_logs = sa.Table(
    "job_logs",
    metadata,
    sa.Column("job", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("log", sa.LargeBinary, nullable=False),  # UTF-8, deflated
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
        "parent": job.parent,
        "waiting": job.waiting,
        "timeout_us": job.timeout_us,
        "group": job.group,
        "group_limit": job.group_limit,
        "admitted": job.admitted,
        "priority": job.priority,
        "rank": job.rank,
        "started_by": job.started_by,
        "team": job.team,
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


_CHANGED = [column.name for column in jobs.c if column.name not in ("id", "token")]
# Built once: it takes longer to build than to execute.
_UPDATE = jobs.update().where(jobs.c.id == sa.bindparam("_id")).values({n: sa.bindparam(n) for n in _CHANGED})
_UPDATE_WITH_TOKEN = _UPDATE.values(token=sa.bindparam("token"))


def keep(connection: sa.Connection, job: Job, token: str | None = None) -> None:
    """Store a changed job, and the token of its new lease if one is given."""
    row = row_of(job)
    row["_id"] = row.pop("id")
    if token is None:
        connection.execute(_UPDATE, row)
    else:
        connection.execute(_UPDATE_WITH_TOKEN, row | {"token": token})


_LARGE = ("argument", "result", "progress")  # which a change of a waiting job's state neither reads nor writes
STATE = [column for column in jobs.c if column.name not in _LARGE]
_STATE_CHANGED = [name for name in _CHANGED if name not in _LARGE]
_UPDATE_STATE = (
    jobs.update().where(jobs.c.id == sa.bindparam("_id")).values({n: sa.bindparam(n) for n in _STATE_CHANGED})
)


def state_of(row: Mapping[str, Any]) -> Job:
    """Return the job of a row of `STATE`: without its argument, its result and its progress."""
    return job_of({**row, "argument": "null", "result": None, "progress": None})


def keep_state(connection: sa.Connection, job: Job) -> None:
    """Store a changed job of `state_of`."""
    row = row_of(job)
    connection.execute(_UPDATE_STATE, {name: row[name] for name in _STATE_CHANGED} | {"_id": job.id})


def insert_new(engine: sa.Engine, table: sa.Table) -> Any:
    """Return an INSERT that skips rows that break a unique constraint; the same in both dialects."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(table)
    return insert.on_conflict_do_nothing()
