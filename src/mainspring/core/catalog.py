"""The catalog: small tables for whatever moves (keys, tags, aliases, routes). SQLAlchemy Core over SQLite or Postgres.

Each package describes its own tables on `metadata` in its `adapters/`; `app` opens the engine and migrates it.
Only adapters import this module: it brings SQLAlchemy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from mainspring.core.errors import Corrupt, MainspringError, StorageFull, Unavailable

metadata = sa.MetaData()


def open_engine(url: str) -> sa.Engine:
    """Return an engine; SQLite gets WAL, foreign keys, full durability and a 10 s wait for a lock.

    Raises:
        Corrupt: The SQLite file is not a database.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    in_memory = parsed.database in (None, "", ":memory:")
    if not in_memory:
        path = Path(str(parsed.database))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    engine = sa.create_engine(
        parsed,
        connect_args={"timeout": 10.0, "check_same_thread": False},
        poolclass=sa.pool.StaticPool if in_memory else None,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    with catalog_errors(str(parsed.database)), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1 FROM sqlite_master LIMIT 1"))
    return engine


@contextmanager
def catalog_errors(name: str) -> Iterator[None]:
    """Turn the driver's errors inside the block into ours: damaged, full, or not answering."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _translated(error, name) from error


def _translated(error: sa.exc.DBAPIError, name: str) -> MainspringError:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        return Unavailable(f"The catalog {name} did not answer: {error.orig}.")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return Corrupt(
            f"The catalog {name} is damaged: {error.orig}.", fix="run `mainspring doctor`, or restore it from a backup."
        )
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"No space left for the catalog {name}.", fix="free some space and run the command again.")
    return Unavailable(f"The catalog {name} did not answer: {error.orig}.")
