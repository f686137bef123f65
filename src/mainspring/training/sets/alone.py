"""How well one feature alone tells the label, on rows later than those it was looked up in.

A number is cut into bins of as many rows, a text is taken as it is, null is a bin of its own; a bin stands for the mean
label that its earlier rows had. So a feature is found whatever the shape of what it knows. In O(rows log rows).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from mainspring.stats.metrics import auc
from mainspring.training.frames import Array

_BINS = 64
_FEWEST = 20  # rows of a class, without which nothing is said of it


class Power(NamedTuple):
    """What one feature is worth alone, and the lower end of what that may be by chance."""

    value: float
    lower: float
    metric: str  # "AUC" or "R2"


def power_alone(values: Array, labels: Array, task: str, *, looks: int = 1) -> Power | None:
    """Return the power of a feature over the later half of the rows, `None` where there are too few of them.

    Args:
        values: Shape (rows,), oldest first: numbers with NaN for null, or texts with `None`.
        labels: Shape (rows,).
        looks: How many features are looked at: of many, the best by chance looks good (Bonferroni at 1 %).
    """
    half = len(values) // 2
    codes, seen = bins(values, half)
    z = NormalDist().inv_cdf(1 - 0.01 / max(1, looks))
    if task == "regression":
        return _r2(codes, seen, np.asarray(labels, np.float64), half, z)
    classes = [1] if task == "binary" else np.unique(labels).tolist()
    found = [each for each in (_auc(codes, seen, labels == one, half, z) for one in classes) if each is not None]
    return max(found, key=lambda each: each.lower, default=None)


def bins(values: Array, half: int) -> tuple[Array, int]:
    """Return each row's bin, int64 of shape (rows,), and how many there are. Only earlier rows decide on the bins."""
    if values.dtype == object:
        known = {each: code for code, each in enumerate(dict.fromkeys(values[:half].tolist()))}
        return np.array([known.get(each, len(known)) for each in values.tolist()], np.int64), len(known) + 1
    null = np.isnan(values)
    earlier = np.sort(values[:half][~null[:half]])
    # edges lie between values, at which a bin ends: a number that many rows share has a bin of its own
    picked = earlier[(np.arange(1, _BINS) * len(earlier)) // _BINS] if len(earlier) else earlier
    edges = np.unique(picked)
    codes = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(null, 2 * len(edges) + 1, codes), 2 * len(edges) + 2


def _means(codes: Array, seen: int, truth: Array, half: int) -> Array:
    """Return what each row's bin stands for, shape (rows,); a bin of few rows is drawn to the mean of all."""
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
    """Return whether the feature is the label in another form, on all rows where it is not null.

    Of a regression: it rises, or falls, with the label throughout. Else: each class has an interval of its numbers, or
    texts of its own.
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
    often = count[texts] >= _FEWEST  # a text that hardly ever comes is of one class by chance
    if often.mean() < 0.9:
        return False
    first = np.full(len(count), -1)
    first[texts] = codes
    return bool((first[texts] == codes)[often].all())


def knows_the_future(values: Array, labels: Array, *, lags: int = 5, looks: int = 1) -> tuple[int, float, float] | None:
    """Return (lag, its correlation, the largest with present and past) where a feature knows later labels best.

    What is honestly known by a row correlates with labels of the past and of the present at least as well as with those
    of later rows; a column that was shifted the wrong way does not.

    Args:
        values: Numbers of shape (rows,), oldest first, NaN for null.
        labels: Numbers of shape (rows,).
    """
    rows = len(values)
    if rows < 20 * lags:
        return None
    known = ~np.isnan(values)
    numbers = np.where(known, values, 0.0)
    by_lag = {lag: _correlation(numbers, known, labels, lag) for lag in range(-lags, lags + 1)}
    lag = max(range(1, lags + 1), key=lambda each: abs(by_lag[each]))
    present = max(abs(by_lag[each]) for each in range(-lags, 1))
    chance = NormalDist().inv_cdf(1 - 0.01 / max(1, looks * (2 * lags + 1))) / math.sqrt(max(1, int(known.sum())))
    found = abs(by_lag[lag])
    return (lag, found, present) if found > 0.5 and found > present + 0.1 + chance else None


def _correlation(numbers: Array, known: Array, labels: Array, lag: int) -> float:
    rows = slice(max(0, -lag), len(numbers) - max(0, lag))
    later = slice(max(0, lag), len(numbers) - max(0, -lag))
    there = known[rows]
    one, two = numbers[rows][there], np.asarray(labels, np.float64)[later][there]
    if len(one) < 2 * _FEWEST:
        return 0.0
    one, two = one - one.mean(), two - two.mean()
    scale: Any = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / scale if scale > 0 else 0.0
