"""Each migration of the catalog, from each earlier one, with rows in every table: none is lost and no value changes."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from kit.catalog_rows import columns_of, fill, rows_of
from kit.depth import deep
from kit.servers import PostgresServer
from mainspring.core.catalog import open_engine
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.project.catalog import HEAD, MIGRATIONS, open_catalog, schema_of, version
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.signing import SigningKey
from mainspring.security.verification import verify_log

REVISIONS = sorted(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("*.py"))
# Migration -> columns of a table that it fills anew.
CHANGED = {"0023": {("audit_events", "seq")}}
_TREE = "0023"  # the migration from which on only the log itself appends to its tables
_OF_TREE = {"audit_events", "audit_tree", "audit_subtrees"}
KEY = SigningKey(bytes(range(32)))


def upgrade(engine: sa.Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def climb(engine: sa.Engine) -> None:
    """Migrate from each to the next, comparing every row; a table gets a row in each of its forms."""
    before = columns_of(engine)
    for number, revision in enumerate(REVISIONS, 1):
        kept = {
            table: [each for each in columns if (table, each) not in CHANGED.get(revision, set())]
            for table, columns in before.items()
        }
        rows = rows_of(engine, kept)
        upgrade(engine, revision)
        assert rows_of(engine, kept) == rows, revision
        after = columns_of(engine)
        other = {table for table, columns in after.items() if before.get(table, {}).keys() != columns.keys()}
        fill(engine, number, other - (_OF_TREE if revision >= _TREE else set()))
        before = after


def empty(engine: sa.Engine) -> set[str]:
    """Return the tables without rows."""
    columns = {table: list(each) for table, each in columns_of(engine).items()}
    return {table for table, rows in rows_of(engine, columns).items() if not rows}


def test_every_migration_keeps_every_row_and_value(tmp_path: Path) -> None:
    url = Url(f"sqlite:///{tmp_path / 'catalog.db'}")
    engine = open_engine(url.text)
    climb(engine)
    assert version(engine) == HEAD
    assert empty(engine) == {"audit_subtrees"}
    engine.dispose()
    opened = open_catalog(url, MemoryLocks())
    log = CatalogAuditLog(opened, lambda: KEY)
    assert verify_log(log, KEY.public).events == 1
    opened.dispose()


@deep
def test_every_migration_keeps_every_row_and_value_on_postgres(postgres_server: PostgresServer) -> None:
    schema = schema_of("shop")
    engine = open_engine(postgres_server.fresh().text, schema)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    climb(engine)
    assert version(engine) == HEAD
    assert empty(engine) == {"audit_subtrees"}
    engine.dispose()
