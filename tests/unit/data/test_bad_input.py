"""What goes wrong in the world outside: wrong clocks, full disks, damaged files, rows of nobody."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kit.landing import ROW, Landing
from mainspring.core.errors import Corrupt, InvalidData, StorageFull
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.time import DAY, HOUR, ManualClock, to_datetime
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.commits import commit
from mainspring.data.diff import diff
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, fresh
from mainspring.data.profile import profile
from mainspring.data.restore import restore
from mainspring.project.catalog import memory_catalog
from unit.data.test_delta import big, full_disk

FACTS = Source("facts", schema={"name": String, "number": Int64}, event_time="at")
KEYINGS = {"one": ("name",), "two": ("name", "number")}


def fact(at: Any, name: str | None = "a", number: int | None = 1) -> dict[str, Any]:
    return {"at": at, "name": name, "number": number}


@pytest.mark.parametrize("at", ["2013-07-01T00:00:00", datetime(2013, 7, 1)])  # noqa: DTZ001
def test_a_time_without_an_offset_is_refused_with_the_fix(at: Any) -> None:
    landing = Landing(FACTS)
    with pytest.raises(InvalidData, match="'at' of the rows has times without a UTC offset") as caught:
        landing.ingest([fact(at)])
    assert "2013-07-01T00:00:00Z" in str(caught.value.fix)
    assert landing.lake.tables() == []


def test_an_event_in_the_future_lands_unseen_and_is_told() -> None:
    landing = Landing(FACTS, now=DAY)
    report = landing.ingest([fact(DAY), fact(DAY + 1), fact(3 * DAY)])
    assert report.rows == 3
    assert report.warnings == (
        "2 of the rows have an event time after now (1970-01-02T00:00:00Z), the last at 1970-01-04T00:00:00Z: no "
        "feature uses them before that time. If the times are wrong, check the unit and the time zone of 'at'.",
    )
    assert [row["_visible_at"] for row in landing.landed()] == [to_datetime(at) for at in (DAY, DAY + 1, 3 * DAY)]
    # What is known already is not told again.
    assert landing.ingest([fact(DAY), fact(DAY + 1), fact(3 * DAY)]).warnings == ()


def test_the_future_is_that_of_the_wall_where_time_is_replayed() -> None:
    landing = Landing(FACTS)
    landing.ingestor = Ingestor(landing.lake, MemoryLocks(), ManualClock(0), wall=ManualClock(DAY))
    assert landing.ingest([fact(HOUR)]).warnings == ()
    assert len(landing.ingest([fact(2 * DAY)]).warnings) == 1


def test_rows_with_a_null_key_land_and_are_counted() -> None:
    landing = Landing(FACTS)
    rows = [fact(0), fact(0, name=None), fact(0, number=None), fact(0, name=None, number=None)]
    report = landing.ingest(rows, keyings=KEYINGS)
    assert report.rows == 4
    assert report.warnings == (
        "2 of the rows have a null in name: they were ingested, but belong to no one.",
        "3 of the rows have a null in name, number: they were ingested, but belong to no two.",
    )
    flags = [(row["_record_one"], row["_record_two"]) for row in landing.landed()]
    assert flags == [(False, True), (False, False), (True, False), (False, False)]


def test_a_column_that_is_not_declared_is_left_out_and_told() -> None:
    landing = Landing(FACTS)
    table = pa.table({"at": pa.array([0], pa.timestamp("us", "UTC")), "name": ["a"], "number": [1], "more": [2]})
    (warning,) = landing.ingest(table).warnings
    assert "columns that source 'facts' does not declare; they were ignored: more" in warning
    assert "more" not in landing.landed()[0]


def test_a_clock_that_jumps_back_changes_nothing_that_landed() -> None:
    source = Source("facts", schema=FACTS.schema, event_time="at", checks=[fresh("1h")])
    landing = Landing(source, now=10 * DAY)
    snapshots = CatalogSnapshots(memory_catalog())
    landing.ingest([fact(10 * DAY)], keyings=KEYINGS, batch_id="before")
    first = commit(landing.lake, snapshots, landing.clock, "before")
    landing.clock.set(DAY)
    report = landing.ingest([fact(DAY, name="b")], keyings=KEYINGS, batch_id="after")
    assert (report.rows, report.warnings) == (1, ())
    assert landing.ingest([fact(10 * DAY)], keyings=KEYINGS, batch_id="before").already == 1
    second = commit(landing.lake, snapshots, landing.clock, "after")
    # The order of arrival and of commits is that in which they came, whatever the clock says.
    assert [row["name"] for row in landing.landed()] == ["a", "b"]
    assert snapshots.log() == [second, first]
    assert (second.parent, second.at < first.at) == (first.id, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one and a half mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_whole_versions_and_the_same_call_resumes(small_disk: Path, tmp_path: Path) -> None:
    source = Source("facts", schema={"mixed": Int64}, event_time="at")
    rows = big(60_000)
    data = pa.table({"at": rows["_seq"].cast(pa.timestamp("us", "UTC")), "mixed": rows["mixed"]})
    lake = DeltaLake(small_disk / "lake")
    locks = MemoryLocks()
    ingestor = Ingestor(lake, locks, ManualClock(), batch_rows=5_000)
    ingestor.ingest(source, data.slice(0, 100), keyings={}, batch_id="small")
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(64 << 10))
    with pytest.raises(StorageFull, match="No space left") as caught:
        ingestor.ingest(source, data, keyings={}, batch_id="big")
    assert "run the command again" in str(caught.value.fix)
    there = lake.describe("facts").rows
    assert there < 60_100
    # Every version is whole; where the lake has room, the rest lands.
    roomy = tmp_path / "roomy"
    subprocess.run(["cp", "-r", str(small_disk / "lake"), str(roomy)], check=True)
    report = Ingestor(DeltaLake(roomy), locks, ManualClock(), batch_rows=5_000).ingest(
        source, data, keyings={}, batch_id="big"
    )
    assert (report.already, report.rows) == (there - 100, 60_100 - there)


def lake_of_two(tmp_path: Path) -> tuple[DeltaLake, Ingestor, str]:
    """Return a lake with two batches, and the file that the second brought."""
    lake = DeltaLake(tmp_path / "lake")
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(DAY))
    ingestor.ingest(FACTS, [fact(0)], keyings=KEYINGS, batch_id="one")
    before = set(lake.scan("facts").files or ())
    ingestor.ingest(FACTS, [fact(1, name="b")], keyings=KEYINGS, batch_id="two")
    (file,) = set(lake.scan("facts").files or ()) - before
    return lake, ingestor, file


@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_file_is_named_by_all_who_read_it_and_a_restore_leads_out(damage: str, tmp_path: Path) -> None:
    lake, ingestor, file = lake_of_two(tmp_path)
    whole = Path(file).read_bytes()
    Path(file).write_bytes({"empty": b"", "cut": whole[:-20], "noise": whole[:4] + bytes(200)}[damage])
    with pytest.raises(Corrupt, match="cannot be read"):  # later rows need not be compared with those of the file
        ingestor.ingest(FACTS, [fact(1, name="c")], keyings=KEYINGS, batch_id="three")
    with pytest.raises(Corrupt, match="cannot be read"):
        profile(lake.scan("facts"), FACTS)
    with pytest.raises(Corrupt, match="cannot be read"):
        diff(lake, {"facts": 0}, {"facts": 1})
    assert lake.version("facts") == 1
    snapshots = CatalogSnapshots(memory_catalog())
    commit(lake, snapshots, ManualClock())
    lake.restore("facts", 0)
    commit(lake, snapshots, ManualClock())
    assert ingestor.ingest(FACTS, [fact(1, name="b")], keyings=KEYINGS, batch_id="two").rows == 1
    assert profile(lake.scan("facts"), FACTS).rows == 2


def test_a_lake_that_contradicts_itself_is_corrupt_and_no_endless_loop() -> None:
    landing = Landing(FACTS)
    landing.ingest([fact(0)], batch_id="one")
    table = landing.lake.scan("facts").rows
    # Somebody took the rows away and left the key.
    landing.lake.replace("facts", [], table.schema, key="by hand")
    with pytest.raises(Corrupt, match=r"has batch 'one\.0' in its log, but not its rows") as caught:
        landing.ingest([fact(0)], batch_id="one")
    assert "--batch-id" in str(caught.value.fix)


def test_a_restore_on_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    lake, ingestor, _ = lake_of_two(tmp_path)
    snapshots, locks, clock = CatalogSnapshots(memory_catalog()), MemoryLocks(), ManualClock()
    then = commit(lake, snapshots, clock)
    ingestor.ingest(FACTS, [fact(2)], keyings=KEYINGS, batch_id="three")
    with full_disk(64), pytest.raises(StorageFull):
        restore(lake, snapshots, locks, clock, then.id)
    assert (lake.version("facts"), lake.describe("facts").rows, lake.has("facts", "three.0.0")) == (2, 3, True)
    restore(lake, snapshots, locks, clock, then.id)
    assert lake.describe("facts").rows == 2


def test_text_that_is_not_utf_8_is_refused_with_its_column() -> None:
    landing = Landing()
    name = pa.array([b"a", b"\xff"]).view(pa.string())
    rows = pa.Table.from_pylist([ROW, ROW]).set_column(1, "name", name)
    with pytest.raises(InvalidData, match="Column 'name' has text that is not UTF-8"):
        landing.ingest(rows)
    assert landing.landed() == []
