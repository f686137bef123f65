"""Bins, bounds, edges and refusals of the tests on distributions and means."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.distributions import (
    TAIL,
    Bins,
    bins_of,
    log_e_faster,
    log_e_slower,
)
from mainspring.stats.sequential.means import (
    Bounds,
    bounds_of,
    log_e_mean_above,
    log_e_mean_below,
    mean_difference,
    paired_difference,
)
from mainspring.stats.sequential.slowness import WIDTH, Slowness, bins_within, places

BINS = Bins((10.0, 20.0), (0.5, 0.3, 0.2))
UNIT = Bounds(0, 1, 0.5)
NONE = [[0.0] * 33]


def cells(values: list[float]) -> list[list[float]]:
    return [UNIT.cells(values).sum(axis=0).tolist()]


def test_a_value_at_a_threshold_is_below_it_and_a_missing_one_is_slowest() -> None:
    assert BINS.of([5, 10, 10.1, 20, 21, math.inf, math.nan]).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_bins_of_a_history() -> None:
    bins = bins_of(np.arange(1, 1_001), TAIL)
    assert bins.thresholds == (500, 900, 990)
    assert bins.shares == pytest.approx([0.5, 0.4, 0.09, 0.01], abs=0.002)
    assert sum(bins.shares) == pytest.approx(1)
    often_equal = bins_of([0.0] * 80 + [1.0] * 10 + [2.0] * 10, (0.1, 0.5, 0.85))
    assert often_equal.thresholds == (0.0, 1.0)
    assert msgspec.json.decode(msgspec.json.encode(bins), type=Bins) == bins


def test_faster_is_no_evidence_of_slower() -> None:
    faster = [[900, 50, 10]], [[500, 300, 200]]
    assert log_e_slower(BINS, [0.5], *faster) < 0
    assert log_e_faster(BINS, [0.5], *faster) > 5
    assert log_e_faster(BINS, [0.5], *reversed(faster)) < 0


def slowness(candidate: Any, control: Any) -> Slowness:
    both = np.unique(np.concatenate([places(candidate), places(control)]))
    counts = [np.array([(places(arm) == each).sum() for each in both], float)[None] for arm in (candidate, control)]
    return Slowness(tuple(np.quantile(control, TAIL)), np.array([0.5]), both, *counts)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.2, 3.0])
def test_a_factor_is_estimated_and_its_bounds_decide_as_the_test(factor: float) -> None:
    random = np.random.default_rng(8)
    found = slowness(random.lognormal(8, 0.5, 3_000) * factor, random.lognormal(8, 0.5, 3_000))
    estimate, interval = found.interval(0.95)
    assert estimate == pytest.approx(factor, rel=0.04)
    assert interval.low < factor < interval.high < 1.2 * interval.low
    limit = math.log(40)
    for bound, side in ((interval.low, 0), (interval.high, 1)):
        beyond = bound * math.exp(WIDTH if side == 0 else -WIDTH)
        assert found.verdicts(bound)[0] >= limit if side == 0 else found.verdicts(bound)[1] >= limit
        assert found.verdicts(beyond)[side] < limit


def test_a_bin_is_a_fourth_of_ten_percent_and_a_factor_is_rounded_up() -> None:
    assert [bins_within(each) for each in (1.0, 1.1, 1.21, 1.11)] == [0, 4, 8, 5]
    assert places([0, 1, 1.02, 1.1001, 1.1**2 + 1e-6]).tolist() == [0, 0, 0, 4, 8]


def test_a_longer_tail_beside_a_shorter_median_is_not_fine() -> None:
    random = np.random.default_rng(9)
    tail = random.random(4_000) < 0.06
    found = slowness(random.lognormal(8, 0.3, 4_000) * np.where(tail, 8, 0.9), random.lognormal(8, 0.3, 4_000))
    worse, fine = found.verdicts(1.1)
    assert worse > 3
    assert fine == 0


def test_bounds_of_a_history() -> None:
    rare = bounds_of([0.0] * 9_999 + [1.0])
    assert (rare.low, rare.high, rare.centre) == (0, 1, 0.0001)
    tailed = bounds_of(np.random.default_rng(1).pareto(1.5, 100_000))
    assert 0 <= tailed.low < tailed.centre < 10 < tailed.high < 150


def test_sums_are_clipped() -> None:
    assert UNIT.sums([-3, 0.5, 9]).tolist() == [3, 1.5, 1.25]
    assert UNIT.sums([]).tolist() == [0, 0, 0]


def test_nothing_seen_is_no_evidence() -> None:
    assert float(log_e_mean_above(UNIT, [0.1], NONE, NONE)) == pytest.approx(0, abs=1e-9)
    estimate, interval = mean_difference(UNIT, [0.1], NONE, NONE)
    assert math.isnan(estimate)
    assert (interval.low, interval.high) == (-1, 1)
    assert paired_difference(Bounds(-2, 1, 0), [0, 0, 0])[1].high == 1


def test_the_two_directions_mirror_each_other() -> None:
    first, second = cells([0.2] * 30 + [0.9] * 50), cells([0.1] * 60 + [0.8] * 20)
    mirrored = cells([0.8] * 30 + [0.1] * 50), cells([0.9] * 60 + [0.2] * 20)
    above = log_e_mean_above(UNIT, [0.5], first, second, 0.05)
    assert above > 0
    assert float(above) == pytest.approx(float(log_e_mean_below(UNIT, [0.5], *mirrored, -0.05)))


def test_a_stratum_without_a_choice_is_no_evidence() -> None:
    (found,) = cells([0.1, 0.9, 0.9])
    alone = log_e_mean_above(UNIT, [0.3], [found], [found])
    assert float(log_e_mean_above(UNIT, [0.0, 0.3, 1.0], [found] * 3, [found] * 3)) == float(alone)


def test_a_value_is_counted_at_the_two_nodes_beside_it() -> None:
    bounds = Bounds(0, 10, 2, (1.0, 4.0))
    assert bounds.cells([0, 1, 2, 10, 11, -1]).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, pytest.approx(2 / 3), pytest.approx(1 / 3), 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [1, 0, 0, 0],
    ]
    assert bounds.cells([[2.5]]) @ bounds.nodes == pytest.approx(2.5)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60), st.floats(-0.5, 0.5))
def test_numbers_by_node_are_never_more_evidence_than_the_values(rows: list[tuple[bool, float]], null: float) -> None:
    """The wealth of the same bets on the values themselves, one at a time, in Python."""
    weight, largest = 0.3, 0.5 / 0.3 + null
    bets = [*np.geomspace(1e-3, 0.6, 26), 0.7, 0.8, 0.9]
    shares = [bet / (bet**2 + 0.09) for bet in bets]
    total = 0.0
    for bet, share in zip(bets, shares, strict=True):
        wealth = 1.0
        for mine, value in rows:
            payoff = (value - 0.5) / weight if mine else -(value - 0.5) / (1 - weight)
            wealth *= 1 + bet * (payoff - null) / largest
        total += share / sum(shares) * wealth
    arms = [cells([value for mine, value in rows if mine is arm]) for arm in (True, False)]
    assert float(log_e_mean_above(UNIT, [weight], *arms, null)) <= math.log(total) + 1e-9


def test_pairs_whose_least_difference_is_nothing_have_a_mean() -> None:
    bounds = Bounds(0, 1, 0)
    estimate, interval = paired_difference(bounds, bounds.sums([0.1, 0.2, 0.9]))
    assert estimate == pytest.approx(0.4)
    assert interval.low <= estimate <= interval.high
    below = Bounds(-1, 0, 0)
    assert paired_difference(below, below.sums([-0.1, -0.2, -0.9]))[0] == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bins_of([], TAIL), "0 values gives no threshold"),
        (lambda: bins_of([3.0] * 50, TAIL), "50 values gives no threshold"),
        (lambda: log_e_slower(BINS, [0.5], [[1, 2]], [[1, 2]]), "do not fit 3 bins"),
        (lambda: bounds_of([2.0, 2.0]), "2 values gives no bounds"),
        (lambda: Bounds(1, 0, 0.5), "bound nothing"),
        (lambda: Bounds(0, math.inf, 0.5), "bound nothing"),
        (lambda: UNIT.sums([0.1, math.nan]), "not a number"),
        (lambda: UNIT.cells([0.1, math.nan]), "not a number"),
        (lambda: Bounds(0, 1, 0.5, (0.4, 0.4)), "do not rise"),
        (lambda: paired_difference(UNIT, [1, 7.0, 49.0]), "impossible"),
        (lambda: paired_difference(UNIT, [2, 1.0, 1.9]), "impossible"),
        (lambda: log_e_mean_above(UNIT, [0.5], [[1.0, 2.0]], [[1.0, 2.0]]), "do not fit 33 nodes"),
        (lambda: log_e_mean_above(UNIT, [2.0], NONE, NONE), "not all probabilities"),
        (lambda: log_e_mean_above(UNIT, [0.5, 0.5], NONE, NONE), "do not match"),
        (lambda: mean_difference(UNIT, [0.5], NONE, NONE, 0.0), "confidence of 0.0"),
    ],
)
def test_refusals(call: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        call()
