"""History of the data between dataset commits, read from the tables' logs alone."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import NotFound
from mainspring.data.arrow import schema_changes
from mainspring.data.model import DatasetCommit, TableVersion
from mainspring.data.ports import LakeTables, Snapshots


@dataclass(frozen=True, slots=True)
class TableChange:
    """Change of one table since the commit before. `before` is None for a new table.

    `rows` and `rows_before` are total row counts, None if no longer known. `schema` has a line for each column that was
    added or removed, or changed its type.
    """

    table: str
    before: int | None
    version: int
    rows_before: int | None
    rows: int | None
    schema: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """A commit with its tags and its changes since the commit before."""

    commit: DatasetCommit
    tags: tuple[str, ...]
    changes: tuple[TableChange, ...]


def log(lake: LakeTables, snapshots: Snapshots, limit: int = 100) -> list[Logged]:
    """Return the commits with their changes, newest first."""
    tags = snapshots.tags()
    return [
        Logged(
            found,
            tuple(tag for tag, target in tags.items() if target == found.id),
            changes(lake, None if found.parent is None else snapshots.get(found.parent), found),
        )
        for found in snapshots.log(limit)
    ]


def changes(lake: LakeTables, before: DatasetCommit | None, after: DatasetCommit) -> tuple[TableChange, ...]:
    """Return the differences between two commits, by table; reads no data file."""
    found = []
    for table, version in sorted(after.versions.items()):
        old = None if before is None else before.versions.get(table)
        if old == version:
            continue
        was = None if old is None else _known(lake, table, old)
        now = _known(lake, table, version)
        schema = schema_changes(was.schema, now.schema) if was is not None and now is not None else ()
        rows_before = 0 if old is None else _rows(was)
        found.append(TableChange(table, old, version, rows_before, _rows(now), schema))
    return tuple(found)


def _known(lake: LakeTables, table: str, version: int) -> TableVersion | None:
    try:
        return lake.describe(table, version)
    except NotFound:
        return None


def _rows(known: TableVersion | None) -> int | None:
    return None if known is None else known.rows
