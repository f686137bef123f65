"""Summaries for display: distinct values, quantiles and most frequent values, whatever the partition of the rows."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.monitoring.adapters.summary_rows import summaries_of, with_summaries
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler
from mainspring.stats.summaries import MOST_FREQUENT, Summary, added, of_numbers, of_texts
from mainspring.stats.text_hash import text_hash


def of_words(words: list[str]) -> Summary:
    counted = Counter(words)
    hashes = np.fromiter(map(text_hash, counted), np.uint64, len(counted))
    return of_texts([*counted], hashes, np.fromiter(counted.values(), np.int64, len(counted)))


@pytest.mark.parametrize("many", [1, 7, 64, 300, 5_000, 200_000])
def test_distinct_values_are_counted_as_well_as_hyperloglog_does(many: int) -> None:
    numbers = np.random.default_rng(many).permutation(np.repeat(np.arange(many) * 0.25 - 3.0, 3))
    parts = [of_numbers(part, 0.0, 1.0) for part in np.array_split(numbers, 7) if len(part)]
    assert abs(added(parts).distinct() - many) <= max(1, 0.1 * many)  # three standard errors
    texts = of_words([f"order-{number}" for number in range(many)])
    assert abs(texts.distinct() - many) <= (0.1 * many if many > MOST_FREQUENT else 0)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), st.integers(1, 5))
def test_quantiles_and_registers_do_not_depend_on_the_partition(values: list[float], pieces: int) -> None:
    numbers = np.array(values)
    whole = of_numbers(numbers, 2.0, 3.0)
    parts = added(of_numbers(part, 2.0, 3.0) for part in np.array_split(numbers, pieces))
    assert np.array_equal(whole.registers, parts.registers)
    assert (whole.places.tolist(), whole.weights.tolist()) == (parts.places.tolist(), parts.weights.tolist())
    for share in (0.0, 0.01, 0.5, 0.99, 1.0):
        exact = float(np.sort(numbers)[max(0, math.ceil(share * len(numbers)) - 1)])
        spread = 3.0 * math.hypot(1.0, (exact - 2.0) / 3.0)  # a bin is 1/64 of it wide
        assert abs((parts.quantile(share, 2.0, 3.0) or 0.0) - exact) <= spread / 32


def test_quantiles_of_many_rows_are_those_of_a_sample_and_whole_where_the_numbers_are() -> None:
    rng = np.random.default_rng(3)
    numbers = rng.lognormal(sigma=1.0, size=200_000)
    summary = added(of_numbers(part, 1.6, 2.2) for part in np.array_split(numbers, 20))
    for share in (0.01, 0.5, 0.99):
        assert summary.quantile(share, 1.6, 2.2) == pytest.approx(float(np.quantile(numbers, share)), rel=0.05, abs=0.1)
    assert of_numbers(np.full(10, 30.0), 28.0, 4.0).quantile(0.5, 28.0, 4.0) == 30.0
    assert of_numbers(np.array([-0.0, 0.0]), 0.0, 1.0).distinct() == 1
    assert (Summary().quantile(0.5, 0.0, 1.0), Summary().distinct()) == (None, 0)
    huge = of_numbers(np.array([1e308, -1e308]), 0.0, 1e-3)
    assert huge.quantile(0.01, 0.0, 1e-3) is not None


@given(st.lists(st.lists(st.integers(0, 300), max_size=120), max_size=6))
def test_the_count_of_a_frequent_value_is_a_bound(parts: list[list[int]]) -> None:
    summary = added(of_words([str(number) for number in part]) for part in parts)
    exact = Counter(str(number) for part in parts for number in part)
    assert len(summary.frequent) <= MOST_FREQUENT
    assert summary.missed <= exact.total() / (MOST_FREQUENT + 1)
    for text, count in exact.items():
        found = summary.frequent.get(text, 0)
        assert count - summary.missed <= found <= count


def test_a_ruler_summarises_what_it_counts_except_what_identifies_a_person() -> None:
    reference = profile({"a": np.arange(100.0), "b": ["x"] * 60 + ["y"] * 40, "name": ["ana", "bob"] * 50})
    assert (reference.columns["a"].distinct, reference.columns["a"].quantiles) == (100, (0.0, 49.0, 98.0))
    assert reference.columns["b"].distinct == 2
    rows = {"a": [5.0, 5.0, None, math.nan, "text"], "b": ["x", "new", "x", None, ""], "name": ["ana"] * 5}
    sketch, pairs, (of_a, of_b, of_name) = Ruler(reference).measure_all(rows, hidden=["name"])
    assert (sketch, pairs) == Ruler(reference).measure(rows)
    assert of_a is not None
    assert of_b is not None
    assert of_name is None
    assert (of_a.distinct(), of_a.weights.tolist()) == (1, [2])
    assert (of_b.distinct(), of_b.frequent) == (2, {"x": 2, "new": 1})
    encoded = {"b": pa.array(rows["b"])}
    assert Ruler(reference, ["b"]).measure_all(encoded)[2][0].frequent == of_b.frequent  # type: ignore[union-attr]
    rows_of_both = with_summaries(pa.table({"k": [1, 2, 3]}), [of_a, None, of_b])
    back = summaries_of(rows_of_both)
    assert back[1] is None
    assert [(each.distinct(), each.frequent) for each in back if each] == [(1, {}), (2, of_b.frequent)]
    assert summaries_of(pa.table({"k": [1]})) == [None]
