"""Sketches are the same in SQL and in Python, and whatever the partition of the values into tiles."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.expressions import HOSTILE, POOLS
from kit.oracle import cut
from mainspring.core.schema import DType
from mainspring.features.offline.sweep import most_frequent, ranks, smallest, swept
from mainspring.features.state import sketches, sql
from mainspring.features.state.blobs import as_stored, merging
from mainspring.features.state.coded import coded
from mainspring.features.state.coded import most_frequent as read_most_frequent

ARROW = {
    DType.Float32: pa.float32(), DType.Float64: pa.float64(), DType.Int32: pa.int32(), DType.Int64: pa.int64(),
    DType.String: pa.string(), DType.Boolean: pa.bool_(),
}  # fmt: skip
BINNED = (DType.Float64, DType.Float32, DType.Int32, DType.Int64, DType.Boolean)
COUNTED = (DType.String, DType.Boolean, DType.Int32, DType.Int64)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    yield connection
    connection.close()


def tiled(duck: Any, part: str, tiles: list[list[Any]], dtype: DType) -> list[Any]:
    """What SQL makes of some tiles, each with as many nulls as values, as a state holds it."""
    rows = [(start, value) for start, values in enumerate(tiles) for value in values]
    rows += [(start, None) for start, _ in rows]
    table = pa.table(
        {
            "start": pa.array([start for start, _ in rows], pa.int64()),
            "e": pa.array(range(len(rows)), pa.int64()),
            "seq": pa.array(range(len(rows)), pa.int64()),
            "m0": pa.array([value for _, value in rows], ARROW[dtype]),
        }
    )
    duck.register("facts", table)
    found = duck.execute(
        f"SELECT {part}_0 FROM ({sql.from_rows([(0, part)], 'facts', 'TRUE', 'start')}) ORDER BY start"
    ).fetchall()
    return as_stored(part, [value for (value,) in found])


@pytest.mark.parametrize("dtype", BINNED)
def test_bins_of_hostile_values(duck: Any, dtype: DType) -> None:
    for value in HOSTILE[dtype]:
        (state,) = tiled(duck, "bins", [[value]], dtype)
        bins, upto = sketches.merge_bins([state], [])
        assert (bins.tolist(), upto.tolist()) == ([sketches.bin_of(float(value))], [1])
        found, wanted = sketches.value_of(int(bins[0])), cut(value)
        assert found == wanted or (math.isnan(found) and math.isnan(wanted))
        assert math.copysign(1, found) == (math.copysign(1, wanted) if wanted else 1)


@given(value=st.floats(), other=st.floats())
def test_a_bin_is_near_and_in_order(value: float, other: float) -> None:
    found = sketches.value_of(sketches.bin_of(value))
    if math.isnan(value):
        assert math.isnan(found)
        return
    assert abs(found) <= abs(value)
    assert found == value or abs(value - found) <= max(abs(value) / 128, 2.0**-1029)
    if abs(value) <= 256 and value == int(value):
        assert found == value
    if value <= other:
        assert sketches.bin_of(value) <= sketches.bin_of(other)
    assert sketches.bin_of(value) < sketches.NAN
    assert sketches.bin_of(-0.0) == sketches.bin_of(0.0)


@pytest.mark.parametrize("dtype", COUNTED)
def test_hashes_of_hostile_values(duck: Any, dtype: DType) -> None:
    for value in HOSTILE[dtype]:
        (state,) = tiled(duck, "hashes", [[value]], dtype)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        wanted = int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") >> 1
        assert int.from_bytes(state, "little") == sketches.hash_of(value) == wanted


@st.composite
def partitions(draw: st.DrawFn, dtypes: tuple[DType, ...]) -> tuple[DType, list[list[Any]], list[Any]]:
    """A type, tiles of values, and single values; few different ones, so that they meet."""
    dtype = draw(st.sampled_from(dtypes))
    pool = st.sampled_from(draw(st.lists(POOLS[dtype], min_size=1, max_size=8)))
    tiles = draw(st.lists(st.lists(pool, min_size=1, max_size=20), max_size=5))
    return dtype, tiles, draw(st.lists(pool, max_size=10))


@settings(max_examples=examples(gate=8, deep=60), deadline=None)
@given(given_=partitions(BINNED), share=st.integers(0, 1_000_000))
def test_quantiles_whatever_the_partition(duck: Any, given_: Any, share: int) -> None:
    dtype, tiles, rows = given_
    merged = merging("bins", floats=True)(tiled(duck, "bins", tiles, dtype), rows)
    everything = sorted(
        (cut(value) for value in [*(value for tile in tiles for value in tile), *rows]),
        key=lambda value: (math.isnan(value), value),
    )
    found = sketches.quantile(merged, share / 1_000_000)
    if not everything:
        assert found is None
        return
    wanted = everything[max(1, -(-share * len(everything) // 1_000_000)) - 1]
    assert found == wanted or (math.isnan(found or 0) and math.isnan(wanted))


@pytest.mark.parametrize("spread", [1, 1e-300, 1e300])
def test_quantiles_of_many_values_are_those_of_all(spread: float) -> None:
    rng = np.random.default_rng(4)
    values = [*(rng.standard_normal(5_000) * spread).tolist(), math.inf, math.nan, *[0.0] * (spread == 1)]
    ordered = sorted(sketches.bin_of(value) for value in values)
    merged = sketches.merge_bins([], values)
    for share in (0, 0.001, 0.5, 0.9, 0.999, 1):
        rank = max(1, -(-sketches.millionths(share) * len(values) // 1_000_000))
        assert repr(sketches.quantile(merged, share)) == repr(sketches.value_of(ordered[rank - 1]))


@settings(max_examples=examples(gate=8, deep=60), deadline=None)
@given(given_=partitions(COUNTED), most=st.integers(1, 9))
def test_the_most_frequent_whatever_the_partition(duck: Any, given_: Any, most: int) -> None:
    dtype, tiles, rows = given_
    counts = merging("values", floats=False)(tiled(duck, "values", tiles, dtype), rows)
    assert counts == Counter([*(value for tile in tiles for value in tile), *rows])
    assert sketches.top(counts, most) == sorted(counts, key=lambda value: (-counts[value], value))[:most]


@settings(max_examples=examples(gate=60, deep=200), deadline=None)
@given(given_=partitions(COUNTED), most=st.integers(1, 9), first=st.integers(0, 5))
def test_coded_counts_are_read_as_those_that_are_not(given_: Any, most: int, first: int) -> None:
    _, tiles, rows = given_
    counts = [Counter(tile) for tile in tiles]
    plain = [[list(count), list(count.values())] if count else None for count in counts]
    column = msgspec.msgpack.decode(msgspec.msgpack.encode(coded(plain)))
    assert any(isinstance(tile, bytes) for tile in column) == any(type(v) is not bool for tile in tiles for v in tile)
    wanted = Counter([*(value for tile in tiles[first:] for value in tile), *rows])
    frequent = sorted(wanted, key=lambda value: (-wanted[value], value))[:most]
    for found in (read_most_frequent(column[first:], rows, most), read_most_frequent(plain[first:], rows, most)):
        assert found == frequent
        assert [*map(type, found)] == [*map(type, frequent)]


def test_coded_counts_of_very_many_values() -> None:
    rng = np.random.default_rng(11)
    tiles = [Counter((rng.zipf(1.1, 3_000) % 10_000).tolist()) for _ in range(5)]
    rows = [7, 7, 20_001, *[20_002] * 9_000]
    for of in (int, "page {}".format):
        named = [Counter({of(value): n for value, n in tile.items()}) for tile in tiles]
        column = coded([[list(tile), list(tile.values())] for tile in named])
        single = [of(value) for value in rows]
        wanted = sum(named[2:], Counter(single))
        for most in (1, 10, 700):
            assert read_most_frequent(column[2:], single, most) == sketches.top(wanted, most)
    large = [[[1, 2], [1 << 32, 1]]]
    assert coded(large) == large


@settings(max_examples=examples(gate=8, deep=60), deadline=None)
@given(given_=partitions(COUNTED))
def test_few_distinct_values_are_counted_exactly(duck: Any, given_: Any) -> None:
    dtype, tiles, rows = given_
    hashes = merging("hashes", floats=False)(tiled(duck, "hashes", tiles, dtype), rows)
    assert sketches.distinct(hashes) == len({*(value for tile in tiles for value in tile), *rows})


@pytest.mark.parametrize("n", [1023, 1024, 1025, 5000, 40_000])
def test_many_distinct_values_are_estimated_alike_whatever_the_partition(duck: Any, n: int) -> None:
    rng = random.Random(n)
    values = [f"user-{number}" for number in range(n)]
    estimates = set()
    for tiles in (1, 7):
        parts: list[list[str]] = [[] for _ in range(tiles)]
        for value in values:
            for _ in range(rng.randint(1, 3)):
                rng.choice(parts).append(value)
        rows = rng.sample(values, 50)
        hashes = merging("hashes", floats=False)(tiled(duck, "hashes", parts, DType.String), rows)
        estimates.add(sketches.distinct(hashes))
    (estimate,) = estimates
    smallest = sorted({int.from_bytes(hashlib.md5(v.encode()).digest()[8:], "little") >> 1 for v in values})
    wanted = n if n < 1024 else ((1023 << 63) // (smallest[1023] + 1))
    assert estimate == wanted
    assert abs(estimate / n - 1) < 5 / math.sqrt(1022)


def test_the_estimate_is_unbiased_with_the_error_that_is_said(duck: Any) -> None:
    errors = []
    for group in range(200):
        hashed = sql.ENTRY["hashes"].format(m=f"'group {group}, ' || i")
        hashes = duck.execute(f"SELECT {hashed} AS h FROM range(20000) AS t(i) ORDER BY h").fetchnumpy()["h"]
        errors.append(sketches.distinct(hashes[: sketches.KEPT]) / 20_000 - 1)
    mean = sum(errors) / len(errors)
    spread = math.sqrt(sum(error * error for error in errors) / len(errors))
    standard = 1 / math.sqrt(sketches.KEPT - 2)
    assert abs(mean) < 4 * standard / math.sqrt(len(errors))
    assert 0.8 * standard < spread < 1.2 * standard


@pytest.mark.parametrize("part", ["oldest", "newest", "newest_1", "newest_3"])
@settings(max_examples=examples(gate=4, deep=25), deadline=None)
@given(given_=partitions((DType.Float64, DType.String, DType.Int64, DType.Boolean)))
def test_the_newest_whatever_the_partition(duck: Any, part: str, given_: Any) -> None:
    dtype, tiles, rows = given_
    if dtype is DType.Float64:  # a measure has one zero: `parts.measure_sql`
        tiles, rows = [[value + 0.0 for value in tile] for tile in tiles], [value + 0.0 for value in rows]
    # Rows of the tiles are numbered as `tiled` numbers them: in the order of the tiles.
    numbered = [[n, n, value] for n, value in enumerate(value for tile in tiles for value in tile)]
    single = [[n, n, value] for n, value in enumerate(rows, start=10_000)]
    found = merging(part, floats=False)(tiled(duck, part, tiles, dtype), single)
    everything = [*numbered, *single]
    if part == "oldest":
        wanted: Any = everything[0] if everything else None
    elif part == "newest":
        wanted = everything[-1] if everything else None
    else:
        wanted = everything[::-1][: int(part[-1])]
    assert repr(found) == repr(wanted)


@settings(max_examples=examples(gate=5, deep=40), deadline=None)
@given(
    given_=partitions((DType.Int64,)),
    part=st.sampled_from(["n", "sum", "min", "max", "oldest", "newest", "newest_2", "hashes", "bins", "values"]),
)
def test_merging_in_sql_is_merging_in_python(duck: Any, given_: Any, part: str) -> None:
    dtype, tiles, _ = given_
    states = tiled(duck, part, tiles, dtype)
    made = sql.from_rows([(0, part)], "facts", "TRUE", "start")
    merged = duck.execute(f"SELECT {sql.merged([(0, part)])} FROM ({made})").fetchall()
    (together,) = as_stored(part, [merged[0][0]])
    halves = " FULL JOIN ".join(
        f"(SELECT {sql.merged([(0, part)])} FROM ({made}) WHERE start % 2 = {half}) AS h{half}" for half in (0, 1)
    )
    combined = duck.execute(f"SELECT {sql.combined([(0, part)], ['h0', 'h1'])} FROM {halves} ON TRUE").fetchall()
    (beside,) = as_stored(part, [combined[0][0]])

    def read(of: list[Any]) -> str:
        value = merging(part, floats=False)([each for each in of if each is not None], [])
        if part == "bins":
            return repr([sketches.quantile(value, share / 20) for share in range(21)])
        if part == "sum" and value is not None:  # of doubles, so that their order counts
            return f"{value:.12g}"
        return repr(sorted(value.items()) if part == "values" else value)

    if tiles:
        assert read([together]) == read(states) == read([beside])


@pytest.mark.parametrize("copies", [1, 3, 24])
def test_the_smallest_hashes_of_many_tiles_are_those_of_all(copies: int) -> None:
    rng = np.random.default_rng(copies)
    for same in (1, 2**40, 2**62):  # how far apart they are at least, so that a sample misleads
        hashes = rng.integers(0, 2**63 // same, 6_000) * same
        tiles = [hashes[place::5] for place in range(5)] * copies
        packed = [np.unique(tile)[: sketches.KEPT].astype("<i8").tobytes() for tile in tiles]
        found = sketches.merge_hashes(packed, [])
        assert found.tolist() == np.unique(hashes)[: sketches.KEPT].tolist()


@settings(max_examples=examples(gate=8, deep=60), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    different=st.sampled_from([1, 3, 300, 3_000]),
    most=st.sampled_from([1, 2, 7, 300]),
    at_once=st.sampled_from([1, 7, 4_000]),
)
def test_a_sweep_answers_as_if_each_window_were_counted_anew(
    seed: int, different: int, most: int, at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    changes: list[tuple[int, int, int, int]] = []  # kid, place, n, _i
    wanted: dict[int, Counter[int]] = {}
    for kid in (3, 4, 9):
        window: Counter[int] = Counter()
        for _ in range(rng.integers(0, 6)):
            for _ in range(rng.integers(0, 4)):
                comes = Counter(rng.integers(0, different, rng.integers(0, 2 * different)).tolist())
                goes = Counter({place: n for place, n in window.items() if rng.random() < 0.3})
                window = window + comes - goes
                changes += [(kid, place, n, -1) for place, n in comes.items()]
                changes += [(kid, place, -n, -1) for place, n in goes.items()]
            wanted[len(wanted)] = +window
            changes.append((kid, -1, 0, len(wanted) - 1))
    columns = np.array(changes, np.int64).reshape(-1, 4).T
    batches = [columns[:, start : start + at_once] for start in range(0, columns.shape[1], at_once)]

    def answers(answer: Any) -> dict[int, list[int]]:
        rows = [row for found in swept(batches, answer) for row in np.stack(found, axis=1).tolist()]
        return {number: answer for number, _, *answer in rows}

    shares = [0, 1, 500_000, 900_000, 1_000_000]
    quantiles, frequent, distinct = answers(ranks(shares)), answers(most_frequent(most)), answers(smallest)
    assert quantiles.keys() == frequent.keys() == distinct.keys() == wanted.keys()
    for number, window in wanted.items():
        values = sorted(window.elements())
        ranked = [values[max(1, -(-share * len(values) // 1_000_000)) - 1] if values else -1 for share in shares]
        assert quantiles[number] == ranked
        assert [place for place in frequent[number] if place >= 0] == sketches.top(window, most)
        assert len(frequent[number]) == most
        kept = sorted(window)[: sketches.KEPT]
        assert distinct[number] == [len(window), kept[-1] if len(window) >= sketches.KEPT else -1]


@pytest.mark.parametrize("most", [1, 3, 9])
def test_the_few_values_of_a_short_window_late_in_a_long_history(most: int) -> None:
    left = {4_000: 2, 17: 1, 3_999: 3, 2_500: 2, 4_999: 1}
    changes = [(1, place, left.get(place, 0) + 1, -1) for place in range(5_000)]
    changes += [(1, place, -1, -1) for place in range(5_000)] + [(1, -1, 0, 0)]
    ((_, _, *found),) = swept([np.array(changes, np.int64).T], most_frequent(most))
    assert [int(place) for (place,) in found] == [3_999, 2_500, 4_000, 17, 4_999, -1, -1, -1, -1][:most]
