"""What differs between two versions, against two Python lists of rows."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mainspring.core.errors import NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Boolean, Float32, Float64, Int64, String
from mainspring.core.time import ManualClock
from mainspring.data import diff as module
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.bin_counts import bins_of, count_by_bin
from mainspring.data.commits import commit
from mainspring.data.conformance import SCHEMA, A, B, C, table
from mainspring.data.diff import ColumnDiff, TableDiff, diff
from mainspring.data.history import log
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.data.ports import LakeTables
from mainspring.project.catalog import memory_catalog
from mainspring.stats.reference import Reference
from mainspring.stats.sketches import Ruler

FACTS = Source(
    "facts",
    schema={"name": String, "number": Int64, "value": Float64, "small": Float32, "flag": Boolean},
    event_time="at",
)


def rows(count: int, seed: int, *, shift: float = 0.0, nulls: int = 10, names: str = "aab") -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "at": at,
            "name": chance.choice(names),
            "number": chance.randrange(10),
            "value": None if at % nulls == 0 else chance.gauss(shift, 1),
            "small": chance.random(),
            "flag": chance.random() < 0.3,
        }
        for at in range(count)
    ]


@pytest.fixture(params=["memory", "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LakeTables:
    return MemoryLake() if request.param == "memory" else DeltaLake(tmp_path)


def ingestor(lake: LakeTables) -> Ingestor:
    return Ingestor(lake, MemoryLocks(), ManualClock())


def only(lake: LakeTables, before: int, after: int, **more: Any) -> TableDiff:
    (found,) = diff(lake, {"facts": before}, {"facts": after}, **more)
    return found


def columns(found: TableDiff) -> dict[str, ColumnDiff]:
    return {each.column: each for each in found.columns}


def test_rows_that_came_and_went(lake: LakeTables) -> None:
    for number, each in enumerate(([A, B], [C], [(3, 1.0, "d", 5, None)])):
        lake.append("facts", table(*each).to_batches(), SCHEMA, key=f"{number}")
    lake.rewrite("facts", table((4, 1.0, "e", 6, True)), pa.table({"_seq": [0], "select": ["z"]}), "_seq", key="3")
    found = only(lake, 0, 3)
    # The row that was changed is another one.
    assert (found.rows_before, found.rows, found.added, found.removed) == (2, 5, 4, 1)
    back = only(lake, 3, 0)
    assert (back.added, back.removed) == (1, 4)
    assert diff(lake, {"facts": 3}, {"facts": 3}) == []


def test_a_row_whose_flag_changed_is_the_same_row(lake: LakeTables) -> None:
    lake.append("facts", table(A, B).to_batches(), SCHEMA, key="1")
    lake.rewrite("facts", table(C), pa.table({"_seq": [0], "_record_One": [False]}), "_seq", key="2")
    found = only(lake, 0, 1)
    assert (found.added, found.removed) == (1, 0)


def test_a_column_that_came_or_was_widened_changes_no_row(lake: LakeTables) -> None:
    lake.append("facts", table(A, B).to_batches(), SCHEMA, key="1")
    wide = SCHEMA.set(1, pa.field("depDelay", pa.float64())).append(pa.field("gate", pa.string()))
    again = [(*row[:1], None if row[1] is None else float(row[1]), *row[2:], None) for row in (A, B)]
    lake.replace("facts", table(*again, schema=wide).to_batches(), wide, key="2")
    found = only(lake, 0, 1)
    assert (found.added, found.removed, found.columns) == (0, 0, ())
    assert found.schema == ("depDelay float -> double", "+ gate string")


def test_rows_without_numbers_are_counted_by_content(lake: LakeTables) -> None:
    def write(*values: str, key: str) -> None:
        each = pa.table({"x": list(values)})
        lake.append("facts", each.to_batches(), each.schema, key=key)

    write("a", "a", "b", key="1")
    write("a", key="2")
    lake.replace("facts", pa.table({"x": ["a", "c"]}).to_batches(), pa.schema([("x", pa.string())]), key="3")
    assert [(each.added, each.removed) for each in (only(lake, 0, 1), only(lake, 0, 2))] == [(1, 0), (1, 2)]


def test_a_table_that_was_not_there(lake: LakeTables) -> None:
    lake.append("facts", table(A, B).to_batches(), SCHEMA, key="1")
    (found,) = diff(lake, {}, {"facts": 0})
    assert (found.before, found.after, found.rows, found.added, found.removed, found.columns) == (None, 0, 2, 2, 0, ())
    (found,) = diff(lake, {"facts": 0}, {})
    assert (found.rows_before, found.rows, found.added, found.removed) == (2, 0, 0, 2)


def test_what_is_as_before_does_not_differ(lake: LakeTables) -> None:
    ingestor(lake).ingest(FACTS, rows(2_000, 1), keyings={})
    ingestor(lake).ingest(FACTS, rows(2_000, 2), keyings={})
    found = only(lake, 0, 1)
    assert set(columns(found)) == {"name", "number", "value", "small", "flag"}
    assert not any(each.differs for each in found.columns)


def test_what_shifted_differs_and_says_how(lake: LakeTables) -> None:
    before, came = rows(3_000, 1), rows(3_000, 2, shift=0.5, nulls=3, names="abbbb")
    ingestor(lake).ingest(FACTS, before, keyings={})
    ingestor(lake).ingest(FACTS, came, keyings={})
    found = columns(only(lake, 0, 1, pii={"facts": ["name"]}))
    assert {name for name, each in found.items() if each.differs} == {"name", "value"}
    value = found["value"]
    there = [row["value"] for row in before if row["value"] is not None]
    now = [row["value"] for row in before + came if row["value"] is not None]
    assert value.mean_before == pytest.approx(sum(there) / len(there))
    assert value.mean == pytest.approx(sum(now) / len(now))
    assert value.null_share == pytest.approx(sum(row["value"] is None for row in before + came) / 6_000)
    assert value.q_value < 0.01
    assert value.distance > 0.05
    assert (found["name"].shares, found["name"].mean) == ((), None)
    shares = columns(only(lake, 0, 1))["name"].shares
    assert [share[0] for share in shares] == ["a", "b"]
    assert shares[0][1] == pytest.approx(sum(row["name"] == "a" for row in before) / 3_000)
    assert shares[0][2] == pytest.approx(sum(row["name"] == "a" for row in before + came) / 6_000)


def test_only_files_that_differ_are_read_for_rows(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    for number in range(4):
        lake.append("facts", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
    parts = module._parts(lake.scan("facts", 1), lake.scan("facts", 3))
    assert {name: len(scan.files or ()) for name, scan in parts.items()} == {"kept": 2, "gone": 0, "come": 2}


def test_counts_are_those_of_stats(lake: LakeTables) -> None:
    odd = [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e300, -1e300, None, 0.5, 0.5, 0.5]
    data = pa.table(
        {
            "number": pa.array(odd, from_pandas=False),
            "text": ["", "=", "a", None, "é", "a", "'", "b", "a", "", "c"],
            "flag": pa.array([True, False, None] * 3 + [True, True]),
            "whole": pa.array(range(11), pa.int32()),
        }
    )
    lake.append("facts", data.to_batches(), data.schema, key="1")
    scan = lake.scan("facts")
    bins = bins_of(scan, data.column_names)
    with module.duck.connect() as con:
        module.duck.register(con, "v", scan)
        counted = count_by_bin(con, "v", bins, {field.name: field.type for field in data.schema})
    for name in data.column_names:
        mine, values = counted[name], [value for value in data[name].to_pylist() if value is not None]
        (expected,) = [Ruler(Reference({name: bins[name]})).sketch({name: values})]
        finite = [value for value in values if not isinstance(value, str) and math.isfinite(value)]
        assert mine.bins == tuple(expected.bins[0, : len(mine.bins)].tolist()), name
        assert (mine.nulls, mine.nans) == (data[name].null_count, *expected.count("nans"))
        assert (mine.n, mine.rows) == (*expected.present, len(data))
        clipped = np.clip(finite, -1e150, 1e150) if finite else np.zeros(1)
        assert (mine.mean, mine.sd) == pytest.approx((clipped.mean(), clipped.std()))


def test_a_version_that_is_gone_cannot_be_compared(lake: LakeTables) -> None:
    for number in range(3):
        lake.replace("facts", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
    lake.vacuum("facts", [])
    with pytest.raises(NotFound, match="does not have version 0"):
        only(lake, 0, 2)


def test_the_log_says_what_changed(lake: LakeTables) -> None:
    snapshots, clock = CatalogSnapshots(memory_catalog()), ManualClock()
    lake.append("facts", table(A, B).to_batches(), SCHEMA, key="1")
    lake.append("others", table(A).to_batches(), SCHEMA, key="1")
    first = commit(lake, snapshots, clock, "first")
    wide = SCHEMA.append(pa.field("gate", pa.int32()))
    lake.append("facts", table((*C, 1), schema=wide).to_batches(), wide, key="2")
    commit(lake, snapshots, clock, "second")
    lake.restore("facts", 0)
    lake.vacuum("facts", [])
    commit(lake, snapshots, clock, "third")
    snapshots.tag("good", first.id)
    third, second, one = log(lake, snapshots)
    assert [each.commit.message for each in (one, second, third)] == ["first", "second", "third"]
    assert (one.tags, second.tags) == (("good",), ())
    assert [(each.table, each.before, each.rows_before, each.rows) for each in one.changes] == [
        ("facts", None, 0, 2),
        ("others", None, 0, 1),
    ]
    assert [(each.table, each.rows_before, each.rows, each.schema) for each in second.changes] == [
        ("facts", 2, 3, ("+ gate int32",))
    ]
    assert [(each.rows_before, each.rows, each.schema) for each in third.changes] == [(3, 2, ("- gate",))]
    assert log(lake, snapshots, 1) == [third]


def test_wider_numbers_are_compared(lake: LakeTables) -> None:
    old = pa.table({"_seq": [0, 1], "x": pa.array([1, 2], pa.int32())})
    new = pa.table({"_seq": [0, 1, 2], "x": pa.array([1, 2, 3], pa.int64())})
    lake.append("facts", old.to_batches(), old.schema, key="1")
    lake.replace("facts", new.to_batches(), new.schema, key="2")
    found = only(lake, 0, 1)
    assert (found.added, found.removed, found.schema) == (1, 0, ("x int32 -> int64",))
    assert [each.column for each in found.columns] == ["x"]
