"""Dataset commits: what they name stays readable, whatever is deleted."""

from pathlib import Path

import pyarrow as pa
import pytest

from mainspring.core.errors import NotFound
from mainspring.core.time import ManualClock
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.commits import commit, vacuum, version_of
from mainspring.data.conformance import SCHEMA, read, table
from mainspring.data.model import BATCH
from mainspring.data.ports import LakeTables
from mainspring.project.catalog import memory_catalog


@pytest.fixture(params=["memory", "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LakeTables:
    return MemoryLake() if request.param == "memory" else DeltaLake(tmp_path)


def write(lake: LakeTables, number: int, name: str = "flights") -> None:
    rows = table((number, 0.0, "x", 0, True)).append_column(BATCH, pa.array([f"{number}"]))
    lake.replace(name, rows.to_batches(), rows.schema, key=f"{number}")


def test_a_commit_names_a_version_of_every_table(lake: LakeTables) -> None:
    snapshots, clock = CatalogSnapshots(memory_catalog()), ManualClock(5)
    empty = commit(lake, snapshots, clock, "nothing yet")
    assert (empty.versions, empty.parent, empty.at) == ({}, None, 5)
    write(lake, 0)
    write(lake, 0, "weather")
    write(lake, 1)
    made = commit(lake, snapshots, clock, "first")
    assert (made.versions, made.parent, made.message) == ({"flights": 1, "weather": 0}, empty.id, "first")
    assert snapshots.log() == [made, empty]
    assert version_of(made, "weather") == 0
    with pytest.raises(NotFound, match="'planes'"):
        version_of(made, "planes")


def test_where_nothing_changed_there_is_no_new_commit(lake: LakeTables) -> None:
    snapshots, clock = CatalogSnapshots(memory_catalog()), ManualClock()
    write(lake, 0)
    first = commit(lake, snapshots, clock, "first")
    clock.advance(9)
    assert commit(lake, snapshots, clock, "again") == first
    lake.append("flights", [], SCHEMA, key="0")  # a write that was there already
    assert commit(lake, snapshots, clock, "again") == first
    write(lake, 1)
    second = commit(lake, snapshots, clock, "second")
    assert second.parent == first.id
    assert len(snapshots.log()) == 2


def test_an_id_says_content_and_parent_alone() -> None:
    made = []
    for at in (1, 2):
        lake, snapshots = MemoryLake(), CatalogSnapshots(memory_catalog())
        write(lake, 0)
        made.append(commit(lake, snapshots, ManualClock(at), f"at {at}"))
        write(lake, 1)
        made.append(commit(lake, snapshots, ManualClock(at)))
    assert made[0].id == made[2].id
    assert made[1].id == made[3].id
    assert made[0].id != made[1].id


def test_vacuum_keeps_what_tags_and_the_newest_commit_name(lake: LakeTables) -> None:
    snapshots, clock = CatalogSnapshots(memory_catalog()), ManualClock()
    commits = []
    for number in range(5):
        write(lake, number)
        write(lake, number, "weather")
        commits.append(commit(lake, snapshots, clock, f"{number}"))
    write(lake, 5)
    snapshots.tag("trained", commits[1].id)
    would = vacuum(lake, snapshots, dry_run=True)
    assert would == {"flights": 3, "weather": 3}
    assert vacuum(lake, snapshots) == would
    assert vacuum(lake, snapshots) == {"flights": 0, "weather": 0}
    assert [read(lake, "flights", version)[0][0] for version in (1, 4, 5)] == [1, 4, 5]
    for version in (0, 2, 3):
        with pytest.raises(NotFound):
            lake.scan("flights", version)
    snapshots.untag("trained")
    assert vacuum(lake, snapshots) == {"flights": 1, "weather": 1}


def test_vacuum_deletes_what_nobody_needs_at_all(tmp_path: Path) -> None:
    lake, snapshots = DeltaLake(tmp_path), CatalogSnapshots(memory_catalog())
    write(lake, 0)
    changed = tmp_path / "flights" / "_change_data"
    changed.mkdir()
    garbage = [tmp_path / "flights" / "part-of-a-killed-writer.parquet", changed / "cdc.parquet"]
    for path in garbage:
        path.write_bytes(b"PAR1")
    assert vacuum(lake, snapshots) == {"flights": 2}
    assert [path for path in garbage if path.exists()] == []
    assert pa.table({"n": [len(read(lake, "flights"))]})["n"].to_pylist() == [1]


def test_a_tag_on_what_is_gone_stops_the_vacuum(lake: LakeTables) -> None:
    snapshots, clock = CatalogSnapshots(memory_catalog()), ManualClock()
    for number in range(3):
        write(lake, number)
        commit(lake, snapshots, clock)
    vacuum(lake, snapshots)
    snapshots.tag("too-late", snapshots.log()[-1].id)
    write(lake, 3)
    if isinstance(lake, DeltaLake):
        with pytest.raises(NotFound, match="does not have version 0"):
            vacuum(lake, snapshots)
    assert read(lake, "flights", 2)
