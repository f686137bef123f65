"""Checks of backends on this machine: folders, SQLite and LMDB files, memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.ids import new_id
from mainspring.core.settings import Url
from mainspring.project import Project
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.registry import BLOBS

_SCARCE = 1 << 30  # bytes


class Outcome(msgspec.Struct, frozen=True):
    """Outcome of one check of one backend."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """Subject of a check: a setting of a project's profile, and its address."""

    project: Project
    part: str
    url: Url


def memory(_: Backend) -> Iterator[Outcome]:
    """Check an in-memory adapter, which always works but keeps nothing."""
    yield Outcome("reachable", True, "in memory: lost when the process ends, and not shared", "use it for tests only")


def folder(at: Backend) -> Iterator[Outcome]:
    """Check a folder: it exists or can be created, is writable, and has free space."""
    path = at.url.path
    if path.exists() and not path.is_dir():
        yield Outcome(
            "reachable", False, f"{path} is not a folder", f"move it away, or correct `{at.part}` in the profile"
        )
        return
    existing = _nearest(path)
    yield Outcome("reachable", True, "is there" if existing == path else f"will be created in {existing}")
    yield from _writable(existing)
    tables = ""
    if at.part == "lake":
        tables = f"{len(at.project.lake.tables())} tables" if existing == path else "no tables yet"
    elif at.part == "blobs":
        tables = f"{len(all_blobs(at.project))} bundles" if existing == path else "no bundles yet"
    if tables:
        yield Outcome("schema", True, tables)


def sqlite(at: Backend) -> Iterator[Outcome]:
    """Check a SQLite file: intact, of a known version, writable."""
    path = at.url.path
    if not path.exists():
        parent = _nearest(path.parent)
        yield Outcome("reachable", True, f"does not exist yet; the first command creates it in {parent}")
        yield from _writable(parent)
        return
    try:
        # Read-only: nothing is created or migrated.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = _sqlite_version(connection)
    except sqlite3.Error as error:
        yield Outcome("reachable", False, f"{path}: {error}", f"restore {path} from a backup")
        return
    if check != "ok":
        yield Outcome("reachable", False, f"{path} is damaged: {check}", "restore it from a backup")
        return
    yield Outcome("reachable", True, "exists, and is intact")
    yield Outcome("version", True, f"SQLite {sqlite3.sqlite_version}")
    if not os.access(path, os.W_OK):
        yield Outcome("rights", False, f"{path} is not writable", "run as its owner: `chmod u+rw` it")
    else:
        yield from _writable(path.parent)
    if at.part == "catalog":
        yield catalog_schema(version)
    elif at.part == "tracking":
        yield mlflow_schema(version, at.url.shown)


def lmdb(at: Backend) -> Iterator[Outcome]:
    """Check an LMDB folder."""
    if not at.url.path.exists():
        there = _nearest(at.url.path.parent)
        yield Outcome("reachable", True, f"does not exist yet; the first command creates it in {there}")
        yield from _writable(there)
        return
    yield from probed(at.project.online)


def other(at: Backend) -> Iterator[Outcome]:
    """Check that a backend from an entry point can be built."""
    attribute = {"blobs": "bundles", "ledger": "predictions", "catalog": "key_store"}.get(at.part, at.part)
    getattr(at.project, attribute)
    yield Outcome("reachable", True, "its adapter was built; no further check is available")


def probed(store: Any) -> Iterator[Outcome]:
    """Check that an online store can write, read and clear a state."""
    from mainspring.features.model import EntityState

    view, state = f"mainspring.probe-{new_id()}", EntityState(1, b"probe")
    store.ping()
    yield Outcome("reachable", True, "answers")
    try:
        store.write(view, [(b"probe", state)])
        given = store.read([(view, b"probe")])
    finally:
        store.clear(view)
    well = given == [state] and view not in store.views()
    yield Outcome("rights", well, "a state was written, read and removed" if well else "did not return a written state")
    yield Outcome("schema", True, f"{len(store.views())} views have states")


def catalog_schema(version: str | None) -> Outcome:
    """Compare the version of a catalog's tables with this package's."""
    from mainspring.project.catalog import HEAD

    if version is None:
        return Outcome("schema", True, f"no tables yet; the first command creates them ({HEAD})")
    if version == HEAD:
        return Outcome("schema", True, f"tables of this version ({HEAD})")
    if version < HEAD:
        return Outcome("schema", True, f"{version}; the next command migrates it to {HEAD}", "make a backup first")
    return Outcome(
        "schema", False, f"{version}, from a newer version than this one ({HEAD})", "install the version that wrote it"
    )


def mlflow_schema(version: str | None, shown: str) -> Outcome:
    """Compare the version of MLflow's tables with the installed MLflow's, without importing it."""
    from importlib.util import find_spec

    spec = find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        return Outcome("schema", False, "MLflow is not installed", "pip install 'mainspring[local]'")
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    migrations = Path(next(iter(spec.submodule_search_locations))) / "store" / "db_migrations"
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    if version is None:
        return Outcome("schema", True, f"no tables yet; the first run creates them ({head})")
    if version == head:
        return Outcome("schema", True, f"tables of the installed MLflow ({head})")
    migratable = any(script.revision == version for script in scripts.walk_revisions())
    fix = (
        f"make a backup, then run `mlflow db upgrade` on {shown}"
        if migratable
        else "install the MLflow version that created it"
    )
    return Outcome("schema", False, f"MLflow's tables are of {version}, the installed MLflow needs {head}", fix)


def all_blobs(project: Project) -> list[str]:
    """Return the digests of the profile's bundles."""
    blobs = build("blobs", BLOBS, Context(project.settings.blobs, project))
    found: list[str] = blobs.all()
    return found


def _nearest(path: Path) -> Path:
    """Return the folder itself, or its nearest existing parent."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _writable(place: Path) -> Iterator[Outcome]:
    probe = place / f".mainspring-probe-{new_id()}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, b"probe")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    except OSError as error:
        yield Outcome(
            "rights",
            False,
            f"{place} is not writable: {error.strerror}",
            "run as the folder's owner, and make the folder writable, with free space",
        )
        return
    yield Outcome("rights", True, "a file was written and removed")
    free = shutil.disk_usage(place).free
    if free < _SCARCE:
        yield Outcome("room", False, f"{free >> 20} MiB are free", "free some space")
    else:
        yield Outcome("room", True, f"{free >> 30} GiB are free")


def _sqlite_version(connection: sqlite3.Connection) -> str | None:
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:  # there is no such table
        return None
    return None if row is None else str(row[0])
