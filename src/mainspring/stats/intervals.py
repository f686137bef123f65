"""How far a metric could have been another with other rows: percentile bootstrap (Efron and Tibshirani 1993, ch. 13).

The rows are drawn with replacement, one by one: where rows are alike (of one entity, of one hour), the truth is wider.
A resample is its counts of every row, so a metric is a product of matrices and no row is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.metrics import metrics_of

_CELLS = 4_000_000  # counts at once, 32 MB
_UNDEFINED = 0.05  # a metric that more of the resamples do not define has no interval

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Between which values a metric lies, in `confidence` of the cases."""

    low: float
    high: float
    confidence: float


def intervals(
    task: str,
    y: npt.ArrayLike,
    score: npt.ArrayLike,
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Return the interval of each of the task's metrics; the same for the same seed.

    A metric is left out where too many resamples do not define it, as the AUC of a rare class.

    Args:
        y: The truth, shape (rows,), as `stats.metrics` takes it.
        score: Shape (rows,), or (rows, classes).

    Raises:
        Invalid: `task` is unknown, the shapes do not match, there are no rows, or an argument is out of its range.
    """
    names = metrics_of(task)
    truth, scores = np.asarray(y, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if truth.ndim != 1 or scores.shape[:1] != truth.shape or not truth.size:
        raise Invalid(f"Labels of shape {truth.shape} do not go with predictions of shape {scores.shape}.")
    if resamples < 1 or not 0 < confidence < 1:
        raise Invalid(f"{resamples} resamples cannot give an interval of {confidence}.")
    values = _resampled(names, truth, scores, np.random.default_rng(seed), resamples)
    tail = (1 - confidence) / 2
    found = {}
    for name, column in zip(names, values.T, strict=True):
        known = column[np.isfinite(column)]
        if known.size >= max(1, (1 - _UNDEFINED) * resamples):
            low, high = np.quantile(known, [tail, 1 - tail])
            found[name] = Interval(float(low), float(high), confidence)
    return found


def _resampled(
    names: tuple[str, ...], truth: _Floats, scores: _Floats, rng: np.random.Generator, resamples: int
) -> _Floats:
    """Return each resample's metrics, shape (resamples, metrics); NaN where one is not defined."""
    rows = truth.size
    by_row = {name: _row_losses(name, truth, scores) for name in names if name != "auc"}
    losses = np.stack(list(by_row.values()), axis=1)
    order = np.argsort(scores, kind="stable") if "auc" in names else None
    found = np.empty((resamples, len(names)))
    step = max(1, _CELLS // rows)
    for start in range(0, resamples, step):
        part = min(step, resamples - start)
        drawn = rng.integers(0, rows, (part, rows)) + np.arange(part)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=part * rows).reshape(part, rows).astype(np.float64)
        means = counts @ losses / rows
        for place, name in enumerate(names):
            if order is not None and name == "auc":
                column = _aucs(counts[:, order], truth[order], scores[order])
            else:
                column = means[:, list(by_row).index(name)]
            found[start : start + part, place] = np.sqrt(column) if name == "rmse" else column
    return found


def _row_losses(name: str, truth: _Floats, scores: _Floats) -> _Floats:
    """Return what a row adds to a metric that is a mean, or the root of one, over rows; shape (rows,)."""
    least = float(np.finfo(np.float64).eps)
    if name in ("brier", "rmse"):
        return np.asarray((scores - truth) ** 2)
    if name == "mae":
        return np.abs(scores - truth)
    if name == "accuracy":
        chosen = scores.argmax(axis=1) if scores.ndim == 2 else scores >= 0.5
        return np.asarray(chosen == truth, dtype=np.float64)
    if name != "log_loss":  # pragma: no cover - a metric was added to `stats.metrics` and not here
        raise Invalid(f"The metric {name!r} has no interval.")
    clipped = np.clip(scores, least, 1 - least)
    if scores.ndim == 2:
        shares = clipped / clipped.sum(axis=1, keepdims=True)
        return np.asarray(-np.log(shares[np.arange(truth.size), truth.astype(np.int64)]))
    return -np.where(truth.astype(np.bool_), np.log(clipped), np.log1p(-clipped))


def _aucs(counts: _Floats, truth: _Floats, scores: _Floats) -> _Floats:
    """Return the AUC of every row of `counts`, shape (resamples,). `truth` and `scores` are in the order of the scores.

    What a positive beats is the negatives below it and half of those that score the same.
    """
    if np.isnan(scores).any():
        return np.full(len(counts), math.nan)
    begins = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    positive = truth.astype(np.bool_)
    positives = np.add.reduceat(counts * positive, begins, axis=1)
    negatives = np.add.reduceat(counts * ~positive, begins, axis=1)
    beaten = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((positives * beaten).sum(axis=1) / np.where(pairs > 0, pairs, math.nan))
