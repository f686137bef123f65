"""Databases of a project as they are at one moment, in files of SQLite, and the folder where these lie for a time."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mainspring.core.files import make_folder
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.sqlite_file import SqliteFile
from mainspring.operations.auditing import audit
from mainspring.operations.migrate.content import Content
from mainspring.operations.migrate.sql import equal_rows, move_tables, opened, others
from mainspring.project import Project
from mainspring.project.backends.registry import make_tracking_tables
from mainspring.project.catalog import open_catalog
from mainspring.project.ledger_folder import lake_digest
from mainspring.project.restoring import SCRATCH, SCRATCH_LOCK

CATALOG, TRACKING = "catalog.db", "tracking.db"
_DECISIVE = ("runs", "registered_models", "metrics")


@contextmanager
def scratch(project: Project) -> Iterator[Path]:
    """Context with an empty folder in the state folder; what a killed process left there is removed."""
    with project.own_locks.hold(SCRATCH_LOCK, wait_s=0):
        folder = project.settings.state / SCRATCH
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def copy_catalog(project: Project, to: Path) -> None:
    """Copy the catalog to a file."""
    if project.settings.catalog.scheme == "sqlite":
        copy_sqlite(project.settings.catalog.path, to)
        return
    target = open_catalog(sqlite(to), MemoryLocks(), project.settings.project)
    try:
        snapshot = project.engine.execution_options(isolation_level="REPEATABLE READ")
        move_tables(snapshot, target, "the catalog", decisive=(), step=_quiet)
    finally:
        target.dispose()


def copy_tracking(project: Project, to: Path) -> None:
    """Copy the runs and versions to a file, if there are any that outlive the process."""
    at = project.settings.tracking
    if at.scheme == "sqlite":
        if at.path.exists():
            copy_sqlite(at.path, to)
    elif at.scheme != "memory":
        make_tracking_tables(sqlite(to))
        with opened(at) as source, opened(sqlite(to)) as target:
            snapshot = source.execution_options(isolation_level="REPEATABLE READ")
            move_tables(snapshot, target, "the runs and versions", decisive=_DECISIVE, step=_quiet)


def copy_sqlite(path: Path, to: Path) -> None:
    """Copy a database in a file, as it is at one moment."""
    errors = SqliteFile(path, what="database", damaged="restore it from a backup.").errors()
    with errors, closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


COPIES: Mapping[str, Callable[[Project, Path], None]] = {CATALOG: copy_catalog, TRACKING: copy_tracking}


def migrate(project: Project, folder: Path) -> None:
    """Migrate the databases of a backup to this version.

    Raises:
        Conflict: A newer version made it.
    """
    with closing(catalog_in(folder, project)) as stored:
        _ = stored.engine
    if (folder / TRACKING).exists():
        make_tracking_tables(sqlite(folder / TRACKING))


def catalog_in(folder: Path, project: Project) -> Project:
    """Return a project whose catalog is that of a backup."""
    return Project(replace(project.settings, catalog=sqlite(folder / CATALOG)))


def used(connection: sa.Connection, tables: Sequence[str]) -> list[str]:
    """Return the tables that have rows."""
    some = {each: sa.select(sa.literal(1)).select_from(sa.table(each)).limit(1) for each in tables}
    return [each for each, query in some.items() if connection.execute(query).first() is not None]


def other_runs(project: Project, stored: Path) -> list[str]:
    """Return the tables in which there are runs or versions, unless they equal those of the backup."""
    at = project.settings.tracking
    if at.scheme == "memory" or (at.scheme == "sqlite" and not at.path.exists()):
        return []
    with opened(at) as target:
        with target.connect() as connection:
            found = used(connection, [each for each in _DECISIVE if sa.inspect(connection).has_table(each)])
        if not found or not stored.exists():
            return found
        make_tracking_tables(at)
        with opened(sqlite(stored)) as source:
            return others(source, target, decisive=_DECISIVE)


def fill_tracking(project: Project, stored: Path) -> tuple[int, int]:
    """Restore runs and versions, unless they are there; return how many rows are equal, read again, and of how many."""
    at = project.settings.tracking
    make_tracking_tables(at)
    with opened(sqlite(stored)) as source, opened(at) as target:
        if _has_all_runs(source, target):
            return equal_rows(source, target)
        return _all_equal(move_tables(source, target, "the runs and versions", decisive=_DECISIVE, step=_quiet))


def fill_catalog(project: Project, folder: Path, lake: str) -> tuple[int, int]:
    """Restore the catalog, unless it is there; return how many rows are equal, read again, and of how many.

    Args:
        lake: Digest of the address of the lake that the backup is of.
    """
    here = lake_digest(project.settings)

    def as_here(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "lake": here} if row.get("lake") == lake else row

    with closing(catalog_in(folder, project)) as stored:
        tree, copied = stored.audit.tree(), project.audit.tree()
        _forget(stored)
        if tree is not None and copied is not None and tree.origin == copied.origin:  # it was killed after this
            return equal_rows(stored.engine, project.engine, as_here)
        return _all_equal(
            move_tables(stored.engine, project.engine, "the catalog", decisive=(), step=_quiet, as_there=as_here)
        )


def _all_equal(read_again: Sequence[Content]) -> tuple[int, int]:
    """Return the numbers of rows of tables that were moved, which raises unless all are equal."""
    rows = sum(each.rows for each in read_again)
    return rows, rows


def _forget(stored: Project) -> None:
    """Destroy in a backup's catalog the keys of who was erased since, and end their holds, which had been released."""
    erased = {*stored.subject_keys.erased_since()}
    with stored.audit.together():
        for each in stored.erasures.holds():
            if each.subject in erased:
                stored.erasures.release(each.subject)
                audit(stored, "subject.release", f"subject/{each.subject.hex()[:16]}", "erased since this backup")
    stored.subject_keys.erased([])


def _has_all_runs(source: sa.Engine, target: sa.Engine) -> bool:
    """Return whether a restore was killed after it had moved the runs; `doctor` may have closed some since."""
    runs: sa.Select[str] = sa.select(sa.column("run_uuid", sa.Text)).select_from(sa.table("runs"))
    with source.connect() as reading, target.connect() as connection:
        stored = {*reading.execute(runs).scalars()}
        return bool(stored) and stored <= {*connection.execute(runs).scalars()}


def sqlite(path: Path) -> Url:
    """Return the address of a file's database."""
    return Url(f"sqlite:///{path}")


def _quiet(_done: float, _total: float | None, _note: str) -> None:
    pass
