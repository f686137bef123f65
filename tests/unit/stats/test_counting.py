"""Observations that count, and shares of a bandit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.bandit import STEPS, weights_by_means
from mainspring.stats.sequential.counting import (
    NEVER,
    LabelState,
    first_of_units,
    label_states,
)


def binary(events: list[int], units: list[int]) -> list[tuple[int, int, int]]:
    """Return the sums of values of 0 and 1."""
    return [(number, event, event) for event, number in zip(events, units, strict=True)]


P, K, M = LabelState.PENDING, LabelState.KNOWN, LabelState.MISSING


@pytest.mark.parametrize(
    ("now", "states"),
    [(100, [P, P, P, P]), (110, [K, K, M, M]), (1_000, [K, K, M, M])],
)
def test_a_label_counts_when_its_time_is_over(now: int, states: list[LabelState]) -> None:
    """Labels at once, at the last moment, too late, never."""
    assert label_states([100] * 4, [100, 110, 111, NEVER], now, 10).tolist() == states


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=20), st.integers(0, 50))
def test_a_state_never_changes_after_it_has_matured(rows: list[tuple[int, int]], within: int) -> None:
    made, came = np.array([made for made, _ in rows], int), np.array([made + delay for made, delay in rows], int)
    before = label_states(made, came, 0, within)
    for now in range(1, 220):
        after = label_states(made, np.where(came <= now, came, NEVER), now, within)  # what is known at `now`
        assert ((before == after) | (before == P)).all()
        before = after
    assert (before != P).all()


def test_a_unit_counts_once() -> None:
    first, seen = first_of_units([5, 7, 5, 0, 7, 0])
    assert first.tolist() == [True, True, False, False, False, False]
    assert first_of_units([9, 7, 0, 9], seen)[0].tolist() == [True, False, False, False]
    assert first_of_units([], seen)[1] == seen
    assert len(seen) == 16_384


@given(st.lists(st.integers(0, 2**63 - 1), max_size=30), st.integers(0, 30))
def test_units_count_once_however_they_are_split(units: list[int], place: int) -> None:
    whole, seen = first_of_units(units)
    before, part = first_of_units(units[:place])
    after, parts = first_of_units(units[place:], part)
    assert [*before, *after] == whole.tolist()
    assert parts == seen


def test_slots_that_are_shared_lose_units_and_nothing_else() -> None:
    units = np.random.default_rng(1).integers(1, 2**63, 90_000)
    first, seen = first_of_units(units)
    assert 0.7 < first.mean() < 0.75
    assert 0.45 < first_of_units(np.random.default_rng(2).integers(1, 2**63, 1_000), seen)[0].mean() < 0.55
    assert abs((units[first] / 2**63).mean() - 0.5) < 0.005


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: label_states([1, 2], [1], 5, 1), "do not match"),
        (lambda: label_states([1], [1], 5, -1), "within -1"),
        (lambda: weights_by_means(binary([1, 1], [9, 9]), floor=0.6, seed=1), "at least 0.6"),
        (lambda: weights_by_means(binary([1, 1], [9, 9]), floor=0.0, seed=1), "at least 0.0"),
    ],
)
def test_refusals(call: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        call()


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=5),
    st.sampled_from([0.01, 0.1, 0.2]),
)
def test_a_bandits_shares(arms: list[tuple[int, int]], floor: float) -> None:
    events = [event for event, _ in arms]
    found = weights_by_means(binary(events, [event + other for event, other in arms]), floor=floor, seed=1)
    assert sum(found) == pytest.approx(1)
    assert min(found) >= floor - 1e-12
    steps = (np.array(found) - floor) / (1 - len(arms) * floor) * STEPS if len(arms) * floor < 1 else np.zeros(1)
    assert steps == pytest.approx(np.round(steps), abs=1e-6)


def test_a_bandit_prefers_the_better_arm() -> None:
    some, same = binary([30, 90], [1_000, 1_000]), binary([5, 5], [50, 50])
    assert weights_by_means(some, floor=0.1, seed=1) == pytest.approx((0.1, 0.9))
    assert weights_by_means(some, floor=0.1, seed=1, fewer_is_better=True)[0] == pytest.approx(0.9)
    assert weights_by_means(same, floor=0.1, seed=1) == weights_by_means(same, floor=0.1, seed=1)
    sums = [[100, 100.0, 200.0], [100, 200.0, 500.0], [100, 150.0, 325.0]]
    assert weights_by_means(sums, floor=0.05, seed=1)[1] == pytest.approx(0.9)
    assert weights_by_means(sums, floor=0.05, seed=1, fewer_is_better=True)[0] == pytest.approx(0.9)
    assert weights_by_means([[1, 1.0, 1.0], [9, 9.0, 9.0]], floor=0.1, seed=1) == pytest.approx((0.5, 0.5))
