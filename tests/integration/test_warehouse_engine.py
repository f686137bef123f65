"""Features that the profile's warehouse reads, for a read, a training and its reproduction, are those of the lake."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.depot import MODEL, TOML, Depot, lay_out
from kit.depth import DEEP
from mainspring.core.errors import Invalid
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.operations.opened import OpenedProject
from mainspring.operations.train import train

WAREHOUSE = """
[profiles.local.warehouse]
url = "duckdb:///there.duckdb"
tables = { scans = "raw.hub_scans" }
arrivals = { scans = "loaded" }
"""
UNTIL = 4_102_444_800_000_000
ELSEWHERE = {"MAINSPRING_WAREHOUSE_READ_FEATURES": "true"}


def fill(root: Path) -> None:
    """Write the rows of `scans.csv` to a table of DuckDB, as another system would have loaded them."""
    with duckdb.connect(str(root / "there.duckdb")) as con:
        con.execute("SET timezone = 'UTC'")
        con.execute("CREATE SCHEMA raw")
        con.execute(
            "CREATE TABLE raw.hub_scans AS SELECT hub, CAST(backlog AS FLOAT) AS backlog, "
            "CAST(scanned_at AS TIMESTAMPTZ) AS scanned_at, row_number() OVER () AS loaded "
            f"FROM read_csv('{root / 'scans.csv'}', all_varchar = true)"
        )


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Depot:
    root = tmp_path_factory.mktemp("warehouse") / "depot"
    made = lay_out(root)
    (root / "mainspring.toml").write_text(TOML + WAREHOUSE)
    fill(root)
    return made


@pytest.fixture(scope="module")
def project(depot: Depot) -> OpenedProject:
    opened = ms.open(depot.root)
    opened.apply()
    for source in ("posted", "scans", "deliveries"):
        opened.ingest(source, str(depot.root / f"{source}.csv"))
    return opened


def same(one: pa.Table, other: pa.Table) -> None:
    assert one.schema == other.schema
    assert one.num_rows == other.num_rows > 100
    for name in one.column_names:
        for left, right in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True):
            assert left == right or left == pytest.approx(right, rel=1e-9), name


def test_a_read_there_is_the_lakes(depot: Depot, project: OpenedProject, tmp_path: Path) -> None:
    lake, there = tmp_path / "lake.parquet", tmp_path / "there.parquet"
    until = "2100-01-01T00:00:00Z"
    project.write_training_set(MODEL, to=lake, until=until, engine="lake", progress=False)
    ran = depot.run("features", "read", MODEL, "--to", there, "--until", until, "--json", environment=ELSEWHERE)
    rows = pq.read_table(lake)
    assert ran.document["engine"] == "warehouse"
    assert any(f"{rows.num_rows:,} observations" in note and "duckdb:" in note for note in ran.document["notes"])
    same(pq.read_table(there), rows)

    labels = rows.select(["hub", "_at"]).rename_columns(["hub", "when"])
    of = ["HubLoad.backlog", "HubLoad.scans_3h"]
    found = project.training_set(of, labels, at="when", engine="warehouse", progress=False)
    assert found.features == tuple(of)
    same(found.to_arrow(), project.training_set(of, labels, at="when", engine="lake", as_="arrow", progress=False))
    assert "Features were read in duckdb:" in repr(found)


def test_a_process_killed_between_load_and_read_leaves_nothing(project: OpenedProject) -> None:
    there = project.services.settings.root / "there.duckdb"
    before = there.read_bytes()
    labels = pa.table({"hub": ["north"], "when": pa.array([1_800_000_000_000_000], pa.timestamp("us", "UTC"))})

    class Killed(DuckdbWarehouse):
        def read(self, _statement: str) -> AbstractContextManager[pa.RecordBatchReader]:
            assert duckdb_tables(self) == 1
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    child = os.fork()
    if not child:
        opened = ms.open(project.services.settings.root)
        vars(opened.services)["warehouse"] = Killed(there, opened.services.settings.state / "tmp")
        opened.training_set("HubLoad", labels, at="when", engine="warehouse", progress=False)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert there.read_bytes() == before
    found = project.training_set("HubLoad", labels, at="when", engine="warehouse", as_="arrow", progress=False)
    assert found.equals(project.training_set("HubLoad", labels, at="when", as_="arrow", progress=False))


def duckdb_tables(warehouse: DuckdbWarehouse) -> int:
    """Number of the tables that are loaded."""
    return len(warehouse._con.execute("SHOW TABLES FROM memory").fetchall())


def test_what_it_cannot_give_is_refused_before_anything_runs(project: OpenedProject) -> None:
    with pytest.raises(Invalid, match="does not know which of its rows 'scans' are"):
        train(project.services, MODEL, engine="warehouse", without=["scans"])
    with pytest.raises(Invalid, match="Each process that trains 'late-parcel' would read") as refused:
        train(project.services, MODEL, engine="warehouse", processes=2)
    assert "--engine lake" in (refused.value.fix or "")
    with pytest.raises(Invalid, match="There is no engine 'spark'"):
        project.training_set(MODEL, engine="spark")


def test_a_training_there_says_so(depot: Depot, project: OpenedProject) -> None:
    report = train(project.services, MODEL, until=UNTIL, engine="warehouse")
    run = project.services.tracking.get(report.run_id)
    assert run.tags["features_engine"] == "warehouse"
    assert run.tags["warehouse"].startswith("duckdb:")
    assert run.tags["warehouse_as_of"] == "none"
    assert len(run.tags["warehouse_statement"]) == 64
    assert b"hub_scans" in project.services.tracking.artefact(run.id, "features.sql")
    assert any("Features were read in duckdb:" in note for note in report.notes)
    if DEEP:
        assert report.metrics == pytest.approx(train(project.services, MODEL, until=UNTIL).metrics)
        again = depot.json("reproduce", run.id)
        assert again["same"]
        assert any("have no versions" in note for note in again["notes"])
