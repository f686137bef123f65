import bisect
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.stats.reference import BINS, ColumnReference, Reference, profile, profile_column
from mainspring.stats.sketches import Ruler

numbers = st.one_of(
    st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 1e308, -1e308]), st.none()
)
texts = st.one_of(st.sampled_from(["a", "b", "c"]), st.text(max_size=3), st.none(), st.just(math.nan))


def counted_one_by_one(reference: ColumnReference, values: list[Any]) -> list[int]:
    bins = [0] * len(reference.bins)
    for value in values:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if reference.kind == "categorical":
            place = reference.categories.index(value) if value in reference.categories else len(bins) - 1
        else:
            place = sum(edge < value for edge in reference.edges)
        bins[place] += 1
    return bins


@given(st.lists(numbers, min_size=1, max_size=80))
def test_numbers_are_counted_as_one_by_one(trained: list[float | None]) -> None:
    reference = profile_column(trained)
    assert (len(reference.edges), len(reference.bins)) == (BINS - 1, BINS)
    assert list(reference.edges) == sorted(reference.edges)
    assert list(reference.bins) == counted_one_by_one(reference, trained)
    finite = [value for value in trained if value is not None and math.isfinite(value)]
    assert (reference.n, reference.nulls, reference.count) == (len(finite), trained.count(None), len(trained))
    if finite and all(abs(value) < 1e100 for value in finite):
        assert reference.mean == pytest.approx(np.mean(finite), rel=1e-9, abs=1e-9)
        assert reference.sd == pytest.approx(np.std(finite), rel=1e-6, abs=1e-6)
        assert reference.below == sum(value < reference.low for value in finite)
        assert reference.above == sum(value > reference.high for value in finite)
        assert reference.commonest_count == max(map(finite.count, finite)) == finite.count(reference.commonest)


@given(st.lists(texts, min_size=1, max_size=60))
def test_categories_are_counted_as_one_by_one(trained: list[Any]) -> None:
    reference = profile_column([*trained, "a"])
    assert reference.kind == "categorical"
    assert list(reference.bins) == counted_one_by_one(reference, [*trained, "a"])
    assert reference.nans == sum(value != value for value in trained)
    assert reference.count == len(trained) + 1


def test_bins_of_a_continuous_column_hold_the_same_share() -> None:
    reference = profile_column(np.random.default_rng(0).normal(size=64_000))
    assert set(reference.bins) <= {999, 1_000, 1_001}


def test_a_common_value_has_a_bin_of_its_own() -> None:
    values = [0.0] * 700 + list(np.linspace(1, 2, 300))
    reference = profile_column(values)
    own = bisect.bisect_left(reference.edges, 0.0)
    assert bisect.bisect_left(reference.edges, -1e-9) < own < bisect.bisect_left(reference.edges, 1e-9)
    assert max(reference.bins) == 700


def test_only_the_commonest_categories_have_a_bin() -> None:
    values = [f"c{number}" for number in range(100) for _ in range(100 - number)]
    reference = profile_column(values)
    assert len(reference.categories) == 64
    assert set(reference.categories) > {f"c{number}" for number in range(40)}
    assert (len(reference.bins), reference.buckets, reference.binned + reference.n // 2) == (80, 16, 5050)
    assert reference.others == sum(reference.bins[64:]) > 0
    again = profile_column(values)
    assert again == reference


def test_categories_are_counted_on_rows_that_did_not_choose_them() -> None:
    values = [f"c{number}" for number in np.random.default_rng(0).integers(0, 1_000, 20_000)]
    reference = profile_column(values)
    chosen = (reference.binned - reference.others) / reference.binned
    assert chosen == pytest.approx(0.064, abs=0.005)  # .098 if chosen and counted on the same rows


def test_few_categories_are_counted_on_all_rows() -> None:
    reference = profile_column(["a"] * 7 + ["b"] * 3 + [None])
    assert (reference.bins, reference.buckets) == ((7, 3, 0), 1)
    assert (reference.commonest, reference.commonest_count) == ("a", 7)


@pytest.mark.parametrize("distinct", [300, 30_000])
def test_the_expected_share_of_unseen_values_is_that_of_later_rows(distinct: int) -> None:
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, distinct + 1)
    names = np.array([f"c{number}" for number in range(distinct)])
    drawn = random.choice(names, 140_000, p=shares / shares.sum())
    reference = profile_column(drawn[:40_000])
    sketch = Ruler(Reference({"x": reference})).sketch({"x": drawn[40_000:]})
    assert reference.unseen is not None
    expected = reference.unseen / reference.unseen_of
    error = math.sqrt(expected * (1 / reference.unseen_of + 1 / 100_000))
    assert sketch.count("unseen")[0] / 100_000 == pytest.approx(expected, abs=4 * error)


def test_the_range_leaves_a_few_of_ten_thousand_outside() -> None:
    values = np.random.default_rng(0).permutation(10_000) / 4
    reference = profile_column(values)
    assert (reference.low, reference.high, reference.below, reference.above) == (0.5, 2499.25, 2, 2)
    assert (reference.commonest, reference.commonest_count, reference.float32) == (0.0, 1, True)
    clipped = np.clip(values, 0.5, 2499.25)
    assert (reference.center, reference.scale) == pytest.approx((clipped.mean(), clipped.std()))
    assert reference.kurtosis == pytest.approx(1.8, abs=0.001)
    assert not profile_column(values + 0.1).float32


@pytest.mark.parametrize("value", [0.1, 1e9, -3.0])
def test_a_constant_column_has_no_spread(value: float) -> None:
    reference = profile_column([value] * 999)
    assert (reference.low, reference.high, reference.center, reference.scale) == (value, value, value, 0.0)
    assert (reference.commonest, reference.commonest_count, reference.kurtosis) == (value, 999, None)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(5), "numeric"),
        (np.arange(5, dtype=np.float32), "numeric"),
        (np.array([True, False, True, True, False]), "numeric"),
        ([1, 2.5, None, True, 0], "numeric"),
        ([None] * 5, "numeric"),
        (np.array([1.5, None, 2, None, 1], dtype=object), "numeric"),
        (["a", None, "b", "a", "a"], "categorical"),
        (np.array(["a", "b", "a", "a", "a"]), "categorical"),
        (np.array(["a", None, "b", "a", math.nan], dtype=object), "categorical"),
    ],
)
def test_the_kind_follows_the_values(values: Any, kind: str) -> None:
    reference = profile_column(values)
    assert (reference.kind, reference.count) == (kind, 5)
    assert sum(reference.bins) == reference.n


def test_nan_is_not_null() -> None:
    reference = profile_column([1.0, math.nan, None, math.inf, None])
    assert (reference.count, reference.nulls, reference.nans, reference.n) == (5, 2, 2, 1)


def test_a_reference_survives_json() -> None:
    random = np.random.default_rng(0)
    reference = profile(
        {
            "delay": random.normal(size=500),
            "big": np.array([1e308, -1e308, 1e308]),
            "carrier": random.choice(np.array(["AA", "ünïcode", '"'], dtype=object), 500),
            "empty": [],
            "null": [None, None],
        }
    )
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference) == reference


def test_the_reference_of_an_older_release_is_read() -> None:
    old = (
        b'{"columns":{"x":{"kind":"categorical","count":3,"nulls":1,"nans":0,"mean":0.0,"sd":0.0,"bins":[2,0],'
        b'"edges":[],"categories":["a"]}}}'
    )
    (column,) = msgspec.json.decode(old, type=Reference).columns.values()
    assert (column.buckets, column.known, column.unseen, column.low, column.kurtosis) == (1, None, None, None, None)
    assert (column.n, column.binned, column.others) == (2, 2, 0)


def test_the_profile_of_very_many_texts_is_small() -> None:
    values = [f"user {number}" for number in range(100_000)]
    assert len(msgspec.json.encode(profile({"x": values}))) < 64_000
