"""Cuts in time: ordered, disjoint, whole instants, of the sizes asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mainspring.core.errors import InvalidData
from mainspring.core.time import DAY, HOUR
from mainspring.training.sets.splits import cut_by_time


def test_a_share_of_the_rows() -> None:
    cut = cut_by_time(np.arange(100), 0.2)
    assert cut == (slice(0, 70), slice(70, 80), slice(80, 100))


def test_a_duration_up_to_the_newest_row() -> None:
    at = np.arange(20) * DAY
    assert cut_by_time(at, "4d") == (slice(0, 14), slice(14, 16), slice(16, 20))


def test_an_instant_is_never_on_both_sides() -> None:
    at = np.array([0] * 10 + [1] * 10 + [2] * 30)
    cut = cut_by_time(at, 0.5)
    assert cut == (slice(0, 10), slice(10, 20), slice(20, 50))


def test_an_embargo_leaves_out_what_lies_just_before() -> None:
    at = np.arange(20) * DAY
    cut = cut_by_time(at, "4d", embargo=12 * HOUR)
    assert cut == (slice(0, 13), slice(14, 15), slice(16, 20))


@given(
    st.lists(st.integers(0, 300), min_size=3, max_size=200).map(sorted),
    st.one_of(st.floats(0.01, 0.6), st.integers(1, 400).map(lambda length: f"{length}us")),
    st.integers(0, 20),
)
def test_the_rules_hold_for_any_rows(instants: list[int], holdout: float | str, embargo: int) -> None:
    at = np.array(instants)
    try:
        cut = cut_by_time(at, holdout, embargo=embargo)
    except InvalidData:
        assume(False)
    train, validation, held_out = (at[part] for part in cut)
    assert train.max() < validation.min() <= validation.max() < held_out.min()
    assert held_out.max() == at.max()
    assert validation.min() - train.max() >= embargo
    assert held_out.min() - validation.max() >= embargo
    left_out = set(range(len(at))) - {row for part in cut for row in range(part.start, part.stop)}
    judged, checked = held_out.min(), validation.min()
    for row in left_out:
        before = judged if at[row] > validation.max() else checked
        assert before - at[row] < embargo + (parse(holdout) if isinstance(holdout, str) else 1)


def parse(holdout: str) -> int:
    return int(holdout.removesuffix("us"))


@pytest.mark.parametrize(
    ("rows", "holdout", "part"),
    [(0, 0.2, "no labelled"), (1, 0.2, "train"), (10, "100d", "train"), (2, 0.5, "train"), (10, "1us", "validation")],
)
def test_an_empty_part_is_named(rows: int, holdout: float | str, part: str) -> None:
    with pytest.raises(InvalidData, match=part):
        cut_by_time(np.arange(rows) * DAY, holdout)


@given(
    st.lists(st.integers(0, 300), min_size=30, max_size=100).map(sorted),
    st.one_of(st.floats(0.2, 0.6), st.integers(60, 150).map(lambda length: f"{length}us")),
    st.integers(0, 25),
)
def test_no_two_parts_share_a_moment_of_a_label(instants: list[int], holdout: float | str, embargo: int) -> None:
    """Every pair of rows of different parts, by brute force: the earlier one's label is known before the later one."""
    try:
        cut = cut_by_time(np.array(instants), holdout, embargo=embargo)
    except InvalidData:
        assume(False)
    parts = [[instants[row] for row in range(part.start, part.stop)] for part in cut]
    for position, earlier in enumerate(parts):
        for later in parts[position + 1 :]:
            for known_from in earlier:
                for asked_at in later:
                    window = range(known_from, known_from + embargo + 1)
                    assert asked_at not in window
                    assert asked_at > window[-1]
