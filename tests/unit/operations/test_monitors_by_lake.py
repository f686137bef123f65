"""Profiles that share a catalog and have lakes of their own: what is monitored of one is not taken for another's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mainspring.core.catalog import open_engine
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.model import Checkpoint, Window
from mainspring.operations.migrate.migration import migrate
from mainspring.project import Project, open_project
from mainspring.project.catalog import MIGRATIONS, open_catalog
from mainspring.project.settings import load_settings

TOML = """name = "small"
modules = ["small"]
[profiles.local]
[profiles.other]
lake = "other/lake"
[profiles.moved]
lake = "moved/lake"
catalog = "sqlite:///moved/catalog.db"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text("")
    (tmp_path / "mainspring.toml").write_text(TOML)
    return tmp_path


def opened(root: Path, profile: str) -> Project:
    return open_project(load_settings(root, profile, environment={}))


def window(start: int, predictions: int) -> Window:
    return Window(
        endpoint="late", start=start, end=start + 10, predictions=predictions, p50_ms=None, p99_ms=None, labels=0,
        coverage=0.0, lag_p50_s=None, quality={}, columns=(), versions={},
    )  # fmt: skip


def checkpoint(position: int) -> Checkpoint:
    return Checkpoint(endpoint="late", window_us=10, position=position, until=0, labels=None, tallies=b"", early=False)


def test_windows_and_checkpoints_are_of_one_lake(root: Path) -> None:
    local, other = opened(root, "local").monitors, opened(root, "other").monitors
    local.save([window(10, 1), window(20, 2)], checkpoint(7))
    assert (other.windows("late"), other.checkpoint("late", 10)) == ([], None)
    other.save([window(10, 5)], checkpoint(3))
    assert local.windows("late") == [window(10, 1), window(20, 2)]
    assert local.checkpoint("late", 10) == checkpoint(7)
    assert other.windows("late") == [window(10, 5)]
    assert other.checkpoint("late", 10) == checkpoint(3)


def test_those_of_an_older_catalog_are_of_the_lake_that_goes_on_with_them(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'catalog.db'}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        connection.execute(
            sa.text("INSERT INTO monitor_windows VALUES ('late', 10, 20, :document)"),
            {"document": msgspec.json.encode(window(10, 1))},
        )
        connection.execute(
            sa.text("INSERT INTO monitor_checkpoints VALUES ('late', 10, :document)"),
            {"document": msgspec.msgpack.encode(checkpoint(7))},
        )
    engine.dispose()
    engine = open_catalog(Url(f"sqlite:///{tmp_path / 'catalog.db'}"), MemoryLocks())
    first, second = CatalogMonitors(engine, "first"), CatalogMonitors(engine, "second")
    assert first.checkpoint("late", 10) == checkpoint(7)
    assert first.windows("late") == [window(10, 1)]
    first.save([window(20, 2)])
    assert first.windows("late") == [window(10, 1), window(20, 2)]
    assert first.checkpoint("late", 10) == checkpoint(7)
    assert (second.windows("late"), second.checkpoint("late", 10)) == ([], None)


def test_what_is_migrated_is_of_the_lake_it_came_to(root: Path) -> None:
    source = opened(root, "local")
    source.monitors.save([window(10, 1)], checkpoint(7))
    for _ in range(2):  # the same command again finds it done
        target = opened(root, "moved")
        list(migrate(source, target, lambda *_: None))
        assert target.monitors.windows("late") == [window(10, 1)]
        assert target.monitors.checkpoint("late", 10) == checkpoint(7)
    assert source.monitors.windows("late") == [window(10, 1)]
