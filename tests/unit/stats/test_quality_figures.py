"""Metrics from additive sums against the metrics of the rows, and coverage of their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    ndcg_score,
    precision_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

from mainspring.stats.quality_figures import auc, auc_resolution, calibration_curve, figures
from mainspring.stats.quality_sums import Rows, Sums, scores_summed, summed, with_rankings

pytestmark = pytest.mark.slow


def binary(rows: int, seed: int, shift: float = -1.2, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-rng.normal(shift, spread, rows)))
    return (rng.random(rows) < score).astype(float), score


def test_binary_metrics_are_those_of_the_rows() -> None:
    y, score = binary(5_000, 1)
    found = figures("binary", [summed("binary", Rows(score, y, threshold=0.4))])
    expected = {
        "brier": brier_score_loss(y, score),
        "log_loss": log_loss(y, score),
        "accuracy": accuracy_score(y, score >= 0.5),
        "precision": precision_score(y, score >= 0.4),
        "recall": recall_score(y, score >= 0.4),
        "bias": float((score - y).mean()),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert all(each.low <= each.value <= each.high for each in found.values())


@pytest.mark.parametrize(
    ("shift", "spread", "most"), [(-1.2, 1.0, 2e-4), (-4.0, 1.0, 2e-4), (0.0, 3.0, 2e-4), (-6.0, 0.5, 2e-3)]
)
def test_the_auc_errs_by_less_than_its_stated_resolution(shift: float, spread: float, most: float) -> None:
    y, score = binary(20_000, 3, shift, spread)
    sums = summed("binary", Rows(score, y))
    off = abs(float(auc(sums.bins)) - roc_auc_score(y, score))
    assert off <= float(auc_resolution(sums.bins))
    assert off < most


def test_sums_of_parts_add_up_to_those_of_the_whole_and_can_be_taken_away() -> None:
    y, score = binary(1_000, 5)
    parts = [summed("binary", Rows(score[part], y[part])) for part in (slice(0, 300), slice(300, 1_000))]
    whole = summed("binary", Rows(score, y))
    added = parts[0] + parts[1]
    assert np.allclose(added.totals, whole.totals, rtol=1e-12)
    assert np.allclose(added.bins, whole.bins, rtol=1e-12)
    assert (whole - added).empty
    assert not (whole - parts[0]).empty


def test_missing_scores_and_labels_count_as_labels_without_a_score() -> None:
    nothing = Rows(np.array([0.2, math.nan, 0.8]), np.array([0.0, 1.0, 1.0]))
    sums = summed("binary", nothing)
    assert (sums["labels"], sums["scored"], sums["label"]) == (3.0, 2.0, 1.0)
    assert figures("binary", [sums])["brier"].value == pytest.approx(0.04)
    assert figures("binary", [Sums.nothing()]) == {}
    assert figures("binary", []) == {}


def test_one_row_and_one_class_have_the_figures_that_are_defined() -> None:
    found = figures("binary", [summed("binary", Rows(np.array([0.3]), np.array([1.0])))])
    assert "auc" not in found
    assert (found["brier"].low, found["brier"].high) == (None, None)
    assert found["accuracy"].low is not None


def test_several_classes() -> None:
    rng = np.random.default_rng(2)
    classes = rng.dirichlet([1, 2, 3], 3_000)
    place = np.array([rng.choice(3, p=row) for row in classes]).astype(float)
    found = figures("multiclass", [summed("multiclass", Rows(np.zeros(3_000), place, classes))])
    assert found["accuracy"].value == pytest.approx(accuracy_score(place, classes.argmax(axis=1)))
    assert found["log_loss"].value == pytest.approx(log_loss(place, classes))
    assert found["brier"].value == pytest.approx(((classes - np.eye(3)[place.astype(int)]) ** 2).sum(axis=1).mean())
    assert found["ece"].value < 0.03


def test_regression_with_a_naive_forecast_and_a_quantile() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(10, 3, 2_000)
    score, naive = y + rng.normal(0.5, 1, 2_000), y + rng.normal(0, 2, 2_000)
    found = figures("regression", [summed("regression", Rows(score, y, naive=naive, quantile=0.7))])
    expected = {
        "mae": mean_absolute_error(y, score),
        "rmse": root_mean_squared_error(y, score),
        "bias": float((score - y).mean()),
        "mase": mean_absolute_error(y, score) / mean_absolute_error(y, naive),
        "quantile_loss": mean_pinball_loss(y, score, alpha=0.7),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-12)


def test_rankings_are_those_of_each_group() -> None:
    rng = np.random.default_rng(6)
    score, gain = rng.random((50, 12)), rng.integers(0, 3, (50, 12)).astype(float)
    gain[7] = 0.0  # nothing to find: left out
    kept = np.arange(50) != 7
    group = np.repeat(np.arange(50), 12)
    sums = with_rankings(Sums.nothing(), score.ravel(), gain.ravel(), group, 5)
    found = figures("binary", [sums])
    assert found["ndcg"].value == pytest.approx(ndcg_score(gain[kept], score[kept], k=5))
    whole = with_rankings(Sums.nothing(), score.ravel(), gain.ravel(), group, 12)
    mean = np.mean([average_precision_score(g > 0, s) for g, s in zip(gain[kept], score[kept], strict=True)])
    assert figures("binary", [whole])["map"].value == pytest.approx(mean)
    assert found["ndcg"].rows == 49


def test_the_calibration_curve_holds_every_row_once() -> None:
    y, score = binary(4_000, 8)
    curve = calibration_curve(summed("binary", Rows(score, y)).bins)
    assert sum(each["rows"] for each in curve) == 4_000
    assert len(curve) == 10
    assert all(each["low"] <= each["score"] <= each["high"] for each in curve[1:-1:3])


def test_predictions_without_labels_have_bins_of_their_scores() -> None:
    bins = scores_summed(np.array([0.1, 0.9, math.nan, 0.9]))
    assert bins.sum(axis=0).tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 3.0, 1.9])


def test_an_interval_of_independent_rows_holds_the_truth() -> None:
    # Of the calibration error, which is never negative, the interval says what noise can do, no more: not judged here.
    names = ("auc", "brier", "log_loss", "accuracy", "bias", "precision", "recall")
    y, score = binary(400_000, 99)
    truth = figures("binary", [summed("binary", Rows(score, y, threshold=0.4))])
    held = dict.fromkeys(names, 0)
    for seed in range(200):
        y, score = binary(800, seed)
        found = figures("binary", [summed("binary", Rows(score, y, threshold=0.4))])
        for name in names:
            held[name] += found[name].low <= truth[name].value <= found[name].high
    assert all(180 <= each <= 199 for each in held.values()), held


def test_an_interval_over_days_is_wider_where_days_differ() -> None:
    days, held, one_by_one = 20, 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        blocks = []
        for _ in range(days):
            moved = rng.normal(0, 0.5)  # a day's weather moves all its rows
            score = 1 / (1 + np.exp(-rng.normal(-1, 1, 300)))
            y = (rng.random(300) < 1 / (1 + np.exp(-(np.log(score / (1 - score)) + moved)))).astype(float)
            blocks.append(summed("binary", Rows(score, y)))
        found = figures("binary", blocks)["bias"]
        alone = figures("binary", [sum(blocks[1:], blocks[0])])["bias"]
        truth = -0.004  # of the mixture over days, by 4,000,000 rows
        held += found.low <= truth <= found.high
        one_by_one += alone.low <= truth <= alone.high
    assert held >= 135
    assert one_by_one < 100
