"""Opening of MLflow's SQLAlchemy stores: silent, private, and only on first use.

Importing MLflow takes seconds, logs, warns, and would send usage data to its makers; this module suppresses all of
that.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, check_not_deleted, open_engine, sqlalchemy_url
from mainspring.core.environment import set_variable
from mainspring.core.errors import MainspringError, MissingExtra, NotFound, Unavailable, causes
from mainspring.core.files import disk_errors, sync_file, sync_folder
from mainspring.core.garbage import without_collection

ENTITIES = "mlflow.entities"
_LOCK_KEY = 0x6D6C666C6F77  # Mainspring's own key among the advisory locks of a Postgres database
_WHAT = "store of runs"
_importing = threading.Lock()
_created = b""  # a database without runs: MLflow's migrations take half a second


def mlflow(module: str) -> Any:
    """Import one of MLflow's modules with telemetry, logging and warnings turned off, and return it.

    Raises:
        MissingExtra: MLflow is not installed.
    """
    set_variable("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import, which reads both variables
    set_variable("DO_NOT_TRACK", "true")
    with _importing, warnings.catch_warnings(), without_collection():
        warnings.simplefilter("ignore")
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "mlflow":
                raise
            raise MissingExtra("The MLflow store of runs and versions", "local") from error
        logging.getLogger("mlflow").setLevel(logging.CRITICAL + 1)  # it logs every error that it also raises
        return loaded


def open_store(module: str, url: str, *arguments: str) -> Any:
    """Return MLflow's `SqlAlchemyStore` of `module` on `url`. A SQLite file is made private (0600) and uses WAL.

    Raises:
        Corrupt: The SQLite file is not a database.
        StorageFull: No space for it.
    """
    parsed = sqlalchemy_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(str(parsed.database))
        with disk_errors(path):
            create_sqlite(path)
        return _open(module, url, *arguments)
    with _one_at_a_time(parsed):
        return _open(module, parsed.render_as_string(hide_password=False), *arguments)


@contextmanager
def _one_at_a_time(url: sa.URL) -> Iterator[None]:
    """Hold an advisory lock, so that only one process at a time creates MLflow's tables in a Postgres database.

    Fail at once if the server does not answer; MLflow would retry for two minutes.
    """
    engine = open_engine(url.render_as_string(hide_password=False))
    try:
        with catalog_errors(str(url.database), _WHAT), engine.connect() as connection:
            connection.exec_driver_sql("SET lock_timeout TO '600s'")
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
            yield  # the lock ends with the connection, even if the process dies
    finally:
        engine.dispose()


def _open(module: str, url: str, *arguments: str) -> Any:
    store_class = mlflow(module).SqlAlchemyStore
    with _importing, warnings.catch_warnings(), store_errors(url):
        warnings.simplefilter("ignore")
        return store_class(url, *arguments)


def create_sqlite(path: Path) -> None:
    """Create the database if it does not exist: in a temporary file first, because a kill during MLflow's migrations
    corrupts it. A process that creates another database writes the same bytes.
    """
    global _created  # noqa: PLW0603
    if path.exists():
        _use_wal(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.partial")
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # one creator at a time; the kernel releases the lock of a dead one
        if path.exists():
            return
        check_not_deleted(path, f"The store of runs {path}")
        for leftover in path.parent.glob(f"{beside.name}*"):
            leftover.unlink()
        beside.touch(mode=0o600)
        if _created:
            beside.write_bytes(_created)
        else:
            with _temporary_files_in(path.parent), _unsynced(beside):
                store = _open("mlflow.store.model_registry.sqlalchemy_store", f"sqlite:///{beside}")
            store.engine.dispose()
            _created = beside.read_bytes()
        _use_wal(beside)
        sync_file(beside)
        beside.rename(path)
        sync_folder(path.parent)
    finally:
        os.close(descriptor)


@contextmanager
def _unsynced(path: Path) -> Iterator[None]:
    """Turn off SQLite's fsync in the block for a new database that is synced afterwards.

    Each of MLflow's hundred migrations would sync: several seconds of the first command on a slow disk.
    """

    def configure(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            files = [row[2] for row in connection.execute("PRAGMA database_list")]
            if files == [os.path.realpath(path)]:
                connection.execute("PRAGMA synchronous=OFF")

    sa.event.listen(sa.pool.Pool, "connect", configure)
    try:
        yield
    finally:
        sa.event.remove(sa.pool.Pool, "connect", configure)


def _use_wal(path: Path) -> None:
    path.chmod(0o600)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 20.0})
    try:
        with catalog_errors(str(path), _WHAT), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # kept in the file
    finally:
        engine.dispose()


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Make MLflow write its temporary lock file into `folder` inside the block, not outside the project's state."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        for lock in folder.glob("db_init_lock-*"):
            lock.unlink(missing_ok=True)


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Translate MLflow's errors inside the block into Mainspring's: not found, corrupt, full or unavailable."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        _raise(error, url)
    except MainspringError:
        raise
    except Exception as error:
        if type(error).__module__ != "mlflow.exceptions":
            raise
        cause = _database_error(error)
        if cause is not None:
            _raise(cause, url)
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(str(error)) from error
        raise MainspringError(f"MLflow's store rejected the command: {error}") from error


def _database_error(error: BaseException) -> sa.exc.DBAPIError | None:
    return next((each for each in causes(error) if isinstance(each, sa.exc.DBAPIError)), None)


def _raise(error: sa.exc.DBAPIError, url: str) -> None:
    name = str(sa.make_url(url).database)
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        raise gone(name, str(error.orig)) from error
    with catalog_errors(name, _WHAT):
        raise error


def gone(name: str, why: str) -> Unavailable:
    """Return the `Unavailable` for a store that has disappeared or cannot be written."""
    return Unavailable(
        f"The store of runs {name} is missing or not writable: {why}.",
        fix=f"restore it from a backup, after moving {name}-wal away if that exists; or mount its file system. "
        "`mainspring doctor` shows the state of the stores.",
    )


def analyse(engine: sa.Engine, table: str, *, at_least: int = 64) -> bool:
    """Update SQLite's statistics if `table` has doubled since the last time; return whether it did.

    Without statistics, a search ordered by a metric visits every metric of every run.
    """
    if engine.dialect.name != "sqlite":
        return False
    with engine.connect() as connection:
        rows = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
        if rows < at_least or rows < 2 * _analysed_rows(connection, table):
            return False
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    return True


def _analysed_rows(connection: sa.Connection, table: str) -> int:
    try:
        found = connection.execute(sa.text("SELECT stat FROM sqlite_stat1 WHERE tbl = :table"), {"table": table})
        return max((int(stat.split()[0]) for (stat,) in found), default=0)
    except sa.exc.OperationalError:  # never analysed: the statistics table does not exist
        return 0
