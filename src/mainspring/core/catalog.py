"""The catalog: small tables of mutable records (keys, tags, aliases, routes). SQLAlchemy Core over SQLite or Postgres.

Each package describes its own tables on `metadata` in its `adapters/`; `project` opens the engine and migrates it.
Only adapters import this module: it brings SQLAlchemy.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from mainspring.core.errors import Corrupt, Denied, MainspringError, MissingExtra, StorageFull, Unavailable
from mainspring.core.files import is_full

metadata = sa.MetaData()
SCHEMA = "mainspring"
_POSTGRES = "postgresql+psycopg"
_LOCK_S = 10
_DISK_FULL, _NO_RIGHT, _READ_ONLY = "53100", "42501", "25006"  # Postgres's SQLSTATE


def sqlalchemy_url(text: str) -> sa.URL:
    """Return a backend's address as a SQLAlchemy URL; every spelling of Postgres selects psycopg 3."""
    scheme, separator, rest = text.partition("://")
    return sa.make_url(f"{_POSTGRES}{separator}{rest}" if scheme in ("postgresql", "postgres") else text)


def open_engine(url: str, schema: str = SCHEMA) -> CatalogEngine:
    """Return an engine; both kinds wait 10 s for a lock.

    SQLite gets WAL, foreign keys and full durability. In memory it has one connection, for which threads wait: a thread
        that holds it must not request another. On Postgres all tables are in `schema`, which separates projects in one
        database, and the catalog from MLflow's store. No connection is made yet.

    Raises:
        Corrupt: The SQLite file is not a database.
        MissingExtra: The driver is not installed.
    """
    parsed = sqlalchemy_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    try:
        engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args=patience(parsed))
    except ModuleNotFoundError as error:
        raise MissingExtra("A catalog, or runs, on Postgres", "postgres") from error
    quoted = engine.dialect.identifier_preparer.quote_identifier(schema)

    @event.listens_for(engine, "connect", insert=True)  # before SQLAlchemy reads the default schema
    def configure(connection: Any, _record: object) -> None:
        connection.autocommit = True  # a rollback would undo a setting made in a transaction
        connection.execute(f"SET search_path TO {quoted}")
        connection.execute(f"SET lock_timeout TO '{_LOCK_S}s'")
        connection.autocommit = False

    return CatalogEngine(engine)


def patience(url: sa.URL) -> dict[str, str]:
    """Return default time-outs of libpq for an address without any."""
    given = {"application_name": "mainspring", "connect_timeout": "5", "tcp_user_timeout": "10000"}
    return {name: value for name, value in given.items() if name not in url.query}


def _open_sqlite(parsed: sa.URL) -> CatalogEngine:
    in_memory = parsed.database in (None, "", ":memory:")
    pool: dict[str, Any] = {}
    if (
        in_memory
    ):  # the database exists only in its connection, and a transaction belongs to one thread: threads take turns
        pool = {"poolclass": sa.pool.QueuePool, "pool_size": 1, "max_overflow": 0}
    else:
        path = Path(str(parsed.database))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_not_deleted(path, f"The catalog {path}")
        path.touch(mode=0o600)
    engine = sa.create_engine(parsed, connect_args={"timeout": float(_LOCK_S), "check_same_thread": False}, **pool)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    with catalog_errors(str(parsed.database)), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1 FROM sqlite_master LIMIT 1"))
    return CatalogEngine(engine)


def check_not_deleted(path: Path, what: str) -> None:
    """Raise if a SQLite file is missing but its log exists: it was deleted while a process wrote to it.

    A new file of that name would use the old log and contain the rows of both
    (https://www.sqlite.org/howtocorrupt.html, section 1.4).

    Raises:
        Unavailable: It was deleted.
    """
    log = path.with_name(f"{path.name}-wal")
    # Check the log first: a process that creates the file creates its log afterwards.
    if log.is_file() and log.stat().st_size and not path.exists():
        raise Unavailable(
            f"{what} is missing: only its log {log.name} exists.",
            fix=f"move {log} away; then restore {path.name} from a backup, or start without its content.",
        )


def upsert(engine: sa.Engine, table: sa.Table, keys: Sequence[str], changed: Sequence[str]) -> Any:
    """Return an INSERT that updates the columns `changed` if a row with these `keys` exists.

    Both dialects have the same syntax, but SQLAlchemy has a construct for each. Two processes that insert the same row
    wait for each other; with UPDATE and then INSERT one of them would fail.
    """
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(table)
    return insert.on_conflict_do_update(index_elements=keys, set_={name: insert.excluded[name] for name in changed})


class CatalogEngine(sa.Engine):
    """An engine whose transactions are one within `together`, for the thread that opened it."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine.pool, engine.dialect, engine.url)
        self._local = threading.local()

    @property
    def shared(self) -> _Shared | None:
        """The transaction of this thread, `None` outside `together`."""
        found: _Shared | None = getattr(self._local, "shared", None)
        return found

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        shared = self.shared
        if shared is None:
            with super().begin() as connection:
                yield connection
        else:
            with shared.connection.begin_nested():
                yield shared.connection

    def connect(self) -> Any:
        shared = self.shared
        return super().connect() if shared is None else nullcontext(shared.connection)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Context in which all that this thread writes takes effect at its end, or, after an exception, not at all.

        On SQLite it excludes other writers from its start. Nothing in it may wait for another thread that writes.
        """
        if self.shared is not None:
            yield
            return
        with super().connect() as connection:
            if self.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            self._local.shared = shared = _Shared(connection)
            try:
                yield
            finally:
                self._local.shared = None
            connection.commit()
        for each in shared.after:
            each()


@dataclass(frozen=True, slots=True)
class _Shared:
    """A transaction, and what is done after its commit."""

    connection: sa.Connection
    after: list[Callable[[], None]] = field(default_factory=list)


def together(engine: sa.Engine) -> AbstractContextManager[None]:
    """Return `CatalogEngine.together` of an engine.

    Raises:
        TypeError: The engine is not that of a catalog.
    """
    if not isinstance(engine, CatalogEngine):
        raise TypeError("The engine was not opened by open_engine.")
    return engine.together()


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Context of a transaction, committed at its end, that on SQLite excludes other writers from its start: what it
    reads stays valid.
    """
    if isinstance(engine, CatalogEngine) and engine.shared is not None:
        with engine.begin() as connection:
            yield connection
        return
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def after_commit(engine: sa.Engine, do: Callable[[], None]) -> None:
    """Call a function once this thread's transaction is committed: now, unless it is within `together`."""
    if isinstance(engine, CatalogEngine) and engine.shared is not None:
        engine.shared.after.append(do)
    else:
        do()


def keep_writers_out(connection: sa.Connection, table: sa.Table) -> None:
    """Block other writers of the table until this transaction ends; reads continue. On SQLite it does nothing, because
    a transaction's first write already blocks all other writers.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE"))


@contextmanager
def catalog_errors(name: str, what: str = "catalog") -> Iterator[None]:
    """Translate the driver's errors inside the block to ours: damaged, full, locked, or not responding.

    Args:
        name: Name of the database.
        what: Description of the database for the message.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _translated(error, f"{what} {name}", Path(name.removeprefix("sqlite:///")).parent) from error


def _translated(error: sa.exc.DBAPIError, which: str, folder: Path) -> MainspringError:
    code = getattr(error.orig, "sqlite_errorcode", None)
    state = getattr(error.orig, "sqlstate", None) or ""
    said = (str(error.orig).strip().splitlines() or [""])[0].rstrip(".")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return Corrupt(f"The {which} is damaged: {said}.", fix="run `mainspring doctor`, or restore it from a backup.")
    partly = code is not None and code & 0xFF == sqlite3.SQLITE_IOERR and is_full(folder)
    if code == sqlite3.SQLITE_FULL or partly or state == _DISK_FULL:
        return StorageFull(f"No space left for the {which}.", fix="free some space and run the command again.")
    if state in (_NO_RIGHT, _READ_ONLY):
        return Denied(
            f"The {which} refused: {said}.",
            authenticated=True,
            fix="run `mainspring profile check` to see which permissions its user lacks.",
        )
    if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            f"The {which} is locked by another process.",
            fix="end that process, or find it by `fuser` on the file; then run the command again.",
        )
    if code == sqlite3.SQLITE_READONLY:
        return Denied(
            f"The {which} cannot be written: {said}.",
            fix="run as the owner of the project's folder, and make the folder writable.",
        )
    return Unavailable(
        f"The {which} did not respond: {said}.",
        fix="run the command again once it responds; `mainspring profile check` tests every backend of the profile.",
    )
