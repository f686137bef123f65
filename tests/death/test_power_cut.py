"""The power is cut right after a commit is done: what was reported is there, and the table goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.errors import Corrupt
from mainspring.core.files import write_atomic
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, in_range
from power_cut import Disk, disk

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


def newest_entry(lake: Path) -> Path:
    return max((lake / "facts" / "_delta_log").glob("*.json"))


def follow(error: Corrupt) -> None:
    """Run the command that an error's fix names."""
    command = str(error.fix).split("`")[1]
    subprocess.run(command, shell=True, check=True)
