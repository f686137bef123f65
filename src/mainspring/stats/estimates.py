"""Estimates of quality before labels, from the scores alone, with intervals from their own past errors.

Confidence-based estimation: labelled predictions of the past say how often a score of each bin is right (isotonic
regression; Zadrozny and Elkan, KDD 2002), and the scores of a new period are taken at these rates. For numbers the same
is done with the mean error of each bin (direct loss estimation). So only what moves the scores is seen: if the relation
of inputs and labels changes, concept drift, the estimate does not.

How wrong such estimates are is not known beforehand, but afterwards: the interval is that of Student's t over past
errors, estimate minus realised, beside the sampling error of the period's rows. The first past errors are those of
held-out rows, so that a version has an estimate from its first window. The level of the interval follows whether past
intervals held (adaptive conformal inference: Gibbs and Candes, arXiv 2106.00170).

Shapes: periods in order of time, bins (periods, 64, cells) as in `stats.quality_sums`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np

from mainspring.stats.distributions import student_quantile
from mainspring.stats.quality_figures import auc_error
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


def estimates(
    task: str, bins: Floats, ripe: int, delay: int, overlap: int = 1, held_out: Floats | None = None
) -> list[dict[str, Estimate]]:
    """Return the estimates of each period, by metric; nothing for a period without enough labels before it.

    An estimate uses the labels of held-out rows and of periods that were ripe when the period ended, and their errors.
    An error of held-out rows is that of one of their periods, estimated from the others. A period's interval has two
    parts: sampling error, which follows from its own number of rows, and what past errors had beyond theirs.

    Args:
        bins: Sums of each period; the cells of labelled rows count for ripe periods only.
        ripe: Number of periods, from the first, whose labels have come.
        delay: Number of periods after which the labels of a period have come.
        overlap: Number of periods that share rows, such as 7 for weeks that begin each day.
        held_out: Sums of periods of held-out rows, all labelled, that share no rows; shape (periods, 64, cells).
    """
    held = np.zeros((0, BINS, len(CELLS))) if held_out is None else held_out
    past = held.sum(axis=0) + np.concatenate([np.zeros((1, BINS, len(CELLS))), np.cumsum(bins, axis=0)])
    curve = cache(lambda known: _curve(task, past[known]) if past[known][:, 0].sum() >= FEWEST_ROWS else None)
    others = [_curve(task, past[0] - each) if curve(0) is not None else None for each in held]
    found: list[dict[str, Estimate]] = [{} for _ in bins]
    for name, metric in _METRICS.get(task, {}).items():
        for period, made in _estimated(metric, held, others, curve, bins, ripe, delay, overlap):
            low, high = (None, None) if math.isnan(made.half) else (made.value - made.half, made.value + made.half)
            low, high = (low, high) if low is None or high is None else _within(task, low, high)
            found[period][name] = Estimate(made.value, low, high, made.errors)
    return found


class _Made(NamedTuple):
    value: float
    half: float  # of the interval; NaN while too few past errors are known
    errors: int


def _estimated(
    metric: _Metric,
    held: Floats,
    others: Sequence[Floats | None],
    curve: Callable[[int], Floats | None],
    bins: Floats,
    ripe: int,
    delay: int,
    overlap: int,
) -> Iterator[tuple[int, _Made]]:
    """Yield the place and the estimate of each period that has one.

    Args:
        others: For each held-out period, the curve of the others.
        curve: Returns the curve of held-out rows and the first periods, of their number; `None` of too few rows.
    """
    count = len(held)
    # Of each period: its error, and the variance that sampling its rows gives the realised value. Held-out ones first.
    errors, variances = np.full(count + len(bins), math.nan), np.full(count + len(bins), math.nan)
    for place, (each, known_curve) in enumerate(zip(held, others, strict=True)):
        if known_curve is not None and each[:, 0].any():
            errors[place] = metric.estimate(known_curve, each) - metric.realised(each)
            variances[place] = metric.variance(known_curve, each, each[:, 0].sum())
    halves, level, step = np.full(len(bins), math.nan), LEVEL, _STEP / math.sqrt(overlap)
    for period, own in enumerate(bins):
        known = max(0, min(ripe, period - delay))
        labelled = curve(known)
        if labelled is None or not own[:, 4].any():
            continue
        value = metric.estimate(labelled, own)
        variance = metric.variance(labelled, own, own[:, 4].sum())
        if period < ripe and own[:, 0].any():
            errors[count + period] = value - metric.realised(own)
            variances[count + period] = metric.variance(labelled, own, own[:, 0].sum())
        if known and math.isfinite(halves[known - 1]) and math.isfinite(errors[count + known - 1]):
            missed = abs(errors[count + known - 1]) > halves[known - 1]
            level = min(max(level + step * (LEVEL - missed), _LEVELS[0]), _LEVELS[1])
        usable = np.isfinite(errors[: count + known]) & np.isfinite(variances[: count + known])
        independent = int(usable[:count].sum()) + int(usable[count:].sum()) // overlap
        if independent >= FEWEST_ERRORS and math.isfinite(variance):
            before = errors[: count + known][usable] ** 2 - variances[: count + known][usable]
            beyond = max(float(before.mean()), 0.0) * (1 + 1 / independent)
            halves[period] = student_quantile(1 - level / 2, independent) * math.sqrt(beyond + variance)
        if math.isfinite(value):
            yield period, _Made(float(value), float(halves[period]), int(usable.sum()))


def realised(task: str, bins: Floats) -> dict[str, float]:
    """Return the realised value of each metric that is estimated, from the labelled rows of one period.

    Args:
        bins: Shape (64, cells).
    """
    return {name: metric.realised(bins) for name, metric in _METRICS.get(task, {}).items()} if bins[:, 0].any() else {}


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


def _curve(task: str, labelled: Floats) -> Floats | None:
    """Return what a row of each bin is expected to add to a mean, and its variance, shape (2, 64); `None` of no rows.

    Of classes that is the calibrated rate, of numbers the mean absolute error.
    """
    there = labelled[:, 0] > 0
    if not there.any():
        return None
    if task != "regression":
        rates = calibration(labelled)
        return np.stack([rates, rates * (1 - rates)])
    mean, square = (labelled[there, cell] / labelled[there, 0] for cell in (1, 3))  # absolute and squared errors
    places = np.flatnonzero(there)
    spread = np.maximum(square - mean**2, 0.0)
    return np.stack([np.interp(np.arange(BINS), places, values) for values in (mean, spread)])


def _auc(curve: Floats, bins: Floats) -> float:
    return _auc_of(bins[:, 4] * curve[0], bins[:, 4] * (1 - curve[0]))


def _scores(bins: Floats) -> Floats:
    return np.asarray(bins[:, 5] / np.where(bins[:, 4] > 0, bins[:, 4], 1.0))


def _brier(curve: Floats, bins: Floats) -> float:
    rates, score = curve[0], _scores(bins)
    return float((bins[:, 4] * (rates * (1 - score) ** 2 + (1 - rates) * score**2)).sum() / bins[:, 4].sum())


def _realised_brier(bins: Floats) -> float:
    rows = np.where(bins[:, 0] > 0, bins[:, 0], 1.0)
    score = bins[:, 2] / rows
    losses = bins[:, 1] * (1 - score) ** 2 + (bins[:, 0] - bins[:, 1]) * score**2
    return float(losses.sum() / bins[:, 0].sum())


def _mean(curve: Floats, bins: Floats) -> float:
    return float((bins[:, 4] * curve[0]).sum() / bins[:, 4].sum())


def _share(bins: Floats) -> float:
    return float(bins[:, 1].sum() / bins[:, 0].sum())


def _mean_variance(curve: Floats, bins: Floats, rows: float) -> float:
    return _mean(curve[1:], bins) / max(rows, 1.0)


def _brier_variance(curve: Floats, bins: Floats, rows: float) -> float:
    score = _scores(bins)
    # Of the outcomes alone: the scores are known, so their spread is no error.
    return _mean_variance(curve * ((1 - score) ** 2 - score**2) ** 2, bins, rows)


def _auc_variance(curve: Floats, bins: Floats, rows: float) -> float:
    counts = np.zeros_like(bins)
    counts[:, 0] = bins[:, 4] * (rows / max(bins[:, 4].sum(), 1.0))
    counts[:, 1] = counts[:, 0] * curve[0]
    return auc_error(counts) ** 2


class _Metric(NamedTuple):
    estimate: Callable[[Floats, Floats], float]  # from a curve and a period's bins
    realised: Callable[[Floats], float]
    variance: Callable[[Floats, Floats, float], float]  # of the realised value of so many rows with such scores


_METRICS: Mapping[str, Mapping[str, _Metric]] = {
    "binary": {
        "auc": _Metric(_auc, lambda bins: _auc_of(bins[:, 1], bins[:, 0] - bins[:, 1]), _auc_variance),
        "brier": _Metric(_brier, _realised_brier, _brier_variance),
    },
    "multiclass": {"accuracy": _Metric(_mean, _share, _mean_variance)},
    "regression": {"mae": _Metric(_mean, _share, _mean_variance)},  # the bins of numbers have absolute errors
}
