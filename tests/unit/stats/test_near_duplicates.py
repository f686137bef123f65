"""Near-duplicates: those of the definition, by brute force over all pairs, and planted ones."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.stats.near_duplicates import RECALL, bands, find

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "sleeps",
    "under",
    "some",
    "old",
    "tree",
]


def drawn(seed: int, rows: int, *, numbers: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """Numbers, one of which is mostly constant and one has nulls, categories with nulls, and texts."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray[Any, Any]] = {f"n{place}": rng.normal(size=rows) for place in range(numbers)}
    columns["rare"] = (rng.random(rows) < 0.02).astype(float)
    columns["holes"] = np.where(rng.random(rows) < 0.3, np.nan, rng.normal(size=rows))
    columns["place"] = np.array([None, "north", "south", "west"], object)[rng.integers(0, 4, rows)]
    columns["said"] = np.array([" ".join(rng.choice(WORDS, 12)) for _ in range(rows)], object)
    return columns


def copied(columns: dict[str, np.ndarray[Any, Any]], seed: int, every: int = 7) -> dict[str, np.ndarray[Any, Any]]:
    """The same rows, of which each `every`-th is a copy of a row before it with some noise and one more word."""
    rng = np.random.default_rng(seed)
    columns = {name: values.copy() for name, values in columns.items()}
    for row in range(every, len(columns["rare"]), every):
        of = int(rng.integers(0, row))
        for name, values in columns.items():
            values[row] = values[of] + rng.normal(0, 0.05) if name.startswith("n") else values[of]
        columns["said"][row] = f"{columns['said'][of]} again"
    return columns


def similarity(columns: dict[str, np.ndarray[Any, Any]], spreads: dict[str, float], one: int, two: int) -> float:
    """The definition, pair by pair."""
    total = 0.0
    for name, values in columns.items():
        a, b = values[one], values[two]
        null = [each is None or each != each for each in (a, b)]
        if any(null):
            total += all(null)
        elif values.dtype == object and " " in a:
            words = [each.split() for each in (a, b)]
            pairs = [{*itertools.pairwise(each)} for each in words]
            total += len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])
        elif values.dtype == object:
            total += a == b
        else:
            total += max(0.0, 1 - abs(a - b) / spreads[name])
    return total / len(columns)


def spreads_of(columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    found = {}
    for name, values in columns.items():
        if values.dtype != object:
            known = values[~np.isnan(values)]
            low, high = np.quantile(known, (0.25, 0.75))
            found[name] = (high - low) / 1.349 or known.std() or 1.0
    return found


def defined(columns: dict[str, np.ndarray[Any, Any]], threshold: float) -> dict[int, int]:
    """Row -> the first earlier row that it nearly repeats, by brute force."""
    rows, spreads = len(columns["rare"]), spreads_of(columns)
    firsts = (
        (row, (of for of in range(row) if similarity(columns, spreads, row, of) >= threshold)) for row in range(rows)
    )
    return {row: of for row, some in firsts if (of := next(some, None)) is not None}


@settings(max_examples=examples(gate=4, deep=200), deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.85, 0.9, 0.95]))
def test_repeats_are_those_of_all_pairs(seed: int, threshold: float) -> None:
    columns = copied(drawn(seed, 50), seed)
    found, expected = find(columns, threshold, seed), defined(columns, threshold)
    missed = set(expected) - set(found.rows.tolist())
    assert set(found.rows.tolist()) <= set(expected)
    assert len(missed) <= max(1, 0.02 * len(expected))
    for row, of, alike in zip(found.rows.tolist(), found.of.tolist(), found.similarity.tolist(), strict=True):
        assert alike == pytest.approx(similarity(columns, spreads_of(columns), row, of))
        assert alike >= threshold


def test_a_pair_at_the_threshold_is_compared_nearly_always() -> None:
    """Two rows of twenty categories that differ in one, among others that differ in all."""
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        names = np.array([f"{number:x}" for number in range(1000)], object)
        columns = {f"c{place}": rng.choice(names, 12, replace=False) for place in range(20)}
        for values in columns.values():
            values[9] = values[2]
        columns["c4"][9] = "other"
        repeats = find(columns, 0.95, seed)
        found += repeats.rows.tolist() == [9] and repeats.of.tolist() == [2]
    assert found / 60 >= RECALL - 0.03
    assert [bands(each) for each in (0.8, 0.9, 0.95)] == [186, 26, 10]


def test_planted_copies_are_found_and_no_others_among_many_rows() -> None:
    columns = drawn(3, examples(gate=2_000, deep=40_000), numbers=8)
    assert len(find(columns, 0.95).rows) == 0
    found = find(copied(columns, 3, every=20), 0.95)
    planted = {*range(20, len(columns["rare"]), 20)}
    assert set(found.rows.tolist()) <= planted
    assert len(found.rows) >= 0.97 * len(planted)


def test_equal_rows_are_found_however_many_they_are() -> None:
    columns = {"a": np.zeros(5_000), "b": np.full(5_000, None, object)}
    found = find(columns, 1.0)
    assert found.rows.tolist() == [*range(1, 5_000)]
    assert set(found.of.tolist()) == {0}
    assert set(found.similarity.tolist()) == {1.0}
    assert len(find({"a": np.array([1.0, np.nan, np.inf, -np.inf, np.nan])}, 0.95).rows) == 1
    assert len(find({}, 0.95).rows) == len(find({"a": np.zeros(1)}, 0.95).rows) == 0
