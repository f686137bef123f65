"""Runs and versions as a store of MLflow, which plain MLflow reads from the folder that it is in."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from mainspring.core.settings import Url
from mainspring.operations.leaving.folder import ExportFolder
from mainspring.project import Project
from mainspring.project.backends.registry import make_tracking_tables

FOLDER, STORE, ARTEFACTS = "mlflow", "mlflow/mlflow.db", "artifacts"
_PAGES = 1_000  # of a database, copied at once
# Table -> its column with the place of files. Places are absolute in the project, and relative in the export.
_PLACES = {"runs": "artifact_uri", "experiments": "artifact_location", "logged_models": "artifact_location"}
_DECISIVE = ("runs", "registered_models", "metrics")


def write_runs(project: Project, folder: ExportFolder, told: Callable[[float, float | None, str], None]) -> None:
    """Write the store of runs and versions as one SQLite database, and the files of runs beside it."""
    at = project.settings.tracking
    if at.scheme == "memory":
        folder.leave_out(STORE, "the profile keeps runs in memory, where they end with the process")
        return
    if at.scheme == "sqlite" and not at.path.exists():
        folder.leave_out(STORE, "there are no runs yet")
        return
    artefacts = project.settings.state / "artefacts"

    def make(path: Path) -> None:
        _copy(at, path, told)
        with closing(sqlite3.connect(path)) as connection:
            _move(connection, artefacts)

    told(0, None, STORE)
    folder.made(STORE, "Runs, metrics, parameters, tags, versions and aliases: MLflow's tables in SQLite", make)

    def files() -> Iterator[tuple[str, str, Path]]:
        for path in _files(artefacts):
            name = path.relative_to(artefacts).as_posix()
            told(0, None, name)
            yield f"{FOLDER}/{ARTEFACTS}/{name}", f"File of run {_run_of(name)}", path

    folder.copy(files())


def _copy(at: Url, to: Path, told: Callable[[float, float | None, str], None]) -> None:
    """Copy the tables of one moment to a new SQLite file, in the form of the installed MLflow."""
    there = Url(f"sqlite:///{to}")
    if at.scheme == "sqlite":
        with (
            closing(sqlite3.connect(f"file:{at.path}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            source.backup(
                target, pages=_PAGES, progress=lambda _, left, total: told(total - left, total, f"{total - left} pages")
            )
        make_tracking_tables(there)
        return
    from mainspring.operations.migrate.sql import move_tables, opened

    make_tracking_tables(there)
    with opened(at) as source, opened(there) as target:
        snapshot = source.execution_options(isolation_level="REPEATABLE READ")
        move_tables(snapshot, target, "the runs and versions", decisive=_DECISIVE, step=told)


def _move(connection: sqlite3.Connection, artefacts: Path) -> None:
    """Name the places of files as they are in the export, and put all into one file."""
    for table, column in _PLACES.items():
        for before in (f"file://{artefacts}", str(artefacts)):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (ARTEFACTS, len(before) + 1, len(before), before),
            )
    place = "'../models/' || name || '/' || version"
    connection.execute(
        f"UPDATE model_versions SET source = {place}, storage_location = {place} WHERE source LIKE 'bundle:%'"
    )
    connection.commit()
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("VACUUM")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without following links. A name that begins with a dot is no artefact."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and not path.is_symlink():
                yield path


def _run_of(name: str) -> str:
    parts = name.split("/")
    return parts[1] if len(parts) > 1 else ""
