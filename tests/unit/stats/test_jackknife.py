"""Bounds over blocks of time: against plain loops, SciPy and DeLong, and how often they hold the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.time import DAY, HOUR
from mainspring.stats.distributions import student_quantile, student_tail
from mainspring.stats.jackknife import (
    FEWEST_BLOCKS,
    MOST_BLOCKS,
    Estimate,
    estimate,
    holm,
    leave_out,
    time_blocks,
)
from mainspring.stats.metrics import Metric, measure, named

_Floats = npt.NDArray[np.float64]


def metric(name: str) -> Metric:
    found = named(name)
    assert found is not None
    return found


@given(st.floats(-30, 30), st.integers(1, 80))
def test_students_tail_is_scipys(t: float, degrees: int) -> None:
    assert student_tail(t, degrees) == pytest.approx(scipy.stats.t.sf(t, degrees), rel=1e-6, abs=1e-12)


@given(st.floats(0.001, 0.9995), st.integers(1, 80))
def test_students_quantile_is_scipys(probability: float, degrees: int) -> None:
    expected = scipy.stats.t.ppf(probability, degrees)
    assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["auc", "brier", "log_loss", "accuracy", "average_precision", "ece", "rmse", "mae"])
@given(rows=st.integers(2, 60), blocks=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(max_examples=examples(gate=15, deep=100), deadline=None)
def test_a_block_left_out_is_the_metric_of_the_other_rows(name: str, rows: int, blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, score = rng.integers(0, 2, rows), np.round(rng.random(rows), 1)
    block = np.sort(rng.integers(0, blocks, rows))
    block = np.unique(block, return_inverse=True)[1]
    found = leave_out(metric(name), y, score, block)
    kept = [np.ones(rows, bool), *(block != each for each in range(int(block.max()) + 1))]
    expected = [measure(metric(name), y[each], score[each]) if each.any() else math.nan for each in kept]
    assert found == pytest.approx(np.array(expected), nan_ok=True, rel=1e-9, abs=1e-12)


def delong(y: npt.NDArray[Any], first: _Floats, second: _Floats) -> float:
    """The standard error of the difference of two AUCs on the same rows, by pairs of rows as DeLong wrote it."""
    parts = []
    for score in (first, second):
        pairs = score[y == 1][:, None] - score[y == 0][None, :]
        won = (pairs > 0) + 0.5 * (pairs == 0)
        parts.append((won.mean(axis=1), won.mean(axis=0)))
    positives, negatives = parts[0][0] - parts[1][0], parts[0][1] - parts[1][1]
    return math.sqrt(positives.var(ddof=1) / positives.size + negatives.var(ddof=1) / negatives.size)


def test_with_a_row_a_block_the_error_of_a_difference_of_aucs_is_delongs() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    first, second = (np.round(y + rng.normal(size=300) * spread, 1) for spread in (1.0, 1.5))
    block = np.arange(300)
    differences = leave_out(metric("auc"), y, first, block) - leave_out(metric("auc"), y, second, block)
    assert estimate(differences, block).error == pytest.approx(delong(y, first, second), rel=0.01)


def test_the_error_of_a_mean_is_that_of_the_blocks_means() -> None:
    """With equal blocks: the standard deviation of the blocks' means over the root of their number."""
    rng = np.random.default_rng(5)
    y, block = rng.integers(0, 2, 400), np.repeat(np.arange(20), 20)
    score = rng.random(400)
    means = ((score - y) ** 2).reshape(20, 20).mean(axis=1)
    found = estimate(leave_out(metric("brier"), y, score, block), block)
    assert found.error == pytest.approx(means.std(ddof=1) / math.sqrt(20))
    low, high = found.bounds(0.95)
    assert (low, high) == pytest.approx(scipy.stats.t.interval(0.9, 19, means.mean(), found.error))


@given(st.lists(st.integers(0, 400 * DAY), min_size=1, max_size=300), st.sampled_from([HOUR, DAY]))
def test_blocks_follow_time_and_none_is_tiny(times: list[int], length: int) -> None:
    at = np.array(times)
    block = time_blocks(at, length)
    sizes = np.bincount(block)
    assert sizes.size <= MOST_BLOCKS
    assert sizes.min() >= at.size / MOST_BLOCKS or sizes.size == 1
    order = np.argsort(at, kind="stable")
    assert (np.diff(block[order]) >= 0).all()
    assert all(len(set(block[at // length == period])) == 1 for period in set((at // length).tolist()))


def clustered(rng: np.random.Generator, days: int, rows: int) -> tuple[npt.NDArray[Any], _Floats, _Floats]:
    """Days whose weather shifts every label; two models, one of which follows the weather better on some days."""
    of_day = np.repeat(rng.normal(size=days), rows)
    better = np.repeat(rng.normal(size=days), rows)
    signal = rng.normal(size=days * rows)
    y = (signal + of_day + rng.logistic(size=days * rows) > 0).astype(np.int64)
    first = signal + 0.7 * better * signal + rng.normal(size=days * rows)
    second = signal - 0.7 * better * signal + rng.normal(size=days * rows)
    return y, first, second


@pytest.mark.parametrize(("days", "rows"), [(8, 60), (30, 40)])
def test_a_bound_of_95_percent_is_wrong_in_at_most_5_of_100_worlds(days: int, rows: int) -> None:
    """Both models are equal on average, so a lower bound above 0 is wrong. Rows one by one know nothing of days."""
    worlds = examples(gate=150, deep=2000)
    rng = np.random.default_rng(17)
    block, single = np.repeat(np.arange(days), rows), np.arange(days * rows)
    wrong, wrong_by_row = 0, 0
    for _ in range(worlds):
        y, first, second = clustered(rng, days, rows)
        of_blocks = leave_out(metric("auc"), y, first, block) - leave_out(metric("auc"), y, second, block)
        wrong += estimate(of_blocks, block).bounds(0.95)[0] > 0
        if days < 20:
            of_rows = leave_out(metric("brier"), y, first, single) - leave_out(metric("brier"), y, second, single)
            wrong_by_row += estimate(of_rows, single).bounds(0.95)[0] > 0
    assert wrong <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)
    if days < 20:
        assert wrong_by_row > 0.1 * worlds  # the oracle of the test itself: blocks matter here


@pytest.mark.parametrize("sizes", [[400, 20, 20, 20, 20, 20], [1000] + [20] * 50, [300, 300] + [20] * 40])
def test_a_day_with_most_of_the_rows_is_one_draw_of_what_days_share(sizes: list[int]) -> None:
    worlds = examples(gate=150, deep=2000)
    rng = np.random.default_rng(29)
    block, wrong = np.repeat(np.arange(len(sizes)), sizes), 0
    for _ in range(worlds):
        right = rng.random(block.size) < np.clip(0.7 + rng.normal(0, 0.1, len(sizes)), 0, 1)[block]
        found = estimate(leave_out(metric("accuracy"), np.ones(block.size), right * 1.0, block), block)
        wrong += found.known and found.bounds(0.95)[0] > 0.7
    assert wrong <= worlds * 0.06 + 3 * math.sqrt(worlds * 0.06 * 0.94)


def test_the_bound_of_the_calibration_error_holds_and_noise_never_passes() -> None:
    """The true error is 0.05: every probability is told 0.05 too high."""
    worlds = examples(gate=100, deep=1000)
    rng = np.random.default_rng(29)
    block, missed = np.repeat(np.arange(20), 100), 0
    for _ in range(worlds):
        score = rng.uniform(0.1, 0.9, 2000)
        y = (rng.random(2000) < score - 0.05).astype(np.int64)
        missed += estimate(leave_out(metric("ece"), y, score, block), block).bounds(0.95)[1] < 0.05
    assert missed <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)


def test_a_perfect_value_is_not_certain() -> None:
    """Ten faultless trials: the lower bound L of 95 % has L ** 10 = 0.05."""
    found = Estimate(1.0, 0.0, 10)
    assert found.bounds_within_one(0.95) == pytest.approx((0.05 ** (1 / 10), 1.0))
    assert found.bounds(0.95) == (1.0, 1.0)
    assert Estimate(0.0, 0.0, 10).bounds_within_one(0.95) == pytest.approx((0.0, 1 - 0.05 ** (1 / 10)))


def test_few_blocks_or_an_undefined_metric_have_no_bound() -> None:
    y, score = np.array([0, 1, 0, 0, 0, 0]), np.linspace(0, 1, 6)
    assert not estimate(leave_out(metric("auc"), y, score, np.arange(6)), np.arange(6)).known  # no positive without 1
    block = np.repeat(np.arange(FEWEST_BLOCKS - 1), 6)
    y, score = np.tile([0, 1], block.size // 2), np.linspace(0, 1, block.size)
    assert not estimate(leave_out(metric("auc"), y, score, block), block).known


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.2))
def test_holm_rejects_by_the_closed_principle(chances: list[float], alpha: float) -> None:
    """A hypothesis is rejected if Bonferroni rejects every intersection of hypotheses with it: by brute force."""
    every = range(1, 1 << len(chances))
    sets = [[place for place in range(len(chances)) if code >> place & 1] for code in every]
    rejected = {
        code: min(chances[place] for place in members) <= alpha / len(members)
        for code, members in zip(every, sets, strict=True)
    }
    expected = [all(rejected[code] for code in every if code >> place & 1) for place in range(len(chances))]
    assert holm(chances, alpha) == expected
