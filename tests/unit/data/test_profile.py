"""A profile against what NumPy and Python count, in memory and over files."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from kit.depth import examples
from mainspring.core.errors import Corrupt
from mainspring.core.schema import Boolean, Float32, Float64, Int64, String
from mainspring.data.model import Source, TableScan
from mainspring.data.profile import BINS, ColumnProfile, TableProfile, profile
from mainspring.data.row_sample import spread

pytestmark = pytest.mark.slow

SOURCE = Source(
    "facts",
    schema={"name": String, "number": Int64, "value": Float64, "small": Float32, "flag": Boolean},
    event_time="at",
    pii=["name"],
)
LIMITS = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]
ODD = [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]


def table(rows: int, seed: int = 0) -> pa.Table:
    chance = np.random.default_rng(seed)
    value = chance.normal(50, 5, rows)
    value[::10] = 0.0
    return pa.table(
        {
            "at": pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us", "UTC")),
            "name": pa.array([None if place % 7 == 0 else f"n{place % 5}" for place in range(rows)]),
            "number": pa.array(chance.integers(0, 20, rows)),
            "value": pa.array(value, from_pandas=False),
            "small": pa.array(chance.random(rows), pa.float32()),
            "flag": pa.array([None, True, False, True] * (rows // 4), pa.bool_()),
            "_seq": pa.array(range(rows), pa.int64()),
        }
    )


def columns(found: TableProfile) -> dict[str, ColumnProfile]:
    return {each.column: each for each in found.columns}


def in_files(rows: pa.Table, folder: Path, pieces: int) -> TableScan:
    files = []
    for number in range(pieces):
        each = len(rows) // pieces
        files.append(str(folder / f"{number}.parquet"))
        pq.write_table(rows.slice(number * each, each), files[-1], row_group_size=1_000)
    return TableScan(3, files=tuple(files), schema=rows.schema)


@pytest.fixture(params=["in memory", "one file", "many files"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> TableScan:
    rows = table(40_000)
    if request.param == "in memory":
        return TableScan(3, rows=rows, schema=rows.schema)
    return in_files(rows, tmp_path, 1 if request.param == "one file" else 20)


def test_what_is_exact_is_exact(scan: TableScan) -> None:
    rows = table(40_000)
    found = profile(scan, SOURCE)
    assert (found.version, found.rows) == (3, 40_000)
    each = columns(found)
    assert list(each) == ["at", "name", "number", "value", "small", "flag"]
    assert [one.nulls for one in found.columns] == [0, rows["name"].null_count, 0, 0, 0, 10_000]
    number, value = rows["number"].to_numpy(), rows["value"].to_numpy()
    assert (each["number"].low, each["number"].high) == (0, 19)
    assert (each["value"].low, each["value"].high) == (value.min(), value.max())
    assert (each["at"].low, each["at"].high) == (0, 39_999_000_000)
    assert each["value"].mean == pytest.approx(value.mean(), rel=1e-12)
    assert each["value"].sd == pytest.approx(value.std(), rel=1e-9)
    assert dict(each["number"].top) == dict(Counter(number.tolist()).most_common(10))
    assert each["value"].top == ((0.0, 4_000),)
    assert each["flag"].top == ((True, 20_000), (False, 10_000))
    assert (each["flag"].low, each["flag"].high) == (False, True)
    for name, exact in (("value", value), ("number", number.astype(float)), ("small", rows["small"].to_numpy())):
        histogram = each[name].histogram
        assert histogram is not None
        assert len(histogram.counts) == len(histogram.edges) + 1 <= BINS
        places = np.searchsorted(histogram.edges, exact.astype(np.float64), side="left")
        assert histogram.counts == tuple(np.bincount(places, minlength=len(histogram.counts)).tolist())


def test_what_is_approximate_is_near(scan: TableScan) -> None:
    value = table(40_000)["value"].to_numpy()
    each = columns(profile(scan, SOURCE))
    for name, share in (("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p95", 0.95), ("p99", 0.99)):
        assert abs((value <= each["value"].quantiles[name]).mean() - share) < 0.01
    assert each["name"].distinct == 5
    assert abs(each["value"].distinct / 36_001 - 1) < 0.15
    assert abs(each["at"].distinct / 40_000 - 1) < 0.15


def test_of_what_identifies_a_person_there_are_only_counts(scan: TableScan) -> None:
    name = columns(profile(scan, SOURCE))["name"]
    assert name == ColumnProfile(
        column="name", dtype="string", nulls=5_715, nans=0, distinct=5, pii=True, low=None, high=None, top=()
    )
    everything = columns(profile(scan))
    assert "_seq" not in everything
    counts = Counter(name for name in table(40_000)["name"].to_pylist() if name)
    assert everything["name"].top == tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def test_no_rows_and_no_values() -> None:
    schema = table(4).schema
    found = profile(TableScan(0, files=(), schema=schema), SOURCE)
    assert found.rows == 0
    assert all((one.nulls, one.distinct, one.low, one.mean, one.top) == (0, 0, None, None, ()) for one in found.columns)
    nothing = pa.table({"value": pa.nulls(3, pa.float64()), "name": pa.nulls(3, pa.string())})
    each = columns(profile(TableScan(0, rows=nothing, schema=nothing.schema)))
    assert (each["value"].nulls, each["value"].histogram, each["name"].high) == (3, None, None)


def test_a_column_that_came_later_is_null_before(tmp_path: Path) -> None:
    old = pa.table({"a": [1, 2]})
    pq.write_table(old, tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [3], "b": ["x"]}), tmp_path / "b.parquet")
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.float32())])
    files = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    found = profile(TableScan(0, files=files, schema=schema))
    assert [one.nulls for one in found.columns] == [0, 2, 3]


def test_a_damaged_file_is_corrupt(tmp_path: Path) -> None:
    scan = in_files(table(4_000), tmp_path, 2)
    (tmp_path / "1.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(Corrupt, match="cannot be read"):
        profile(scan, SOURCE)


def test_progress_is_a_share() -> None:
    rows = table(400_000)
    shares: list[float] = []
    profile(TableScan(0, rows=rows, schema=rows.schema), SOURCE, progress=shares.append)
    assert all(0.0 <= share <= 1.0 for share in shares)


@settings(max_examples=examples(gate=20, deep=60), deadline=None)
@given(
    numbers=st.lists(st.none() | st.integers(-5, 5) | st.sampled_from(LIMITS), max_size=30),
    values=st.lists(st.none() | st.sampled_from(ODD) | st.floats(width=64), max_size=30),
    texts=st.lists(st.none() | st.sampled_from(["", "=", "''", "a", "é", "\x00"]) | st.text(max_size=3), max_size=30),
)
def test_any_values_are_counted(numbers: list[int | None], values: list[float | None], texts: list[str | None]) -> None:
    for kind, given_ in ((pa.int64(), numbers), (pa.float64(), values), (pa.string(), texts)):
        rows = pa.table({"x": pa.array(given_, kind, from_pandas=False)})
        (found,) = profile(TableScan(0, rows=rows, schema=rows.schema)).columns
        there = [value for value in given_ if value is not None and value == value]
        assert found.nulls == sum(value is None for value in given_)
        assert found.nans == sum(value is not None and value != value for value in given_)
        assert (found.low, found.high) == ((min(there), max(there)) if there else (None, None))
        counts = Counter(there)
        assert all(counts[value] == count for value, count in found.top)
        if kind == pa.string():
            assert Counter(dict(found.top)) == Counter({v: n for v, n in counts.most_common(10) if n > 1}) or len(
                counts
            ) > len(found.top)
        if kind != pa.string():
            finite = [float(value) for value in there if math.isfinite(value)]
            assert sum(found.histogram.counts if found.histogram else ()) == len(finite)


def test_a_spread_is_from_all_over(tmp_path: Path) -> None:
    rows = table(40_000)
    for pieces in (1, 3, 20):
        folder = tmp_path / str(pieces)
        folder.mkdir()
        scan = in_files(rows.slice(0, 40_000 // pieces * pieces), folder, pieces)
        taken = spread(scan, ["number", "_seq", "nothing"], 400)
        assert taken.column_names == ["number", "_seq"]
        assert 300 <= len(taken) <= 400
        places = taken["_seq"].to_numpy()
        assert places.min() <= 1_000
        assert places.max() > 38_000
        assert spread(scan, ["number"], 400).equals(taken.select(["number"]))
    assert len(spread(TableScan(0, files=()), ["number"])) == 0
