"""What is particular to the MLflow adapters: silent, private, imported late, quick as it grows."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kit.depth import deep
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.adapters.mlflow_store import analyse, open_store
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.adapters.mlflow_versions import MlflowVersions
from mainspring.registry.model import AliasMove

A, B = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "deep" / "tracking.db"


@pytest.fixture(scope="module")
def tracking(database: Path) -> MlflowTracking:
    return MlflowTracking(f"sqlite:///{database}", database.parent / "runs")


def test_the_files_are_private(tracking: MlflowTracking, database: Path) -> None:
    run_id = tracking.start("late", {}, SECOND)
    tracking.log_artefact(run_id, "environment.json", b"{}")
    files = [path for path in database.parent.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}, files
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700


def test_nothing_lies_about(tracking: MlflowTracking, database: Path) -> None:
    tracking.search()
    names = {path.name for path in database.parent.iterdir()}
    assert names - {f"tracking.db-{end}" for end in ("wal", "shm")} == {"tracking.db", ".tracking.db.lock", "runs"}


def test_a_creation_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "tracking.db"
    (tmp_path / ".tracking.db.partial").write_bytes(b"half a database")
    tracking = MlflowTracking(f"sqlite:///{path}", tmp_path / "runs")
    run_id = tracking.start("late", {}, SECOND)
    assert tracking.get(run_id).status == "RUNNING"
    assert not (tmp_path / ".tracking.db.partial").exists()


def test_a_process_migrates_one_database_alone(tracking: MlflowTracking, tmp_path: Path) -> None:
    """The next one has the same tables, and no runs of the first."""
    tracking.start("late", {}, SECOND)
    asked: list[str] = []

    def ask(*arguments: Any) -> None:
        asked.append(arguments[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", ask)
    try:
        other = MlflowTracking(f"sqlite:///{tmp_path}/tracking.db", tmp_path / "runs")
        assert other.search() == []
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", ask)
    assert asked
    assert [each for each in asked if each.lstrip().startswith(("CREATE TABLE", "ALTER TABLE"))] == []
    assert other.get(other.start("late", {}, SECOND)).status == "RUNNING"


def test_the_database_is_in_wal_mode(tracking: MlflowTracking, database: Path) -> None:
    tracking.search()
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_artefact_lies_where_mlflow_looks_for_it(tracking: MlflowTracking) -> None:
    run_id = tracking.start("late", {}, SECOND)
    tracking.log_artefact(run_id, "environment.json", b"{}")
    folder = Path(tracking._store.get_run(run_id).info.artifact_uri)
    assert (folder / "environment.json").read_bytes() == b"{}"


def test_a_linked_artefact_is_not_read(tracking: MlflowTracking, tmp_path: Path) -> None:
    run_id = tracking.start("late", {}, SECOND)
    tracking.log_artefact(run_id, "plot.png", b"x")
    path = Path(tracking._store.get_run(run_id).info.artifact_uri) / "plot.png"
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(NotFound):
        tracking.artefact(run_id, "plot.png")


@deep
def test_importing_an_adapter_imports_no_mlflow_and_using_it_says_nothing(tmp_path: Path) -> None:
    script = f"""
import json, os, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
tracking = MlflowTracking({f"sqlite:///{tmp_path / 't.db'}"!r}, Path({str(tmp_path / "runs")!r}))
before = "mlflow" in sys.modules
run_id = tracking.start("late", {{}}, 1_000_000)
tracking.log(run_id, metrics=[("auc", 0.5, 0, 1_000_000)])
tracking.finish(run_id, "FINISHED", 2_000_000)
from mlflow.telemetry.utils import is_telemetry_disabled
import threading
print(json.dumps([before, is_telemetry_disabled(), [each.name for each in threading.enumerate()]]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == [False, True, ["MainThread"]]


def test_statistics_are_renewed_as_runs_double(tmp_path: Path) -> None:
    store = open_store(
        "mlflow.store.tracking.sqlalchemy_store", f"sqlite:///{tmp_path / 't.db'}", str(tmp_path / "runs")
    )
    with store.engine.connect() as connection:

        def grow(first: int, last: int) -> None:
            for number in range(first, last):
                connection.exec_driver_sql(
                    "INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage) VALUES (?, 0, 'active')",
                    (f"r{number}",),
                )
            connection.commit()

        grow(0, 63)
        assert not analyse(store.engine, "runs")
        grow(63, 64)
        assert analyse(store.engine, "runs")
        assert not analyse(store.engine, "runs")
        grow(64, 127)
        assert not analyse(store.engine, "runs")
        grow(127, 128)
        assert analyse(store.engine, "runs")


def test_what_is_no_database_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "tracking.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(Corrupt, match=r"tracking\.db"):
        MlflowTracking(f"sqlite:///{path}", tmp_path / "runs").start("late", {}, SECOND)


def test_the_catalogs_own_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    with pytest.raises(Invalid, match=r"catalog\.db"):
        MlflowVersions(url, open_engine(url))


def test_mlflows_own_alias_follows_and_the_catalog_decides(database: Path, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'catalog.db'}")
    metadata.create_all(engine)
    versions = MlflowVersions(f"sqlite:///{database}", engine)
    versions.register("mirrored", A, "run1", {}, SECOND)
    versions.register("mirrored", B, "run2", {}, SECOND)
    versions.set_alias(AliasMove("mirrored", "champion", None, "1", "ana", "", SECOND))
    assert str(versions._store.get_model_version_by_alias("mirrored", "champion").version) == "1"

    versions._store.set_registered_model_alias("mirrored", "champion", "2")  # by MLflow's tools, or a crash between

    assert versions.get("mirrored", "champion").version == "1"
    versions.set_alias(AliasMove("mirrored", "champion", "1", "2", "ana", "", SECOND))
    assert versions.get("mirrored", "champion").version == "2"
