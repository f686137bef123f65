"""Rows of runs from MLflow's tables, limited to the requested columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.mlflow_conditions import TABLES, there
from mainspring.registry.adapters.mlflow_tables import runs
from mainspring.registry.searching import Column, Kind, RunRow

Values = dict[str, dict[str, Any]]  # by run and name


def read_rows(
    connection: sa.Connection, run_ids: Sequence[str], models: Mapping[int, str], columns: Sequence[Column] | None
) -> dict[str, RunRow]:
    """Return run id -> row for the runs that exist, with their values in `columns`; None means all columns."""
    if not run_ids:
        return {}
    known = (runs.c.lifecycle_stage == "active", runs.c.experiment_id.in_(list(models)))
    there_are = connection.execute(sa.select(runs).where(runs.c.run_uuid.in_(run_ids), *known)).all()
    ids = [run.run_uuid for run in there_are]
    has = {kind: _values(connection, kind, ids, columns) for kind in TABLES}
    return {
        run.run_uuid: RunRow(
            id=run.run_uuid,
            name=run.name or "",
            model=models[run.experiment_id],
            status=run.status or "",
            started_at=(run.start_time or 0) * MILLISECOND,
            ended_at=None if run.end_time is None else run.end_time * MILLISECOND,
            metrics=has[Kind.METRIC][run.run_uuid],
            params=has[Kind.PARAM][run.run_uuid],
            tags=has[Kind.TAG][run.run_uuid],
        )
        for run in there_are
    }


def _values(connection: sa.Connection, kind: Kind, ids: Sequence[str], columns: Sequence[Column] | None) -> Values:
    found: Values = {run_id: {} for run_id in ids}
    names = None if columns is None else [column.name for column in columns if column.kind is kind]
    if names == [] or not ids:
        return found
    table = TABLES[kind]
    value: Any = table.c.value
    if kind is Kind.METRIC:
        value = sa.case((there(table), table.c.value), else_=None)
    wanted = sa.select(table.c.run_uuid, table.c.key, value)
    if names is None:
        wanted = wanted.where(table.c.run_uuid.in_(ids))
    else:
        # As pairs: with two separate lists SQLite uses an index on the names alone, and reads every run that has them.
        pairs = [(name, run_id) for name in names for run_id in ids]
        wanted = wanted.where(sa.tuple_(table.c.key, table.c.run_uuid).in_(pairs))
    nothing = math.nan if kind is Kind.METRIC else None
    for run_id, name, each in connection.execute(wanted).all():
        told = nothing if each is None else each
        if told is not None:
            found[run_id][name] = told
    return found
