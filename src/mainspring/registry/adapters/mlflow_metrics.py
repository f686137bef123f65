"""Bulk insert of metrics into MLflow's tables, with the same result as `log_batch` but without an object per metric.

`log_batch` builds an ORM object per metric, reads back the newest value of every name, and takes a thousand metrics at
a time. This module uses two statements: an insert into the history that skips existing rows, and an upsert of each
name's newest value, ordered as in MLflow by (step, time, value). tests/conformance/test_mlflow_metrics.py writes the
same metrics both ways and compares the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mainspring.core.errors import Conflict, NotFound

Metric = tuple[str, float, int, int]  # name, value, step, time in microseconds
Row = tuple[str, float, int, int, bool, str]  # `_COLUMNS`

_LARGEST = 1.7976931348623157e308  # MLflow's stand-in for infinity
_COLUMNS = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")

_tables = sa.MetaData()
_kinds: dict[str, Any] = {
    "value": sa.Float(53),
    "timestamp": sa.BigInteger,
    "step": sa.BigInteger,
    "is_nan": sa.Boolean,
}
_metrics, _latest = (
    sa.Table(name, _tables, *(sa.Column(column, _kinds.get(column, sa.String)) for column in _COLUMNS))
    for name in ("metrics", "latest_metrics")
)
_runs = sa.Table("runs", _tables, *(sa.Column(name, sa.String) for name in ("run_uuid", "lifecycle_stage")))
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def can_write(engine: sa.Engine) -> bool:
    """Return whether the bulk statements support this kind of database."""
    return engine.dialect.name in _INSERTS


def write(engine: sa.Engine, run_id: str, metrics: Sequence[Metric], *, patience_s: float = 20.0) -> None:
    """Add metrics to a run in one transaction: all or none.

    Args:
        patience_s: Seconds to wait for a SQLite database that another process has locked.

    Raises:
        NotFound: The run does not exist.
        Conflict: The run was deleted.
    """
    rows = [_row(run_id, *metric) for metric in metrics]
    newest: dict[str, Row] = {}
    for row in rows:
        known = newest.get(row[0])
        if known is None or _order(row) > _order(known):
            newest[row[0]] = row
    history, upsert = _statements(engine.dialect)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(patience_s * 1000)}")
        _check_active(connection, run_id)
        _execute(connection, history, rows)
        # in a fixed order, so that two writers cannot deadlock
        _execute(connection, upsert, [newest[name] for name in sorted(newest)])


def _statements(dialect: sa.Dialect) -> tuple[str, str]:
    """Return the SQL of both statements; their parameters are `_COLUMNS`, by position or by name."""
    insert = _INSERTS[dialect.name]
    upsert = insert(_latest)
    fresh = upsert.excluded
    upsert = upsert.on_conflict_do_update(
        index_elements=["key", "run_uuid"],
        set_={name: fresh[name] for name in ("value", "timestamp", "step", "is_nan")},
        where=sa.tuple_(fresh.step, fresh.timestamp, fresh.value)
        > sa.tuple_(_latest.c.step, _latest.c.timestamp, _latest.c.value),
    )
    history = insert(_metrics).on_conflict_do_nothing()
    return str(history.compile(dialect=dialect)), str(upsert.compile(dialect=dialect))


def _execute(connection: sa.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Pass the rows to the driver directly: SQLAlchemy would convert each to a dictionary and back to a tuple."""
    if connection.dialect.positional:
        connection.exec_driver_sql(statement, list(rows))
    else:
        connection.exec_driver_sql(statement, [dict(zip(_COLUMNS, row, strict=True)) for row in rows])


def _row(run_id: str, name: str, value: float, step: int, at: int) -> Row:
    nan = math.isnan(value)
    if nan:
        value = 0.0
    elif math.isinf(value):
        value = math.copysign(_LARGEST, value)
    return name, value, at // 1000, step, nan, run_id


def _order(row: Row) -> tuple[int, int, float]:
    return row[3], row[2], row[1]


def _check_active(connection: sa.Connection, run_id: str) -> None:
    stage = connection.execute(sa.select(_runs.c.lifecycle_stage).where(_runs.c.run_uuid == run_id)).scalar()
    if stage is None:
        raise NotFound(f"There is no run {run_id!r}.", fix="`mainspring runs` lists them.")
    if stage != "active":
        raise Conflict(f"Run {run_id!r} is {stage}.", fix=f"restore it first: `mlflow runs restore --run-id {run_id}`.")
