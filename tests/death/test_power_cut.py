"""The power is cut right after a commit is done: what was reported is there, and the table goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kit.power_cut import Disk, disk
from mainspring.core.errors import Corrupt
from mainspring.core.files import write_atomic
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltaplaces import FolderPlace
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, in_range

FACTS = Source("facts", schema={"place": String, "value": Int64}, event_time="at", checks=[in_range("value", 0, 99)])


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path) as made:
        yield made


def ingestor(folder: Path) -> Ingestor:
    return Ingestor(DeltaLake(folder), MemoryLocks(), ManualClock())


def land(folder: Path, rows: list[dict[str, Any]]) -> None:
    ingestor(folder).ingest(FACTS, rows, keyings={"place": ("place",)})


def facts(*values: int, at: int = 1) -> list[dict[str, Any]]:
    return [{"at": at, "place": "here", "value": value} for value in values]


def rows(folder: Path, table: str = "facts") -> int:
    return DeltaLake(folder).describe(table).rows


def test_a_cut_takes_what_was_not_synced(power: Disk) -> None:
    write_atomic(power.folder / "synced", b"1")
    (power.folder / "not synced").write_bytes(b"2")
    power.cut()
    assert (power.folder / "synced").read_bytes() == b"1"
    assert not (power.folder / "not synced").exists()


def test_what_was_landed_survives_a_power_cut(power: Disk) -> None:
    lake = power.folder / "project" / "lake"
    land(lake, facts(1, 2, 100))
    power.cut()
    assert (rows(lake), rows(lake, "facts__quarantine")) == (2, 1)
    assert all(Path(file).stat().st_size for file in DeltaLake(lake).scan("facts").files or ())
    # An older row: the commit replaces a file of the table.
    land(lake, [{"at": 2, "place": "here", "value": 4}])
    land(lake, facts(3, at=0))
    land(lake, facts(5, 6, at=2))
    power.cut()
    assert rows(lake) == 6


def test_a_compacted_table_survives_a_power_cut(power: Disk) -> None:
    folder = power.folder / "lake"
    landing = ingestor(folder)
    for number in range(64):
        landing.ingest(FACTS, facts(number, at=number), keyings={})
    DeltaLake(folder).vacuum("facts", [])
    power.cut()
    assert rows(folder) == 64
    assert len(DeltaLake(folder).scan("facts").files or ()) < 64


def test_an_entry_of_no_bytes_is_refused_and_the_fix_keeps_the_rest(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        land(tmp_path, facts(value))
    entry = newest_entry(tmp_path)
    entry.write_bytes(b"")
    for read in (rows, lambda folder: land(folder, facts(4))):
        with pytest.raises(Corrupt, match=f"{entry.name} is empty") as refused:
            read(tmp_path)
    follow(refused.value)
    assert rows(tmp_path) == 2
    land(tmp_path, facts(3))
    assert rows(tmp_path) == 3


def test_an_entry_of_no_bytes_below_others_is_refused(tmp_path: Path) -> None:
    land(tmp_path, facts(1))
    entry = newest_entry(tmp_path)
    land(tmp_path, facts(2))
    entry.write_bytes(b"")
    with pytest.raises(Corrupt, match="backup") as refused:
        rows(tmp_path)
    follow(refused.value)
    land(tmp_path, facts(1, 2))
    assert rows(tmp_path) == 2


def test_a_table_whose_only_entry_has_no_bytes_begins_anew_by_the_fix(tmp_path: Path) -> None:
    land(tmp_path, facts(1))
    newest_entry(tmp_path).write_bytes(b"")
    with pytest.raises(Corrupt, match="is empty") as refused:
        land(tmp_path, facts(1))
    follow(refused.value)
    land(tmp_path, facts(1))
    assert rows(tmp_path) == 1


class UnsyncedPlace(FolderPlace):
    """A folder whose writers die before they sync."""

    def sync(self, table: str, after: int | None) -> None:
        pass


def test_what_a_killed_writer_left_is_on_the_disk_when_it_is_said_to_be_written(power: Disk) -> None:
    table = pa.table({"value": [1, 2, 3]})
    DeltaLake(UnsyncedPlace(power.folder)).append("facts", table.to_batches(), table.schema, key="once")
    assert DeltaLake(power.folder).append("facts", table.to_batches(), table.schema, key="once") is None
    power.cut()
    assert rows(power.folder) == 3


@pytest.mark.parametrize(
    "tear",
    [
        lambda lake: newest_entry(lake).write_bytes(b""),
        lambda lake: (lake / "facts/_delta_log/_last_checkpoint").write_bytes(b""),
        lambda lake: [path.write_bytes(b"PA") for path in (lake / "facts/_delta_log").glob("*.checkpoint.parquet")],
    ],
)
def test_a_commit_that_a_cut_left_unfinished_is_taken_back(tmp_path: Path, tear: Callable[[Path], object]) -> None:
    table = pa.table({"value": [1]})
    lake = DeltaLake(tmp_path)
    for number in range(102):  # the hundredth makes a checkpoint
        lake.append("facts", table.to_batches(), table.schema, key=f"{number}")
    tear(tmp_path)
    lake = DeltaLake(tmp_path)
    with pytest.raises(Corrupt):
        lake.describe("facts")
    assert lake.recover("facts")
    assert not lake.recover("facts")
    lake.append("facts", table.to_batches(), table.schema, key="101")
    assert rows(tmp_path) == 102


def newest_entry(lake: Path) -> Path:
    return max((lake / "facts" / "_delta_log").glob("*.json"))


def follow(error: Corrupt) -> None:
    """Run the command that an error's fix names."""
    command = str(error.fix).split("`")[1]
    subprocess.run(command, shell=True, check=True)
