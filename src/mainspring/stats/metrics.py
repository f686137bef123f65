"""How good predictions are. Every metric takes the truth first, and is NaN where it is not defined for the rows given.

Shapes: `y` is (rows,); `score` is (rows,), the probability of class 1 or a predicted number, or, for several classes,
(rows, classes) with `y` the index of the true class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid

HIGHER_IS_BETTER: dict[str, bool] = {
    "auc": True,
    "accuracy": True,
    "brier": False,
    "log_loss": False,
    "rmse": False,
    "mae": False,
}


def auc(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(a positive scores over a negative), ties counting half; NaN with one class only.

    From the ranks (Mann and Whitney, 1947), in O(rows log rows).
    """
    truth, scores = _both(y, score)
    positive = truth.astype(np.bool_)
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives or np.isnan(scores).any():
        return math.nan
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(sizes) - (sizes - 1) / 2.0
    return float((mean_rank[group][positive].sum() - positives * (positives + 1) / 2.0) / positives / negatives)


def brier(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean squared difference of probability and outcome, in [0, 1]."""
    truth, scores = _both(y, score)
    return _mean((scores - truth) ** 2)


def log_loss(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities are kept a double's epsilon away from 0 and 1."""
    truth, scores = _both(y, score)
    least = float(np.finfo(np.float64).eps)
    if scores.ndim == 2:
        scores = np.clip(scores, least, 1 - least)
        scores = scores / scores.sum(axis=1, keepdims=True)
        return _mean(-np.log(scores[np.arange(truth.size), truth.astype(np.int64)]))
    scores = np.clip(scores, least, 1 - least)
    return _mean(-np.where(truth.astype(np.bool_), np.log(scores), np.log1p(-scores)))


def accuracy(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Share of rows whose likeliest class is the true one; of two classes, 1 from a probability of 0.5 on."""
    truth, scores = _both(y, score)
    chosen = scores.argmax(axis=1) if scores.ndim == 2 else scores >= 0.5
    return _mean(chosen == truth)


def rmse(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Root of the mean squared error, in the label's unit."""
    truth, scores = _both(y, score)
    return math.sqrt(_mean((scores - truth) ** 2))


def mae(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean absolute error, in the label's unit."""
    truth, scores = _both(y, score)
    return _mean(np.abs(scores - truth))


Metric = Callable[[npt.ArrayLike, npt.ArrayLike], float]
_OF_TASK: Mapping[str, Mapping[str, Metric]] = {
    "binary": {"auc": auc, "brier": brier, "log_loss": log_loss, "accuracy": accuracy},
    "multiclass": {"log_loss": log_loss, "accuracy": accuracy},
    "regression": {"rmse": rmse, "mae": mae},
}


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the names of the metrics that `score` gives for a task.

    Raises:
        Invalid: `task` is unknown.
    """
    if task not in _OF_TASK:
        raise Invalid(f"{task!r} is not a task.", fix=f"use one of {', '.join(_OF_TASK)}.")
    return tuple(_OF_TASK[task])


def score(task: str, y: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float]:
    """Return every metric of the task by name; what is not defined for these rows is left out.

    Raises:
        Invalid: `task` is unknown, or the shapes do not match.
    """
    values = {name: _OF_TASK[task][name](y, predicted) for name in metrics_of(task)}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _both(y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    truth, scores = np.asarray(y), np.asarray(score, dtype=np.float64)
    if truth.ndim != 1 or scores.shape[:1] != truth.shape or scores.ndim > 2:
        raise Invalid(f"Labels of shape {truth.shape} do not go with predictions of shape {scores.shape}.")
    return truth if truth.dtype != np.object_ else truth.astype(np.float64), scores


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if values.size else math.nan
