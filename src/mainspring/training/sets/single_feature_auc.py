"""Predictive power of a single feature, measured on rows later than those it was fitted on.

Numbers are cut into equal-sized bins, a text is a bin of its own, and so is null. A bin predicts the mean label of its
earlier rows, so power is found whatever the shape of the relation. O(rows log rows).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from mainspring.stats.metrics import auc
from mainspring.training.frames import Array

_BINS = 64
_FEWEST = 20  # minimum rows of a class for a result


class Power(NamedTuple):
    """Power of one feature alone, and the lower end of its confidence interval."""

    value: float
    lower: float
    metric: str  # "AUC" or "R2"


def power_alone(values: Array, labels: Array, task: str, *, looks: int = 1) -> Power | None:
    """Return the power of a feature on the later half of the rows, `None` if there are too few rows.

    Args:
        values: Shape (rows,), oldest first: numbers with NaN for null, or texts with `None`.
        labels: Shape (rows,).
        looks: Number of features tested, for the Bonferroni correction at 1 %.
    """
    half = len(values) // 2
    codes, bin_count = bins(values, half)
    z = NormalDist().inv_cdf(1 - 0.01 / max(1, looks))
    if task == "regression":
        return _r2(codes, bin_count, np.asarray(labels, np.float64), half, z)
    classes = [1] if task == "binary" else np.unique(labels).tolist()
    powers = [
        power
        for power in (_auc(codes, bin_count, labels == positive, half, z) for positive in classes)
        if power is not None
    ]
    return max(powers, key=lambda power: power.lower, default=None)


def bins(values: Array, half: int) -> tuple[Array, int]:
    """Return each row's bin, int64 of shape (rows,), and the number of bins. Only earlier rows define the bins."""
    if values.dtype == object:
        codes_of = {text: code for code, text in enumerate(dict.fromkeys(values[:half].tolist()))}
        return np.array([codes_of.get(text, len(codes_of)) for text in values.tolist()], np.int64), len(codes_of) + 1
    null = np.isnan(values)
    earlier = np.sort(values[:half][~null[:half]])
    # a value equal to an edge has its own bin, so a frequent number does not mix with its neighbours
    picked = earlier[(np.arange(1, _BINS) * len(earlier)) // _BINS] if len(earlier) else earlier
    edges = np.unique(picked)
    codes = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(null, 2 * len(edges) + 1, codes), 2 * len(edges) + 2


def _means(codes: Array, seen: int, truth: Array, half: int) -> Array:
    """Return each row's predicted label, shape (rows,): the mean of its bin, shrunk to the overall mean."""
    count = np.bincount(codes[:half], minlength=seen)
    total = np.bincount(codes[:half], truth[:half], minlength=seen)
    return np.asarray(((total + truth[:half].mean()) / (count + 1))[codes])


def _auc(codes: Array, seen: int, truth: Array, half: int, z: float) -> Power | None:
    later = truth[half:]
    positives = int(later.sum())
    negatives = len(later) - positives
    if min(positives, negatives, int(truth[:half].sum()), half - int(truth[:half].sum())) < _FEWEST:
        return None
    value = auc(later, _means(codes, seen, truth.astype(np.float64), half)[half:])
    # Hanley and McNeil, Radiology 143 (1982)
    one, two = value / (2 - value), 2 * value**2 / (1 + value)
    spread = (positives - 1) * (one - value**2) + (negatives - 1) * (two - value**2)
    error = math.sqrt(max(0.0, value * (1 - value) + spread) / (positives * negatives))
    return Power(value, value - z * error, "AUC")


def _r2(codes: Array, seen: int, truth: Array, half: int, z: float) -> Power | None:
    later = truth[half:]
    if half < 2 * _FEWEST or not later.std() > 0:
        return None
    guessed = _means(codes, seen, truth, half)[half:]
    value = 1 - float(((later - guessed) ** 2).sum() / ((later - later.mean()) ** 2).sum())
    error = 2 * math.sqrt(max(0.0, value)) * (1 - value) / math.sqrt(len(later))
    return Power(value, value - z * error, "R2")


def is_shadow(values: Array, labels: Array, task: str) -> bool:
    """Return whether the feature is a transformed label, on all rows where it is not null.

    For a regression: the feature rises, or falls, monotonically with the label. Otherwise: each class has its own
    interval of numbers, or its own texts.
    """
    null = np.array([each is None for each in values.tolist()]) if values.dtype == object else np.isnan(values)
    values, labels = values[~null], labels[~null]
    if len(values) < 2 * _FEWEST:
        return False
    if task == "regression":
        return values.dtype != object and _monotone(values, np.asarray(labels, np.float64))
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or np.bincount(codes).min() < _FEWEST:
        return False
    if values.dtype == object:
        return _texts_of_their_own(values, codes)
    order = np.argsort(values, kind="stable")
    sorted_values, sorted_codes = values[order], codes[order]
    changes = sorted_codes[1:] != sorted_codes[:-1]
    return int(changes.sum()) == len(classes) - 1 and bool((sorted_values[1:] > sorted_values[:-1])[changes].all())


def _monotone(values: Array, labels: Array) -> bool:
    if len(np.unique(labels)) < _FEWEST or len(np.unique(values)) < _FEWEST:
        return False
    order = np.lexsort((labels, values))
    if bool((np.diff(labels[order]) >= 0).all()):
        return True
    return bool((np.diff(labels[np.lexsort((-labels, values))]) <= 0).all())


def _texts_of_their_own(values: Array, codes: Array) -> bool:
    _, texts, count = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    often = count[texts] >= _FEWEST  # a rare text has one class by chance
    if often.mean() < 0.9:
        return False
    first = np.full(len(count), -1)
    first[texts] = codes
    return bool((first[texts] == codes)[often].all())


def knows_the_future(values: Array, labels: Array, *, lags: int = 5, looks: int = 1) -> tuple[int, float, float] | None:
    """Return (lag, its correlation, the largest at present and past lags) if a feature correlates best with later
    labels.

    An honest feature correlates with labels of the past and present at least as well as with later ones; a column
    shifted the wrong way does not.

    Args:
        values: Numbers of shape (rows,), oldest first, NaN for null.
        labels: Numbers of shape (rows,).
    """
    rows = len(values)
    if rows < 20 * lags:
        return None
    finite = ~np.isnan(values)
    numbers = np.where(finite, values, 0.0)
    by_lag = {lag: _correlation(numbers, finite, labels, lag) for lag in range(-lags, lags + 1)}
    lag = max(range(1, lags + 1), key=lambda candidate: abs(by_lag[candidate]))
    present = max(abs(by_lag[candidate]) for candidate in range(-lags, 1))
    chance = NormalDist().inv_cdf(1 - 0.01 / max(1, looks * (2 * lags + 1))) / math.sqrt(max(1, int(finite.sum())))
    largest = abs(by_lag[lag])
    return (lag, largest, present) if largest > 0.5 and largest > present + 0.1 + chance else None


def _correlation(numbers: Array, known: Array, labels: Array, lag: int) -> float:
    rows = slice(max(0, -lag), len(numbers) - max(0, lag))
    later = slice(max(0, lag), len(numbers) - max(0, -lag))
    present = known[rows]
    feature, label = numbers[rows][present], np.asarray(labels, np.float64)[later][present]
    if len(feature) < 2 * _FEWEST:
        return 0.0
    feature, label = feature - feature.mean(), label - label.mean()
    scale: Any = math.sqrt(float(feature @ feature) * float(label @ label))
    return float(feature @ label) / scale if scale > 0 else 0.0
