"""Estimates of quality before labels, from the scores alone, with intervals from their own past errors.

Confidence-based estimation: labelled predictions of the past say how often a score of each bin is right (isotonic
regression; Zadrozny and Elkan, KDD 2002), and the scores of a new period are taken at these rates. For numbers the same
is done with the mean error of each bin (direct loss estimation). So only what moves the scores is seen: if the relation
of inputs and labels changes, concept drift, the estimate does not.

How wrong such estimates are is not known beforehand, but afterwards: the interval is that of Student's t over past
errors, estimate minus realised, and its level follows whether past intervals held (adaptive conformal inference: Gibbs
and Candes, arXiv 2106.00170).

Shapes: periods in order of time, bins (periods, 64, cells) as in `stats.quality_sums`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from mainspring.stats.distributions import student_quantile
from mainspring.stats.quality_sums import BINS, CELLS, Floats

LEVEL = 0.1  # of intervals that need not hold the truth
FEWEST_ROWS = 500  # labelled before a period, for an estimate
FEWEST_ERRORS = 5  # past periods, for an interval
_STEP = 0.05  # by which the level follows each period
_LEVELS = (0.01, 0.5)


class Estimate(msgspec.Struct, frozen=True):
    """Estimated value of a metric with a 90% interval; the interval is null while too few past errors are known."""

    value: float
    low: float | None
    high: float | None
    errors: int  # past periods whose errors gave the interval


def estimates(task: str, bins: Floats, ripe: int, delay: int, overlap: int = 1) -> list[dict[str, Estimate]]:
    """Return the estimates of each period, by metric; nothing for a period without enough labels before it.

    An estimate uses the labels of periods that were ripe when the period ended, and their errors.

    Args:
        bins: Sums of each period; the cells of labelled rows count for ripe periods only.
        ripe: Number of periods, from the first, whose labels have come.
        delay: Number of periods after which the labels of a period have come.
        overlap: Number of periods that share rows, such as 7 for weeks that begin each day.
    """
    past = np.concatenate([np.zeros((1, BINS, len(CELLS))), np.cumsum(bins, axis=0)])
    step = _STEP / math.sqrt(overlap)
    metrics = _METRICS.get(task, {})
    found: list[dict[str, Estimate]] = [{} for _ in bins]
    for name, (estimate, truth) in metrics.items():
        values, errors = np.full(len(bins), math.nan), np.full(len(bins), math.nan)
        halves, level = np.full(len(bins), math.nan), LEVEL
        for period in range(len(bins)):
            known = max(0, min(ripe, period - delay))
            labelled = past[known]
            if labelled[:, 0].sum() < FEWEST_ROWS or not bins[period, :, 4].any():
                continue
            values[period] = estimate(labelled, bins[period])
            if period < ripe and bins[period, :, 0].any():
                errors[period] = values[period] - truth(bins[period])
            before = errors[:known][np.isfinite(errors[:known])]
            if known and math.isfinite(halves[known - 1]) and math.isfinite(errors[known - 1]):
                missed = abs(errors[known - 1]) > halves[known - 1]
                level = min(max(level + step * (LEVEL - missed), _LEVELS[0]), _LEVELS[1])
            independent = before.size // overlap
            if independent >= FEWEST_ERRORS:
                spread = math.sqrt(float((before**2).mean()) * (1 + 1 / independent))
                halves[period] = student_quantile(1 - level / 2, independent) * spread
            half = halves[period]
            if math.isfinite(values[period]):
                low, high = (None, None) if math.isnan(half) else (values[period] - half, values[period] + half)
                low, high = (low, high) if low is None or high is None else _within(task, low, high)
                found[period][name] = Estimate(float(values[period]), low, high, int(before.size))
    return found


def realised(task: str, bins: Floats) -> dict[str, float]:
    """Return the realised value of each metric that is estimated, from the labelled rows of one period.

    Args:
        bins: Shape (64, cells).
    """
    return {name: value(bins) for name, (_, value) in _METRICS.get(task, {}).items()} if bins[:, 0].any() else {}


def _within(task: str, low: float, high: float) -> tuple[float, float]:
    return max(float(low), 0.0), float(high) if task == "regression" else min(float(high), 1.0)


def calibration(bins: Floats) -> Floats:
    """Return the calibrated rate of each bin, shape (64,), ascending; between bins with rows on a straight line.

    Args:
        bins: Labelled rows, shape (64, cells).
    """
    there = bins[:, 0] > 0
    rows = bins[there, 0]
    rates = _isotonic(bins[there, 1] / rows, rows)
    return np.asarray(np.interp(np.arange(BINS), np.flatnonzero(there), rates))


def _isotonic(values: Floats, weights: Floats) -> Floats:
    """Return the ascending sequence nearest to the values by weighted squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (high, heavy, many), (low, light, few) = pools[-2:]
            pools[-2:] = [((high * heavy + low * light) / (heavy + light), heavy + light, many + few)]
    return np.concatenate([np.full(count, value) for value, _, count in pools])


def _auc_of(positive: Floats, negative: Floats) -> float:
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else math.nan


def _auc(labelled: Floats, bins: Floats) -> float:
    rates = calibration(labelled)
    return _auc_of(bins[:, 4] * rates, bins[:, 4] * (1 - rates))


def _brier(labelled: Floats, bins: Floats) -> float:
    rates, rows = calibration(labelled), bins[:, 4]
    score = bins[:, 5] / np.where(rows > 0, rows, 1.0)
    return float((rows * (rates * (1 - score) ** 2 + (1 - rates) * score**2)).sum() / rows.sum())


def _realised_brier(bins: Floats) -> float:
    rows = np.where(bins[:, 0] > 0, bins[:, 0], 1.0)
    score = bins[:, 2] / rows
    losses = bins[:, 1] * (1 - score) ** 2 + (bins[:, 0] - bins[:, 1]) * score**2
    return float(losses.sum() / bins[:, 0].sum())


def _accuracy(labelled: Floats, bins: Floats) -> float:
    return float((bins[:, 4] * calibration(labelled)).sum() / bins[:, 4].sum())


def _error(labelled: Floats, bins: Floats) -> float:
    there = labelled[:, 0] > 0
    means = np.interp(np.arange(BINS), np.flatnonzero(there), labelled[there, 1] / labelled[there, 0])
    return float((bins[:, 4] * means).sum() / bins[:, 4].sum())


def _share(bins: Floats) -> float:
    return float(bins[:, 1].sum() / bins[:, 0].sum())


_Pair = tuple[Callable[[Floats, Floats], float], Callable[[Floats], float]]
# Metric -> its estimate from labelled bins and a period's, and its realised value.
_METRICS: Mapping[str, Mapping[str, _Pair]] = {
    "binary": {
        "auc": (_auc, lambda bins: _auc_of(bins[:, 1], bins[:, 0] - bins[:, 1])),
        "brier": (_brier, _realised_brier),
    },
    "multiclass": {"accuracy": (_accuracy, _share)},
    "regression": {"mae": (_error, _share)},  # the bins of numbers have sums of absolute errors
}
