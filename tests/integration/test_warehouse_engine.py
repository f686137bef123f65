"""Features that the profile's warehouse reads, for a read, a training and its reproduction, are those of the lake."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tempfile
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.depot import MODEL, TOML, Depot, lay_out
from kit.depth import DEEP
from kit.object_store import s3_server, s3_url
from mainspring.core.errors import Conflict, Invalid, MainspringError
from mainspring.core.ids import new_id
from mainspring.core.settings import Url
from mainspring.data import duck
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.data.warehouse.ports import UnloadedFile
from mainspring.operations.backup.stores import open_objects
from mainspring.operations.features import unloading
from mainspring.operations.features.choosing import choose
from mainspring.operations.features.unloading import MANIFEST, UNFINISHED, Manifest, by_warehouse, unload
from mainspring.operations.opened import OpenedProject
from mainspring.operations.reproduce.child import stored_as_recorded
from mainspring.operations.train import train

__all__ = ["s3_server", "s3_url"]

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
        con.execute(
            "CREATE TABLE raw.moments AS SELECT hub, scanned_at + n * INTERVAL 1 SECOND AS moment "
            "FROM raw.hub_scans, range(3) AS r (n)"
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


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address that has nothing yet."""
    return str(tmp_path / "unloaded") if request.param == "folder" else request.getfixturevalue("s3_url").text


def read_back(target: str, made: Manifest) -> pa.Table:
    """The rows of all files that a manifest names, after their digests."""
    objects = open_objects(target)
    assert msgspec.json.decode(objects.get(MANIFEST), type=Manifest) == made
    assert {*objects.names("")} == {MANIFEST, *(each.name for each in made.files)}
    contents = {each: objects.get(each.name) for each in made.files}
    assert all(hashlib.sha256(content).hexdigest() == each.sha256 for each, content in contents.items())
    return pa.concat_tables(pq.read_table(io.BytesIO(content)) for content in contents.values())


def test_an_unload_has_the_rows_of_the_lake(project: OpenedProject, target: str) -> None:
    choice = choose(project.services.definitions, MODEL)
    made = unload(project.services, choice, target, until=UNTIL)
    found = read_back(target, made).sort_by("_at")
    wanted = project.training_set(MODEL, until=UNTIL, as_="arrow", progress=False).sort_by("_at")
    same(found.select(wanted.column_names).cast(wanted.schema), wanted)
    with pytest.raises(Conflict, match="has an unload already"):
        unload(project.services, choice, target, until=UNTIL)

    objects = open_objects(target)
    objects.put(UNFINISHED, b"{}")  # killed before it removed this, or, without the manifest, earlier
    with pytest.raises(Conflict, match="has an unload already"):
        unload(project.services, choice, target, until=UNTIL)
    objects.put(UNFINISHED, b"{}")
    objects.remove(MANIFEST)
    again = unload(project.services, choice, target, until=UNTIL)
    assert read_back(target, again).num_rows == wanted.num_rows
    assert not {each.name for each in again.files} & {each.name for each in made.files}

    objects.remove(MANIFEST)
    objects.put("notes.txt", b"mine")
    with pytest.raises(Conflict, match=r"has \d+ files, such as"):
        unload(project.services, choice, target, until=UNTIL)
    objects.put(UNFINISHED, b"{}")
    with pytest.raises(Conflict, match=r"another file, notes\.txt"):
        unload(project.services, choice, target, until=UNTIL)
    assert objects.get("notes.txt") == b"mine"


class ToBucket(DuckdbWarehouse):
    """One that writes to a bucket by itself, as servers do."""

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        objects, below = open_objects(to.text), new_id()
        with tempfile.TemporaryDirectory() as folder:
            written = super().unload(statement, Url(f"file://{folder}"))
            for number, each in enumerate(written):
                objects.put(f"{below}/{number}.parquet", Path(each.at).read_bytes())
        base = to.text.partition("?")[0].rstrip("/")
        return [
            UnloadedFile(f"{base}/{below}/{n}.parquet", file.rows, file.size_bytes) for n, file in enumerate(written)
        ]


def test_files_that_the_warehouse_wrote_are_named_by_their_place(project: OpenedProject, s3_url: Url) -> None:
    services = project.services
    there = ToBucket(services.settings.root / "there.duckdb")
    parts = by_warehouse(there, "SELECT * FROM raw.moments", s3_url.text)
    there.close()
    assert {each.name for each in parts} == {*open_objects(s3_url.text).names("")}
    assert sum(each.rows for each in parts) == there_rows(services.settings.root)
    assert all(each.sha256 is None and each.bytes > 100 for each in parts)


def there_rows(root: Path) -> int:
    with duckdb.connect(str(root / "there.duckdb"), read_only=True) as con:
        return int(con.execute("SELECT count(*) FROM raw.moments").fetchall()[0][0])


def test_observations_can_be_a_table_there(
    project: OpenedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unloading, "_PART_BYTES", 20_000)
    monkeypatch.setattr(duck, "BATCH_ROWS", 2048)
    choice = choose(project.services.definitions, "HubLoad")
    made = unload(project.services, choice, str(tmp_path), observations="raw.moments", at="moment")
    assert len(made.files) > 2
    found = read_back(str(tmp_path), made)
    labels = found.select(["hub", "moment"])
    wanted = project.training_set("HubLoad", labels, at="moment", as_="arrow", progress=False)
    same(found.select(wanted.column_names).cast(wanted.schema), wanted)
    for given, told in (
        ({}, "HubLoad needs rows to read"),
        ({"observations": "raw.moments"}, "column of the instants of raw.moments is not named"),
        ({"observations": "raw.moments", "at": "when"}, "no column 'when'"),
        ({"observations": "raw.moment", "at": "when"}, "no table 'raw.moment'"),
        ({"observations": "raw.moments", "at": "hub"}, "is read as string, not as"),
    ):
        with pytest.raises(MainspringError, match=told):
            unload(project.services, choice, str(tmp_path / "new"), **given)
    assert not (tmp_path / "new").exists()


def test_a_training_there_says_so(depot: Depot, project: OpenedProject) -> None:
    report = train(project.services, MODEL, until=UNTIL, engine="warehouse")
    run = project.services.tracking.get(report.run_id)
    assert run.tags["features_engine"] == "warehouse"
    assert run.tags["warehouse"].startswith("duckdb:")
    assert run.tags["warehouse_as_of"] == "none"
    assert len(run.tags["warehouse_statement"]) == 64
    assert b"hub_scans" in project.services.tracking.artefact(run.id, "features.sql")
    assert any("Features were read in duckdb:" in note for note in report.notes)
    elsewhere = replace(run, tags={**run.tags, "warehouse": "duckdb:///other.duckdb"})
    with pytest.raises(Invalid, match=r"in duckdb:///other\.duckdb, and the profile's warehouse is"):
        stored_as_recorded(project.services, elsewhere)
    dated = stored_as_recorded(project.services, replace(run, tags={**run.tags, "warehouse_as_of": "1700"}))
    assert dated is not None
    view = project.services.definitions.views["HubLoad"]
    with pytest.raises(Invalid, match="'as_of'"):  # so the version is asked for, which DuckDB has not
        dated.check([view], view.columns)
    if DEEP:
        assert report.metrics == pytest.approx(train(project.services, MODEL, until=UNTIL).metrics)
        again = depot.json("reproduce", run.id)
        assert again["same"]
        assert any("have no versions" in note for note in again["notes"])
