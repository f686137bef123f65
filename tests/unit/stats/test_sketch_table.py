import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.stats.sketch_table import pair_fields, pair_rows, pairs_of, sketch_fields, sketch_rows, sketches_of
from mainspring.stats.sketches import COUNTS, MOMENTS, WIDTH, Pairs, Sketch


def some_sketch(columns: tuple[str, ...], random: np.random.Generator) -> Sketch:
    size = len(columns)
    counts = random.integers(0, 2**62, (size, len(COUNTS)))
    return Sketch(columns, counts, random.integers(0, 9, (size, WIDTH)), random.normal(size=(size, MOMENTS)) * 1e100)


def some_pairs(columns: tuple[str, ...], random: np.random.Generator) -> Pairs:
    half = random.normal(size=(len(columns), len(columns)))
    return Pairs(columns, int(random.integers(0, 2**62)), half + half.T)


columns = st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True).map(tuple)


@given(st.lists(columns, max_size=4), st.integers(0, 2**32))
def test_what_is_stored_is_read_back(named: list[tuple[str, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    sketches = [some_sketch(each, random) for each in named]
    pairs = [some_pairs(each, random) for each in named]
    keys = {"hour": pa.array(range(len(named)), pa.int64()), "segment": pa.array([""] * len(named), pa.string())}
    stored = sketch_rows(sketches, keys), pair_rows(pairs, keys)
    for table, fields in zip(stored, (sketch_fields(), pair_fields()), strict=True):
        assert list(table.schema)[2:] == fields
        assert table.column_names[:2] == ["hour", "segment"]
    stored = tuple(through_parquet(table) for table in stored)
    expected = [(hour, "") for hour in range(len(named))]
    assert list(sketches_of(stored[0], ["hour", "segment"]).items()) == list(zip(expected, sketches, strict=True))
    assert list(pairs_of(stored[1], ["hour", "segment"]).items()) == list(zip(expected, pairs, strict=True))


def through_parquet(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    pq.write_table(table, file)
    return pq.read_table(file)


def test_rows_of_the_same_keys_are_added() -> None:
    random = np.random.default_rng(0)
    one, two = (some_sketch(("a", "b"), random) for _ in range(2))
    keys = {"hour": pa.array([7, 7], pa.int64())}
    assert sketches_of(sketch_rows([one, two], keys), ["hour"]) == {(7,): one + two}
    assert sketches_of(sketch_rows([one.select(["a"]), two], keys), ["hour"])[7,].columns == ("a", "b")
    first, second = (some_pairs(("a", "b"), random) for _ in range(2))
    assert pairs_of(pair_rows([first, second], keys), ["hour"]) == {(7,): first + second}
    with pytest.raises(ValueError, match="different columns"):
        pairs_of(pair_rows([first, some_pairs(("a",), random)], keys), ["hour"])


def test_shorter_lists_of_bins_are_filled_with_zeros() -> None:
    table = sketch_rows([Sketch.empty(["a", "b"])], {"hour": pa.array([0])})
    bins = pa.array([[1, 2], [3] * WIDTH], pa.list_(pa.int64()))
    table = table.set_column(table.column_names.index("bins"), "bins", bins)
    (sketch,) = sketches_of(table, ["hour"]).values()
    assert sketch.bins.tolist() == [[1, 2, *[0] * (WIDTH - 2)], [3] * WIDTH]
