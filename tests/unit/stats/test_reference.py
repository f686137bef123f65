import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.stats.reference import BINS, ColumnReference, Counts, Reference, count_bins, profile, profile_column
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


@given(st.lists(numbers, min_size=1, max_size=80), st.lists(numbers, max_size=80))
def test_numbers_are_counted_as_one_by_one(trained: list[float | None], later: list[float | None]) -> None:
    reference = profile_column(trained)
    assert (len(reference.edges), len(reference.bins)) == (BINS - 1, BINS)
    assert list(reference.edges) == sorted(reference.edges)
    counts = count_bins(reference, later)
    assert list(counts.bins) == counted_one_by_one(reference, later)
    finite = [value for value in later if value is not None and math.isfinite(value)]
    assert (counts.n, counts.nulls) == (len(finite), later.count(None))
    assert counts.rows == len(later)
    moderate = [value for value in finite if abs(value) < 1e100]
    if moderate == finite and finite:
        assert counts.mean == pytest.approx(np.mean(finite), rel=1e-9, abs=1e-9)
        assert counts.sd == pytest.approx(np.std(finite), rel=1e-6, abs=1e-6)
    assert math.isfinite(counts.m2)


@given(st.lists(texts, min_size=1, max_size=60), st.lists(texts, max_size=60))
def test_categories_are_counted_as_one_by_one(trained: list[Any], later: list[Any]) -> None:
    reference = profile_column([*trained, "a"])
    counts = count_bins(reference, later)
    assert reference.kind == "categorical"
    assert list(counts.bins) == counted_one_by_one(reference, later)
    assert counts.nans == sum(value != value for value in later)
    assert counts.rows == len(later)


@given(st.lists(numbers, min_size=1, max_size=40), st.lists(st.lists(numbers, max_size=20), max_size=6), st.randoms())
def test_merging_in_any_order_equals_one_pass(trained: list[Any], parts: list[list[Any]], random: Any) -> None:
    reference = profile_column(trained)
    whole = count_bins(reference, [value for part in parts for value in part])
    counts = [count_bins(reference, part) for part in parts] or [whole]
    while len(counts) > 1:
        random.shuffle(counts)
        counts.append(counts.pop().merge(counts.pop()))
    (merged,) = counts
    assert (merged.n, merged.nulls, merged.nans, merged.bins) == (whole.n, whole.nulls, whole.nans, whole.bins)
    finite = [value for part in parts for value in part if value is not None and math.isfinite(value)]
    scale = max((min(abs(value), 1e150) for value in finite), default=0.0)
    assert merged.mean == pytest.approx(whole.mean, abs=1e-12 * scale)
    assert merged.m2 == pytest.approx(whole.m2, abs=1e-11 * scale**2)


def test_moments_of_large_values_do_not_cancel() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=10_000)
    reference = profile_column(values)
    merged = count_bins(reference, values[:3_000]).merge(count_bins(reference, values[3_000:]))
    assert merged.sd == pytest.approx(np.std(values), rel=1e-9)


def test_bins_of_a_continuous_column_hold_the_same_share() -> None:
    reference = profile_column(np.random.default_rng(0).normal(size=64_000))
    assert set(reference.bins) <= {999, 1_000, 1_001}


def test_a_common_value_has_a_bin_of_its_own() -> None:
    values = [0.0] * 700 + list(np.linspace(1, 2, 300))
    reference = profile_column(values)
    assert count_bins(reference, [0.0]).bins != count_bins(reference, [-1e-9]).bins
    assert count_bins(reference, [0.0]).bins != count_bins(reference, [1e-9]).bins
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


def test_the_range_leaves_a_thousandth_outside() -> None:
    values = np.random.default_rng(0).permutation(10_000) / 4
    reference = profile_column(values)
    assert (reference.low, reference.high, reference.below, reference.above) == (1.25, 2498.5, 5, 5)
    assert (reference.commonest, reference.commonest_count, reference.float32) == (0.0, 1, True)
    clipped = np.clip(values, 1.25, 2498.5)
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
    assert count_bins(reference, [math.nan, None, None, 1.0]).null_share == 0.75


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
    counts = count_bins(reference.columns["big"], [1e308, 1.0])
    assert msgspec.json.decode(msgspec.json.encode(counts), type=Counts) == counts


def test_counts_of_other_bins_are_not_merged() -> None:
    one = profile_column(["a", "b"])
    with pytest.raises(ValueError, match="zip"):
        count_bins(one, ["a"]).merge(count_bins(profile_column(["a"]), ["a"]))


def test_a_window_can_be_the_reference_of_the_next() -> None:
    reference = profile_column(np.arange(1_000.0))
    window = reference.with_counts(count_bins(reference, [1.0, 2.0, None]))
    assert (window.edges, window.count, window.nulls, window.mean) == (reference.edges, 3, 1, 1.5)
