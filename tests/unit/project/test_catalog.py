"""The catalog's migrations: they end where the code says, and make the tables that the adapters describe."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import mainspring.project.definitions.applied  # noqa: F401 (describes its table)
from mainspring.core.catalog import metadata
from mainspring.core.errors import Conflict, Corrupt
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.project.catalog import HEAD, MIGRATIONS, memory_catalog, open_catalog, version

for _package in ("security", "data", "registry", "serving", "monitoring", "delivery", "jobs"):
    importlib.import_module(f"mainspring.{_package}.adapters.catalog")
for _module in (
    "monitoring.adapters.incidents",
    "monitoring.adapters.service",
    "security.adapters.audit",
    "security.adapters.data_keys",
    "security.adapters.erasures",
    "security.adapters.heads",
    "security.adapters.privacy_budgets",
    "security.adapters.sign_ins",
):
    importlib.import_module(f"mainspring.{_module}")
for _module in (
    "data.adapters.pulls_catalog",
    "data.adapters.streams_catalog",
    "cost.adapters.catalog",
    "deploy.adapters.announced_machines",
    "deploy.adapters.deployed_pieces",
    "deploy.adapters.fleet_catalog",
    "ledger.adapters.moved_logs",
    "serving.adapters.stream_states",
    "security.adapters.audit",
    "vectors.adapters.builds",
    "llm.adapters.prompt_versions",
    "llm.adapters.held_calls",
):
    importlib.import_module(f"mainspring.{_module}")


def _url(folder: Path) -> Url:
    return Url(f"sqlite:///{folder / 'catalog.db'}")


def test_head_is_the_newest_migration() -> None:
    newest = max(path.name for path in (MIGRATIONS / "versions").glob("*.py"))
    assert newest.split("_")[0] == HEAD


def test_the_migrated_tables_are_the_described_ones(tmp_path: Path) -> None:
    engine = open_catalog(_url(tmp_path), MemoryLocks())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_catalogs_in_memory_have_the_migrated_tables_and_rows_of_their_own() -> None:
    one, other = memory_catalog(), memory_catalog()
    assert version(one) == version(other) == HEAD
    with one.begin() as connection:
        connection.execute(sa.text("INSERT INTO applied_definitions VALUES ('source', 'orders', '{}', 1)"))
    for catalog, rows in ((one, 1), (other, 0)):
        with catalog.connect() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM applied_definitions")).scalar() == rows
            assert connection.execute(sa.text("PRAGMA foreign_keys")).scalar() == 1
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    first = open_catalog(_url(tmp_path), MemoryLocks())
    with first.begin() as connection:
        connection.execute(sa.text("INSERT INTO applied_definitions VALUES ('source', 'orders', '{}', 1)"))
    again = open_catalog(_url(tmp_path), MemoryLocks())
    with again.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM applied_definitions")).scalar() == 1


def test_a_catalog_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    engine = open_catalog(_url(tmp_path), MemoryLocks())
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="9999"):
        open_catalog(_url(tmp_path), MemoryLocks())
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "9999"


def test_a_catalog_of_no_bytes_is_refused_and_left_alone(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.db"
    open_catalog(_url(tmp_path), MemoryLocks()).dispose()
    catalog.write_bytes(b"")
    with pytest.raises(Corrupt, match=r"catalog\.db is empty") as refused:
        open_catalog(_url(tmp_path), MemoryLocks())
    assert catalog.stat().st_size == 0
    assert "backup" in str(refused.value.fix)


def test_a_new_catalog_never_has_no_bytes(tmp_path: Path) -> None:
    open_catalog(_url(tmp_path), MemoryLocks()).dispose()
    assert (tmp_path / "catalog.db").stat().st_size > 0
    assert (tmp_path / "catalog.db").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.db"]


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"no database" * 100)
    with pytest.raises(Corrupt, match=r"catalog\.db"):
        open_catalog(_url(tmp_path), MemoryLocks())
