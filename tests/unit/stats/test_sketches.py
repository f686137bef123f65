import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.stats.reference import ColumnReference, Reference, profile
from mainspring.stats.sketches import COUNTS, WIDTH, Pairs, Ruler, Sketch
from mainspring.stats.text_hash import text_hash

numbers = st.one_of(
    st.floats(-1e6, 1e6),
    st.integers(-3, 3),
    st.booleans(),
    st.sampled_from([0.1, 0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 2**53 + 1, 10**400, -(10**400)]),
    st.none(),
)
hostile = st.one_of(numbers, st.sampled_from(["", "a", "1.5", "nan", b"x"]), st.lists(st.integers(), max_size=1))
texts = st.one_of(
    st.sampled_from(["a", "b", "c", "", "ünï"]), st.text(max_size=2), st.none(), st.just(math.nan), st.integers(0, 1)
)


def one_by_one(reference: ColumnReference, values: Sequence[Any]) -> tuple[dict[str, int], list[int], list[float]]:
    """Count value by value in plain Python, by the definitions alone."""
    counts, bins, sums = dict.fromkeys(COUNTS, 0), [0] * WIDTH, [0.0] * 4
    known = None if reference.known is None else {*np.frombuffer(reference.known, "<u4").tolist()}
    for value in values:
        counts["rows"] += 1
        if value is None or (value == "" and reference.kind == "categorical" and 0 not in (known or {})):
            counts["nulls"] += 1
            continue
        if isinstance(value, float) and math.isnan(value):
            counts["nans"] += 1
            continue
        if reference.kind == "categorical":
            if not isinstance(value, str):
                counts["type_errors"] += 1
                continue
            place = len(reference.categories) + text_hash(value) % reference.buckets
            if value in reference.categories:
                place = reference.categories.index(value)
            bins[place] += 1
            counts["unseen"] += known is not None and text_hash(value) not in known
            counts["commonest"] += value == reference.commonest
            continue
        if not isinstance(value, int | float):
            counts["type_errors"] += 1
            continue
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            counts["nans"] += 1
            continue
        if reference.float32:
            with np.errstate(over="ignore"):
                narrow = float(np.float32(number))
            number = number if math.isinf(narrow) else narrow
        bins[sum(edge < number for edge in reference.edges)] += 1
        if reference.low is not None and reference.high is not None and reference.center is not None:
            counts["below"] += number < reference.low
            counts["above"] += number > reference.high
            counts["commonest"] += number == reference.commonest
            clipped = max(reference.low, min(reference.high, max(-1e150, min(1e150, number))))
            clipped = max(-1e150, min(1e150, clipped))
            z = (clipped - reference.center) / (reference.scale or 1.0)
            sums = [total + z**power for power, total in enumerate(sums, 1)]
    return counts, bins, sums


def check(reference: ColumnReference, values: Sequence[Any], given: Any = None) -> None:
    sketch = Ruler(Reference({"x": reference})).sketch({"x": values if given is None else given})
    counts, bins, sums = one_by_one(reference, values)
    assert dict(zip(COUNTS, sketch.counts[0].tolist(), strict=True)) == counts
    assert sketch.bins[0].tolist() == bins
    assert sketch.sums[0].tolist() == pytest.approx(sums, rel=1e-9, abs=1e-9)


def moderate(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if not isinstance(value, int | float) or not abs(value) > 1e7]


@given(st.lists(numbers, max_size=60), st.lists(hostile, max_size=60))
def test_numbers_are_counted_as_one_by_one(trained: list[Any], later: list[Any]) -> None:
    (reference,) = profile({"x": moderate(trained)}).columns.values()
    check(reference, later)


@given(st.lists(texts, max_size=60), st.lists(st.one_of(texts, hostile), max_size=60))
def test_texts_are_counted_as_one_by_one(trained: list[Any], later: list[Any]) -> None:
    (reference,) = profile({"x": [*trained, "a"]}).columns.values()
    check(reference, later)


def test_texts_of_many_categories_are_counted_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    (reference,) = profile({"x": [f"c{number}" for number in random.integers(0, 500, 4_000)]}).columns.values()
    assert (len(reference.categories), reference.buckets, len(reference.bins)) == (64, 16, 80)
    check(reference, [*(f"c{number}" for number in random.integers(0, 600, 2_000)), None, "", math.nan, 3, b"c1"])


@given(st.lists(numbers, max_size=40), st.lists(st.lists(hostile, max_size=20), min_size=2, max_size=4))
def test_the_sketch_of_all_rows_is_the_sum_in_any_order(trained: list[Any], parts: list[list[Any]]) -> None:
    ruler = Ruler(profile({"x": moderate(trained), "t": ["a", "b", *map(str, trained)]}))
    columns = [{"x": part, "t": [*map(str, part)]} for part in parts]
    whole, pairs = ruler.measure({name: [value for each in columns for value in each[name]] for name in ("x", "t")})
    made = [ruler.measure(each) for each in columns]
    forwards, backwards = made[0], made[-1]
    for sketch, pair in made[1:]:
        forwards = forwards[0] + sketch, forwards[1] + pair
    for sketch, pair in made[-2::-1]:
        backwards = backwards[0] + sketch, backwards[1] + pair
    for sketch, pair in (forwards, backwards):
        assert np.array_equal(sketch.counts, whole.counts)
        assert np.array_equal(sketch.bins, whole.bins)
        assert sketch.sums == pytest.approx(whole.sums, rel=1e-9, abs=1e-9)
        assert pair.rows == pairs.rows
        assert pair.products == pytest.approx(pairs.products, abs=1e-9)
    empty = Sketch.empty(ruler.columns)
    assert whole + empty == empty + whole == whole
    assert pairs + Pairs.empty(ruler.columns) == pairs


def test_each_row_is_in_one_place() -> None:
    ruler = Ruler(profile({"x": [1.0, 2.0], "t": ["a", "b"]}))
    sketch = ruler.sketch({"x": [1, None, math.nan, "1", math.inf], "t": ["a", "new", None, "", 1, math.nan]})
    missing = sketch.count("nulls") + sketch.count("nans") + sketch.count("type_errors")
    assert (sketch.present + missing).tolist() == sketch.count("rows").tolist() == [5, 6]
    assert sketch.count("unseen").tolist() == [0, 1]


@pytest.mark.parametrize("trained", [np.arange(100.0), np.full(50, 0.1), np.array([], float), np.array([3.0])])
@pytest.mark.parametrize("rows", [0, 1, 300])
def test_arrays_lists_and_arrow_give_one_sketch(trained: Any, rows: int) -> None:
    ruler = Ruler(profile({"x": trained}))
    random = np.random.default_rng(rows)
    whole = random.integers(-5, 120, rows)
    values = np.where(random.random(rows) < 0.1, np.nan, whole + 0.0)
    expected = ruler.sketch({"x": values})
    chunks = pa.chunked_array([pa.array(values[:7]), pa.array(values[7:])])
    for same in (values.tolist(), pa.array(values), chunks, values.astype(np.float32), values.astype(object)):
        assert ruler.sketch({"x": same}) == expected
    expected = ruler.sketch({"x": whole})
    for same in (
        whole.tolist(),
        pa.array(whole),
        whole.astype(np.int32),
        whole.astype(float),
        pa.array(whole, "int32"),
    ):
        assert ruler.sketch({"x": same}) == expected
    flags = ruler.sketch({"x": whole > 0})
    for same in ((whole > 0).tolist(), pa.array(whole > 0), (whole > 0) + 0.0):
        assert ruler.sketch({"x": same}) == flags


@pytest.mark.parametrize("rows", [0, 1, 300])
def test_texts_from_lists_arrays_and_arrow_give_one_sketch(rows: int) -> None:
    ruler = Ruler(profile({"x": ["a", "b", "c", "a"]}))
    values = [["a", "b", "new", "", None][number] for number in np.random.default_rng(0).integers(0, 5, rows)]
    expected = ruler.measure({"x": values})
    chunks = pa.chunked_array([pa.array(values[:9], pa.string()), pa.array(values[9:], pa.string())])
    arrays = (pa.array(values, pa.string()), pa.array(values, pa.large_string()), chunks, chunks.dictionary_encode())
    for same in (np.array(values, object), *arrays):
        assert ruler.measure({"x": same}) == expected
    plain = [value or "" for value in values]
    assert ruler.sketch({"x": np.array(plain, "U5")}) == ruler.sketch({"x": plain})


@pytest.mark.parametrize(
    ("values", "nulls", "errors"),
    [
        (np.array(["1", "2"]), 0, 2),
        (np.array(["2020-01-01", "NaT"], "M8[D]"), 0, 2),
        (np.array([1j, 2j]), 0, 2),
        (pa.array(["1", None]), 1, 1),
        (pa.array([None, None]), 2, 0),
        (pa.array([[1], None]), 1, 1),
        (["1", None], 1, 1),
        ([{"a": 1}, [2]], 0, 2),
    ],
)
def test_texts_and_times_are_no_numbers(values: Any, nulls: int, errors: int) -> None:
    sketch = Ruler(profile({"x": [1.0, 2.0]})).sketch({"x": values})
    assert sketch.count("nulls").tolist() == [nulls]
    assert sketch.count("type_errors").tolist() == [errors]
    assert sketch.present.tolist() == [0]


@pytest.mark.parametrize("values", [np.array([1, 2]), [True, 2.5], pa.array([1.5, 2.5]), [b"a", ["a"]]])
def test_numbers_are_no_texts(values: Any) -> None:
    sketch = Ruler(profile({"x": ["a", "b"]})).sketch({"x": values})
    assert sketch.count("type_errors").tolist() == [2]


def test_a_clients_tenth_is_the_float32_seen_in_training() -> None:
    reference = profile({"x": np.full(100, 0.1, np.float32)})
    sketch = Ruler(reference).sketch({"x": [0.1] * 10})
    assert sketch.count("commonest").tolist() == [10]
    assert (sketch.count("below") + sketch.count("above")).tolist() == [0]
    wide = profile({"x": np.full(100, 0.1)})
    assert Ruler(wide).sketch({"x": [float(np.float32(0.1))]}).count("above").tolist() == [1]


def test_ranks_of_the_training_rows_have_mean_zero_and_their_products_are_the_correlation() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=20_000)
    columns = {"x": x, "y": 0.8 * x + 0.6 * random.normal(size=x.size), "t": np.where(x > 0, "up", "down")}
    ruler = Ruler(profile(columns))
    sketch, pairs = ruler.measure(columns)
    assert (sketch.bins * ruler.ranks()).sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-6)
    ranked = np.argsort(np.argsort(np.stack([x, columns["y"]]), axis=1), axis=1)
    spread = np.sqrt(np.diag(pairs.products))
    found = pairs.products / np.outer(spread, spread)
    assert found[0, 1] == pytest.approx(np.corrcoef(ranked)[0, 1], abs=0.005)
    assert np.array_equal(pairs.products, pairs.products.T)


def test_missing_values_have_no_part_in_products() -> None:
    ruler = Ruler(profile({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}))
    _, complete = ruler.measure({"x": [1.0, 3.0], "y": [3.0, 1.0]})
    _, pairs = ruler.measure({"x": [1.0, None, 3.0, math.nan], "y": [3.0, 3.0, 1.0, "1"]})
    assert pairs.rows == 4
    assert pairs.products[0] == pytest.approx(complete.products[0])


def test_columns_of_different_lengths_have_no_products() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Ruler(profile({"x": [1.0], "y": [1.0]})).measure({"x": [1.0], "y": [1.0, 2.0]})


def test_only_known_columns_are_sketched_and_a_missing_one_has_no_rows() -> None:
    reference = profile({"x": [1.0], "y": [1.0]})
    ruler = Ruler(reference, ["y", "new", "x"])
    assert ruler.columns == ("y", "x")
    sketch = ruler.sketch({"x": [1.0], "new": [1.0]})
    assert sketch.count("rows").tolist() == [0, 1]
    assert sketch.select(["x"]).columns == ("x",)
    with pytest.raises(ValueError, match="different columns"):
        sketch + sketch.select(["x"])


def test_a_reference_of_an_older_release_is_sketched_without_what_it_lacks() -> None:
    old = Reference(
        {
            "x": ColumnReference(
                kind="numeric", count=3, nulls=0, nans=0, mean=2.0, sd=0.5, bins=(3, *[0] * 63), edges=(3.0,) * 63
            ),
            "t": ColumnReference(
                kind="categorical", count=3, nulls=0, nans=0, mean=0.0, sd=0.0, bins=(3, 0), categories=("a",)
            ),
        }
    )
    sketch = Ruler(old, float32=["x"]).sketch({"x": [2.0, 3.0, 1e300], "t": ["a", "b", ""]})
    assert sketch.bins[:, [0, 1, 63]].tolist() == [[2, 0, 1], [1, 1, 0]]
    assert sketch.count("above").tolist() == [0, 0]
    assert sketch.count("unseen").tolist() == [0, 1]
    assert np.isfinite(sketch.sums).all()
    assert Ruler(old).sketch({"x": [2.0, 3.0]}).sums[0].tolist() == [2.0, 4.0, 8.0, 16.0]
