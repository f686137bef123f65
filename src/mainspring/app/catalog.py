"""The catalog, opened and brought to this version's schema by alembic."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, open_engine
from mainspring.core.errors import Conflict, MissingExtra
from mainspring.core.locks import Locks
from mainspring.core.settings import Url

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0002"  # the newest file in migrations/versions; a test holds them together


def open_catalog(url: Url, locks: Locks) -> sa.Engine:
    """Return an engine on the catalog, its tables as this version of the package needs them.

    A catalog that is up to date is recognised without importing alembic.

    Raises:
        Corrupt: The file is no database.
        Conflict: A newer version of the package has migrated it.
        MissingExtra: It must be migrated and alembic is not installed.
    """
    engine = open_engine("sqlite://" if url.scheme == "memory" else url.text)
    with catalog_errors(url.text):
        if _version(engine) != HEAD:
            with locks.hold("catalog"):
                _migrate(engine, url)
    return engine


def _version(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)


def _migrate(engine: sa.Engine, url: Url) -> None:
    try:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory
    except ModuleNotFoundError as error:
        raise MissingExtra("Creating or migrating the catalog", "local") from error
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    found = _version(engine)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise Conflict(
            f"The catalog {url.text} has the schema {found}, which this version of mainspring does not know.",
            fix="install the version of mainspring that wrote it, or a newer one.",
        )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
