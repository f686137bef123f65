"""Confidence intervals of metrics by percentile bootstrap (Efron and Tibshirani 1993, ch. 13).

Rows are resampled one by one, with replacement; if rows are correlated (of one entity, of one hour), the true interval
is wider. With many rows, each resample draws only some, and the deviations are scaled by the root of the share: the
m-out-of-n bootstrap (Bickel, Goetze and van Zwet, Statistica Sinica 7, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.metrics import Metric, MetricFailed, measure, metrics_of, of_label, truth_of

FULL_ROWS = 20_000  # maximum number of rows per resample
_CELLS = 2_000_000  # number of rows drawn at once: about ten arrays of 16 MB
_UNDEFINED = 0.05  # a metric undefined in a larger share of resamples has no interval
_ONE_BY_ONE = 200  # number of resamples for a metric that is computed one resample at a time

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Truth = npt.NDArray[Any]  # int64 classes, or float64 numbers


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval that contains a metric with probability `confidence`."""

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
    most_rows: int = FULL_ROWS,
    more: Sequence[Metric] = (),
    labels: Sequence[str] = (),
) -> dict[str, Interval]:
    """Return the interval of each of the task's metrics, and of those in `more`; deterministic for a given seed.

    A metric is omitted if it is undefined in too many resamples, such as the AUC of a rare class, or fails in them.

    Args:
        y: Ground truth, shape (rows,), as in `stats.metrics`; (rows, labels) for several labels.
        score: Shape (rows,), or (rows, classes), or (rows, labels).
        most_rows: Maximum number of rows per resample.
        more: Further metrics; for these at most 200 resamples are used.
        labels: Names of several labels: each metric gets an interval per label, and one for their mean.

    Raises:
        Invalid: `task` is unknown, the shapes do not match, there are no rows, or an argument is out of its range.
    """
    names = metrics_of(task)
    truth, scores = truth_of(task, y), np.asarray(score, dtype=np.float64)
    if truth.ndim != (2 if labels else 1) or scores.shape[: truth.ndim] != truth.shape or not truth.size:
        raise Invalid(f"Labels of shape {truth.shape} do not match predictions of shape {scores.shape}.")
    if resamples < 1 or most_rows < 1 or not 0 < confidence < 1:
        raise Invalid(f"{resamples} resamples cannot give a confidence interval of {confidence}.")
    further = [each for each in more if each.name not in names]
    rows = min(len(truth), most_rows)
    if labels:
        each = [
            _Sampled(names, further, *column, rows).widened(seed, resamples)
            for column in zip(truth.T, scores.T, strict=True)
        ]
        names_of_all = [name for name in each[0] if all(name in found for found in each)]
        columns = {name: np.mean([found[name] for found in each], axis=0) for name in names_of_all}
        for label, found_of in zip(labels, each, strict=True):
            columns |= {of_label(name, label): values for name, values in found_of.items()}
    else:
        columns = _Sampled(names, further, truth, scores, rows).widened(seed, resamples)
    tail = (1 - confidence) / 2
    found = {}
    for name, column in columns.items():
        known = column[np.isfinite(column)]
        if known.size >= max(1, (1 - _UNDEFINED) * column.size):
            low, high = np.quantile(known, [tail, 1 - tail])
            found[name] = Interval(float(low), float(high), confidence)
    return found


class _Sampled:
    """Metrics of resamples of given rows."""

    def __init__(
        self, names: Sequence[str], further: Sequence[Metric], truth: _Truth, scores: _Floats, rows: int
    ) -> None:
        self._names, self._further = names, further
        self._truth, self._scores, self._rows = truth, scores, rows
        self._by_row = {name: row_losses(name, truth, scores) for name in names if name not in _OF_RANKS}
        self._ranked = None
        if scores.ndim == 1 and any(name in _OF_RANKS for name in names):
            order = np.argsort(scores, kind="stable")
            ranked = scores[order]
            place = np.empty(truth.size, np.int64)
            place[order] = np.arange(truth.size)
            group = np.cumsum(np.r_[False, ranked[1:] != ranked[:-1]])
            self._ranked = place, group, truth[order].astype(np.bool_), bool(np.isnan(scores).any())

    def draw(self, rng: np.random.Generator, resamples: int) -> dict[str, _Floats]:
        """Return each metric's values, shape (resamples,); NaN if undefined in a resample."""
        found = {name: np.empty(resamples) for name in self._names}
        found |= {each.name: np.empty(min(resamples, _ONE_BY_ONE)) for each in self._further}
        step = max(1, _CELLS // self._rows)
        for start in range(0, resamples, step):
            part = slice(start, min(start + step, resamples))
            drawn = rng.integers(0, self._truth.size, (part.stop - start, self._rows))
            for name, values in self._of(drawn).items():
                found[name][part] = values
            for each in self._further:
                for at in range(start, min(part.stop, _ONE_BY_ONE)):
                    rows = drawn[at - start]
                    found[each.name][at] = _tried(each, self._truth[rows], self._scores[rows])
        return found

    def _of(self, drawn: _Ints) -> dict[str, _Floats]:
        found = {name: losses[drawn].mean(axis=1) for name, losses in self._by_row.items()}
        if "rmse" in found:
            found["rmse"] = np.sqrt(found["rmse"])
        if self._ranked is not None:
            place, group, positive, undefined = self._ranked
            ranks = np.sort(place[drawn], axis=1)
            found |= _of_ranks(group[ranks], positive[ranks], undefined)
        return found

    def widened(self, seed: int, resamples: int) -> dict[str, _Floats]:
        """Return the values of `draw`, rescaled as if every resample had all rows."""
        drawn = self.draw(np.random.default_rng(seed), resamples)
        if self._rows == self._truth.size:
            return drawn
        return {name: self._widened(name, values) for name, values in drawn.items() if np.isfinite(values).any()}

    def _widened(self, name: str, values: _Floats) -> _Floats:
        share = self._rows / self._truth.size
        if name in self._by_row:
            losses = self._by_row[name].mean()
            value = math.sqrt(losses) if name == "rmse" else float(losses)
        elif name in _OF_RANKS and self._ranked is not None:
            _, group, positive, undefined = self._ranked
            value = float(_of_ranks(group[None], positive[None], undefined)[name][0])
        else:
            value = _tried(next(each for each in self._further if each.name == name), self._truth, self._scores)
        return np.asarray(value + (values - np.median(values[np.isfinite(values)])) * math.sqrt(share))


def _tried(metric: Metric, truth: _Truth, scores: _Floats) -> float:
    """Return a metric's value; NaN if it is undefined, or a custom metric fails."""
    try:
        return measure(metric, truth, scores)
    except MetricFailed:
        return math.nan


def row_losses(name: str, truth: _Truth, scores: _Floats) -> _Floats:
    """Return each row's contribution to a metric that is a mean over rows, or the root of one; shape (rows,)."""
    least = float(np.finfo(np.float64).eps)
    if name in ("brier", "rmse"):
        return np.asarray((scores - truth) ** 2)
    if name == "mae":
        return np.abs(scores - truth)
    if name == "accuracy":
        chosen = scores.argmax(axis=1) if scores.ndim == 2 else scores >= 0.5
        undefined = np.isnan(scores).any(axis=1) if scores.ndim == 2 else np.isnan(scores)
        return np.where(undefined, math.nan, chosen == truth)
    if name != "log_loss":  # pragma: no cover - a metric was added to `stats.metrics` and not here
        raise Invalid(f"The metric {name!r} has no interval.")
    clipped = np.clip(scores, least, 1 - least)
    if scores.ndim == 2:
        shares = clipped / clipped.sum(axis=1, keepdims=True)
        return np.asarray(-np.log(shares[np.arange(truth.size), truth.astype(np.int64)]))
    return -np.where(truth.astype(np.bool_), np.log(clipped), np.log1p(-clipped))


_OF_RANKS = ("auc", "average_precision")


def _of_ranks(group: _Ints, positive: npt.NDArray[np.bool_], undefined: bool) -> dict[str, _Floats]:
    """Return the ranking metrics of every ranking, shape (rankings,).

    Args:
        group: Shape (rankings, rows), ascending within each ranking; rows of one group have equal scores.
        positive: Shape (rankings, rows).
        undefined: Whether any score is NaN.
    """
    rankings, rows = group.shape
    if undefined:
        return {name: np.full(rankings, math.nan) for name in _OF_RANKS}
    new = np.ones((rankings, rows + 1), np.bool_)  # true where a group begins, and at the end
    np.not_equal(group[:, 1:], group[:, :-1], out=new[:, 1:-1])
    negatives = np.zeros((rankings, rows + 1), np.int32)
    np.cumsum(~positive, axis=1, out=negatives[:, 1:])
    places = np.arange(rows + 1, dtype=np.int32)
    first = np.maximum.accumulate(np.where(new, places, 0)[:, :-1], axis=1)  # first row of each row's group
    after = np.minimum.accumulate(np.where(new, places, rows)[:, :0:-1], axis=1)[:, ::-1]
    below, through = (np.take_along_axis(negatives, edge, axis=1) for edge in (first, after))
    of_negatives = negatives[:, -1:]
    hits = positive.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = hits * of_negatives[:, 0].astype(np.float64)
        beaten: Any = np.where(positive, below + through, 0).sum(axis=1, dtype=np.int64) / 2
        # rows from `first` on are flagged at the threshold of this group's score
        flagged = rows - first
        precision = (flagged - (of_negatives - below)) / flagged
        return {
            "auc": beaten / np.where(pairs > 0, pairs, math.nan),
            "average_precision": np.where(positive, precision, 0.0).sum(axis=1) / np.where(hits, hits, math.nan),
        }
