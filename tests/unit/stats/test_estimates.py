"""Estimates before labels: right under covariate shift, blind to concept drift, and with honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from mainspring.stats.estimates import calibration, estimates
from mainspring.stats.quality_figures import auc
from mainspring.stats.quality_sums import Rows, scores_summed, summed


def period(
    rng: np.random.Generator, rows: int, shift: float = 0.0, moved: float = 0.0, flipped: bool = False
) -> np.ndarray:
    """Return the bins of a period: scores too extreme by half, their log-odds shifted, the labels' log-odds moved."""
    x = rng.normal(shift - 1, 1.2, rows)
    score = 1 / (1 + np.exp(-1.5 * x))
    likely = 1 / (1 + np.exp(-(x + moved)))
    y = (rng.random(rows) < (1 - likely if flipped else likely)).astype(float)
    return summed("binary", Rows(score, y)).bins + scores_summed(score)


def realised_brier(bins: np.ndarray) -> float:
    there = bins[:, 0] > 0
    score = bins[there, 2] / bins[there, 0]
    losses = bins[there, 1] * (1 - score) ** 2 + (bins[there, 0] - bins[there, 1]) * score**2
    return float(losses.sum() / bins[:, 0].sum())


def test_the_calibration_is_the_isotonic_regression_of_the_bins() -> None:
    bins = period(np.random.default_rng(1), 5_000)
    there = bins[:, 0] > 0
    oracle = IsotonicRegression().fit(
        np.flatnonzero(there), bins[there, 1] / bins[there, 0], sample_weight=bins[there, 0]
    )
    assert calibration(bins)[there] == pytest.approx(oracle.predict(np.flatnonzero(there)))


def test_a_shift_of_the_inputs_is_estimated_without_labels() -> None:
    rng = np.random.default_rng(2)
    bins = np.array([period(rng, 4_000) for _ in range(20)] + [period(rng, 20_000, shift=1.5)])
    found = estimates("binary", bins, 20, 1)[-1]
    before = np.mean([realised_brier(each) for each in bins[:20]])
    truth = realised_brier(bins[-1])
    assert abs(truth - before) > 0.015
    assert found["brier"].value == pytest.approx(truth, abs=0.006)
    assert found["auc"].value == pytest.approx(float(auc(bins[-1])), abs=0.02)


def test_concept_drift_is_not_seen() -> None:
    rng = np.random.default_rng(3)
    bins = np.array([period(rng, 4_000) for _ in range(20)] + [period(rng, 20_000, flipped=True)])
    found = estimates("binary", bins, 20, 1)[-1]
    assert float(auc(bins[-1])) < 0.3
    assert found["auc"].value > 0.7  # blind, as said


def test_an_interval_of_past_errors_holds_nine_of_ten_periods_whose_concept_wanders() -> None:
    held = {"auc": 0, "brier": 0}
    judged = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        bins = np.array([period(rng, 1_500, rng.normal(0, 0.4), rng.normal(0, 0.3)) for _ in range(60)])
        found = estimates("binary", bins, 60, 2)
        for place in range(12, 60):
            judged += 1
            for name, truth in (("auc", float(auc(bins[place]))), ("brier", realised_brier(bins[place]))):
                each = found[place][name]
                assert each.low is not None
                held[name] += each.low <= truth <= (each.high or 0.0)
    assert all(0.85 <= count / judged <= 0.95 for count in held.values()), held


def test_labels_of_the_period_itself_and_of_the_future_do_not_count() -> None:
    rng = np.random.default_rng(5)
    bins = np.array([period(rng, 1_000) for _ in range(12)])
    blind = bins.copy()
    blind[8:, :, :4] = 0.0
    assert estimates("binary", bins, 8, 2)[:10] == estimates("binary", blind, 8, 2)[:10]


def test_without_enough_labels_nothing_is_estimated_and_without_past_errors_there_is_no_interval() -> None:
    rng = np.random.default_rng(6)
    bins = np.array([period(rng, 300) for _ in range(5)])
    found = estimates("binary", bins, 5, 1)
    assert found[1] == {}
    assert (found[3]["auc"].low, found[3]["auc"].high) == (None, None)
    assert estimates("binary", bins[:0], 0, 1) == []
    assert estimates("tensors", bins, 5, 1) == [{}] * 5


def test_an_empty_period_has_no_estimate() -> None:
    bins = np.array([period(np.random.default_rng(7), 900) for _ in range(4)])
    bins[2] = 0.0
    assert estimates("binary", bins, 4, 1)[2] == {}
