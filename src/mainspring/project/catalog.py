"""Opening of the catalog, and its migration to this version's schema by alembic."""

from __future__ import annotations

import sqlite3
import threading
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from mainspring.core.catalog import SCHEMA, CatalogEngine, catalog_errors, check_not_deleted, open_engine
from mainspring.core.errors import Conflict, Corrupt, Denied, MissingExtra
from mainspring.core.files import write_once
from mainspring.core.locks import Locks
from mainspring.core.settings import Url
from mainspring.project.tenancy import schema_name

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0045"
_LOCK_KEY = 0x6D61696E7370  # our key among all advisory locks of the database
_MIGRATION_S = 600
_MIGRATING = threading.Lock()  # alembic keeps its state in globals


def open_catalog(url: Url, locks: Locks, project: str = "") -> CatalogEngine:
    """Return an engine on the catalog, migrated to this version of the package.

    An up-to-date catalog is recognised without importing alembic. A new SQLite catalog appears whole, as a copy of what
    the migrations make once per process.

    Args:
        url: Its address; `memory://` is a `memory_catalog`.
        locks: Locks that allow one migration at a time. On Postgres, which several machines can reach, a lock of the
            server is taken as well.
        project: Name of the project. On Postgres each project has its own schema, so that several can share a database.

    Raises:
        Corrupt: The file is not a database, or is empty.
        Conflict: A newer version of the package has migrated it.
        MissingExtra: It must be migrated, and alembic is not installed.
    """
    schema = schema_of(project)
    if url.scheme == "memory":
        return memory_catalog()
    if url.scheme == "sqlite":
        _begin(url.path)
    engine = open_engine(url.text, schema)
    try:
        with catalog_errors(url.shown):
            if version(engine) != HEAD:
                with locks.hold("catalog"):
                    _migrate(engine, url, schema)
    except BaseException:
        engine.dispose()
        raise
    return engine


def memory_catalog() -> CatalogEngine:
    """Return an empty catalog in this process's memory, for tests and experiments. `dispose` deletes it.

    Each is a copy, made in under a millisecond, of what the migrations make once per process. Threads may share it.

    Raises:
        MissingExtra: alembic is not installed.
    """
    engine = open_engine("sqlite://")
    with engine.connect() as connection:
        _driver(connection).deserialize(_migrated_tables())
    return engine


@cache
def _migrated_tables() -> bytes:
    engine = open_engine("sqlite://")
    with _MIGRATING:
        _migrate(engine, Url("memory://"), SCHEMA)
    with engine.connect() as connection:
        tables = _driver(connection).serialize()
    engine.dispose()
    return tables


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _begin(path: Path) -> None:
    """Create a SQLite catalog if it is missing; the file appears whole.

    Raises:
        Corrupt: The file is empty. SQLite would treat it as a new database, without keys and routes.
    """
    check_not_deleted(path, f"The catalog {path}")
    if not path.exists():
        write_once(path, _migrated_tables())
    elif not path.stat().st_size:
        raise Corrupt(
            f"The catalog {path} is empty (0 bytes): its keys, routes and commits are lost.",
            fix=f"restore {path} from a backup; or delete it, to start without its contents.",
        )


def schema_of(project: str) -> str:
    """Return the name of a project's schema on Postgres, at most 63 bytes."""
    return schema_name(SCHEMA, project) if project else SCHEMA


def version(engine: sa.Engine) -> str | None:
    """Return the last migration of the catalog's tables, `None` if there are no tables."""
    with engine.connect() as connection:
        return _version(connection)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _migrate(engine: sa.Engine, url: Url, schema: str) -> None:
    try:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory
    except ModuleNotFoundError as error:
        raise MissingExtra("Creating or migrating the catalog", "local") from error
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            _prepare(connection, schema)
        else:  # otherwise the driver would commit each statement on its own until the first row is written
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        revision = _version(connection)
        if revision is not None and revision not in known:
            raise Conflict(
                f"The catalog {url.shown} has the schema {revision}, which this version of mainspring "
                "does not support.",
                fix="install the version of mainspring that wrote it, or a newer one; or restore the copy from before "
                "the upgrade.",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _prepare(connection: sa.Connection, schema: str) -> None:
    """Wait until no other process migrates a catalog in this database, then create the schema if it is missing.

    The lock ends with the transaction, also if its process dies.
    """
    connection.execute(sa.text(f"SET LOCAL lock_timeout TO '{_MIGRATION_S}s'"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    there = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
    # Checked first: CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it exists.
    if connection.execute(there, {"schema": schema}).first() is None:
        connection.execute(sa.schema.CreateSchema(schema))
        return
    usable = sa.text("SELECT has_schema_privilege(:schema, 'USAGE')")
    if not connection.execute(usable, {"schema": schema}).scalar_one():
        raise Denied(
            f"The catalog's user may not use its schema {schema}: permission denied.",
            authenticated=True,
            fix=f'as its owner: GRANT USAGE ON SCHEMA "{schema}", and on its tables SELECT, INSERT, UPDATE, DELETE.',
        )
