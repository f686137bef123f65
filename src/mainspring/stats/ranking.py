"""Ranking metrics: separation of positives from negatives by score. The order of rows with equal scores never matters.

Shapes: `y` and `score` are (rows,); a row is positive if `y` is 1. A metric is NaN where undefined.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid


def pair(y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return ground truth and scores as arrays.

    Raises:
        Invalid: The shapes do not match.
    """
    truth, scores = np.asarray(y), np.asarray(score, dtype=np.float64)
    if truth.ndim != 1 or scores.shape[:1] != truth.shape or scores.ndim > 2:
        raise Invalid(f"Labels of shape {truth.shape} do not match predictions of shape {scores.shape}.")
    return truth if truth.dtype != np.object_ else truth.astype(np.float64), scores


def auc(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(a positive scores above a negative), ties counting half; NaN with only one class.

    Computed from ranks (Mann and Whitney, 1947), in O(rows log rows).
    """
    truth, scores = pair(y, score)
    positive = truth.astype(np.bool_)
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives or np.isnan(scores).any():
        return math.nan
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(sizes) - (sizes - 1) / 2.0
    return float((mean_rank[group][positive].sum() - positives * (positives + 1) / 2.0) / positives / negatives)


def average_precision(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean precision over the thresholds, weighted by the increase in recall; NaN without a positive.

    The step-wise area under the precision-recall curve, without interpolation, as scikit-learn's
    `average_precision_score`. A random ranking has the share of positives.
    """
    flagged = _flagged(y, score)
    if flagged is None:
        return math.nan
    hits, rows = flagged
    return float((np.diff(hits, prepend=0) * hits / rows).sum() / hits[-1])


def recall_at_precision(y: npt.ArrayLike, score: npt.ArrayLike, precision: float) -> float:
    """Largest recall of a threshold with at least this precision; 0 if there is none, NaN without a positive."""
    flagged = _flagged(y, score)
    if flagged is None:
        return math.nan
    hits, rows = flagged
    return float(hits[hits / rows >= precision].max(initial=0) / hits[-1])


def precision_at_k(y: npt.ArrayLike, score: npt.ArrayLike, k: float) -> float:
    """Share of positives among the `k` rows with the highest scores; NaN without a positive, or with fewer rows.

    Args:
        k: Number of rows, or, below 1, share of all rows. Rows tied at the cut-off count with equal probability, so the
            value is the expectation.
    """
    found = _hits_at(y, score, k)
    return math.nan if found is None else found[0] / found[1]


def recall_at_k(y: npt.ArrayLike, score: npt.ArrayLike, k: float) -> float:
    """Share of all positives that are among the `k` rows with the highest scores. `k` and NaN as in
    `precision_at_k`.
    """
    found = _hits_at(y, score, k)
    return math.nan if found is None else found[0] / found[2]


def _flagged(y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return the cumulative numbers of positives and of rows at each distinct score, in descending order; `None` if
    undefined.
    """
    truth, scores = pair(y, score)
    positive = truth.astype(np.bool_)
    if not positive.any() or np.isnan(scores).any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    return np.cumsum(positive[order], dtype=np.int64)[last], last + 1


def _hits_at(y: npt.ArrayLike, score: npt.ArrayLike, k: float) -> tuple[float, int, int] | None:
    """Return the expected positives among the first `k` rows, the number of these rows, and the number of all
    positives.
    """
    flagged = _flagged(y, score)
    if flagged is None:
        return None
    hits, rows = flagged
    count = int(k) if k >= 1 else max(1, round(k * int(rows[-1])))
    if count > rows[-1]:
        return None
    at = int(np.searchsorted(rows, count))
    hits_before, rows_before = (int(hits[at - 1]), int(rows[at - 1])) if at else (0, 0)
    share = (count - rows_before) / (int(rows[at]) - rows_before)
    return hits_before + share * (int(hits[at]) - hits_before), count, int(hits[-1])
