"""Heads that are damaged, or cannot be kept: ingestion goes on without them, as they are made from the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import StorageFull
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import HEADS_PREFIX, Source

FACTS = Source("facts", schema={"place": String, "value": Int64}, event_time="at")
HEADS = f"{HEADS_PREFIX}facts"


def land(lake: DeltaLake, *instants: int) -> None:
    """Land a row for each instant, and keep the heads anew with them."""
    rows = [{"at": at, "place": "here", "value": at} for at in instants]
    Ingestor(lake, MemoryLocks(), ManualClock(10**9), many_rows=1).ingest(FACTS, rows, keyings={"place": ("place",)})


def flags(lake: DeltaLake) -> dict[int, bool]:
    found = pq.read_table(list(lake.scan("facts").files or ()))
    return dict(zip(found["value"].to_pylist(), found["_record_place"].to_pylist(), strict=True))


def test_the_heads_of_many_loads_are_taken_as_they_land(tmp_path: Path) -> None:
    happened = [("a", 5), ("b", 1), ("a", 3), ("c", 2), ("b", 4), (None, 9), ("c", 2)]
    rows = [{"at": at, "place": place, "value": number} for number, (place, at) in enumerate(happened)]
    lake = DeltaLake(tmp_path)
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(10**9), many_rows=1, load_rows=2)
    ingestor.ingest(FACTS, rows, keyings={"place": ("place",)})
    kept = pq.read_table(list(lake.scan(HEADS).files or ())).sort_by("place")
    columns = [kept[name].cast(pa.int64()).to_pylist() for name in ("_event", "_first", "_seq")]
    load = 1 << 20
    assert list(zip(kept["place"].to_pylist(), *columns, strict=True)) == [
        ("a", 5, 3, 0),
        ("b", 4, 1, 2 * load),
        ("c", 2, 2, 3 * load),
    ]
    assert flags(lake) == {0: True, 1: True, 2: True, 3: False, 4: True, 5: False, 6: True}


def test_a_batch_of_newer_rows_reads_no_file_of_earlier_ones(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(10**9))
    landed: list[tuple[str, bytes]] = []
    for at in range(5):
        ingestor.ingest(FACTS, [{"at": at, "place": "here", "value": at}], keyings={"place": ("place",)})
        for file, content in landed:
            Path(file).write_bytes(content)
        assert flags(lake) == dict.fromkeys(range(at + 1), True)
        landed = [(file, Path(file).read_bytes()) for file in lake.scan("facts").files or ()]
        for file, content in landed:
            Path(file).write_bytes(b"?" * len(content))


def empty_entry(table: Path) -> None:
    max((table / "_delta_log").glob("*.json")).write_bytes(b"")


def torn_files(table: Path) -> None:
    for path in table.glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:10])


def no_files(table: Path) -> None:
    for path in table.glob("*.parquet"):
        path.unlink()


@pytest.mark.parametrize("damage", [empty_entry, torn_files, no_files])
def test_damaged_heads_are_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    land(DeltaLake(tmp_path), 1, 5)
    land(DeltaLake(tmp_path), 6)
    damage(tmp_path / HEADS)
    land(DeltaLake(tmp_path), 3, 7)
    assert flags(DeltaLake(tmp_path)) == dict.fromkeys((1, 3, 5, 6, 7), True)
    assert DeltaLake(tmp_path).damage(HEADS) == []
    kept = pq.read_table(list(DeltaLake(tmp_path).scan(HEADS).files or ()))
    assert kept["_event"].cast(pa.int64()).to_pylist() == [7]


class FullLake(DeltaLake):
    """A lake without room for heads."""

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        if table == HEADS:
            raise StorageFull("No space left.")
        return super().replace(table, rows, schema, key=key)


def test_rows_have_landed_where_heads_cannot_be_kept(tmp_path: Path) -> None:
    land(FullLake(tmp_path), 1, 5)
    land(FullLake(tmp_path), 3)
    assert flags(DeltaLake(tmp_path)) == {1: True, 3: True, 5: True}
    assert HEADS not in DeltaLake(tmp_path).tables()
