"""Names of metrics, parameters and tags in MLflow's tables, of which there may be tens of thousands."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from mainspring.registry.adapters.mlflow_conditions import TABLES
from mainspring.registry.searching import Kind

# Queries for a value that changes with each write to the database; SQLite's is comparable only within a connection.
_VERSION = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT CAST(pg_current_snapshot() AS text)"}


def read_names(connection: sa.Connection, kind: Kind) -> Sequence[str]:
    """Return every name in use. The list is cached with the connection until the database changes."""
    version = connection.scalar(sa.text(_VERSION[connection.dialect.name]))
    kept = connection.info.get(kind)
    if kept is None or kept[0] != version:
        kept = connection.info[kind] = (version, _walked(connection, kind))
    names: Sequence[str] = kept[1]
    return names


def _walked(connection: sa.Connection, kind: Kind) -> Sequence[str]:
    """Return the names by one index look-up each, however many runs have them: DISTINCT would read every row."""
    key = TABLES[kind].c.key
    first = sa.select(sa.func.min(key).label("key")).cte("names", recursive=True)
    another = sa.select(sa.func.min(key)).where(key > first.c.key).scalar_subquery()
    every = first.union_all(sa.select(another).where(first.c.key.is_not(None)))
    return connection.scalars(sa.select(every.c.key).where(every.c.key.is_not(None))).all()


def read_names_of(connection: sa.Connection, kind: Kind, run_ids: Sequence[str]) -> Sequence[str]:
    """Return every name that at least one of these runs has."""
    table = TABLES[kind]
    return connection.scalars(sa.select(table.c.key).where(table.c.run_uuid.in_(run_ids)).distinct()).all()


def read_kinds(connection: sa.Connection, name: str) -> list[Kind]:
    """Return the kinds (metric, parameter, tag) of which a name exists."""
    some = {kind: sa.select(1).select_from(table).where(table.c.key == name).exists() for kind, table in TABLES.items()}
    found = connection.execute(sa.select(*some.values())).one()
    return [kind for kind, is_one in zip(some, found, strict=True) if is_one]
