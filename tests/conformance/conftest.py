from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.servers import PostgresServer
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.project.catalog import memory_catalog, open_catalog, schema_of

PROJECT = "conformance"


@pytest.fixture(params=["file", "memory"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Yield an empty catalog on SQLite: once in a file, once in memory."""
    made = memory_catalog()
    if request.param == "file":  # a copy: running the migrations on a file for each test would take long
        file = tmp_path / "catalog.db"
        with made.connect() as connection:
            connection.exec_driver_sql(f"VACUUM INTO '{file}'")
        made.dispose()
        made = open_catalog(Url(f"sqlite:///{file}"), MemoryLocks())
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def migrated(postgres_server: PostgresServer) -> Iterator[sa.Engine]:
    made = open_catalog(postgres_server.url, MemoryLocks(), PROJECT)
    yield made
    made.dispose()


@pytest.fixture
def engine(migrated: sa.Engine, postgres_server: PostgresServer) -> sa.Engine:
    """Return an empty catalog on Postgres, in a schema of its own."""
    postgres_server.emptied(schema_of(PROJECT))
    return migrated
