"""Metrics of prediction quality. Every metric takes the ground truth first, and is NaN where undefined.

Shapes: `y` is (rows,); `score` is (rows,), the probability of class 1 or a predicted number, or, for several classes,
(rows, classes) with `y` the index of the true class.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.ids import check_id
from mainspring.stats import ranking
from mainspring.stats.calibration import expected_calibration_error
from mainspring.stats.ranking import auc, average_precision, pair

__all__ = ["auc", "average_precision"]

Function = Callable[[npt.ArrayLike, npt.ArrayLike], float]
OWN_METRICS = "own_metrics"  # key in a manifest's `extra`: custom metric -> whether higher is better
KEPT = ("baseline.", "holdout.")  # prefixes that a run uses for other metrics


def brier(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean squared difference of probability and outcome, in [0, 1]."""
    truth, scores = pair(y, score)
    return _mean((scores - truth) ** 2)


def log_loss(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities are clipped a double's epsilon away from 0 and 1."""
    truth, scores = pair(y, score)
    least = float(np.finfo(np.float64).eps)
    if scores.ndim == 2:
        scores = np.clip(scores, least, 1 - least)
        scores = scores / scores.sum(axis=1, keepdims=True)
        return _mean(-np.log(scores[np.arange(truth.size), truth.astype(np.int64)]))
    scores = np.clip(scores, least, 1 - least)
    return _mean(-np.where(truth.astype(np.bool_), np.log(scores), np.log1p(-scores)))


def accuracy(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Share of rows whose most likely class is the true one; for two classes, the threshold is 0.5.

    NaN if any score is: a model that does not answer is neither right nor wrong.
    """
    truth, scores = pair(y, score)
    if np.isnan(scores).any():
        return math.nan
    chosen = scores.argmax(axis=1) if scores.ndim == 2 else scores >= 0.5
    return _mean(chosen == truth)


def rmse(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Root of the mean squared error, in the label's unit."""
    truth, scores = pair(y, score)
    return math.sqrt(_mean((scores - truth) ** 2))


def mae(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean absolute error, in the label's unit."""
    truth, scores = pair(y, score)
    return _mean(np.abs(scores - truth))


class MetricFailed(Invalid):
    """Error: a custom metric raised, or returned no number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A named metric of predictions against the ground truth. Calling `metric(y, score)` returns its value.

    `custom` marks a metric declared by a project, whose function is arbitrary.
    """

    name: str
    compute: Function
    higher_is_better: bool
    custom: bool = False

    def __call__(self, y: npt.ArrayLike, score: npt.ArrayLike) -> float:
        return measure(self, y, score)


def metric(*, higher_is_better: bool, name: str = "") -> Callable[[Function], Metric]:
    """Turn a function `(y, score) -> number` of the project into a `Metric` named after it.

    The function receives read-only NumPy arrays: `y` of shape (rows,), int64 classes or float64 numbers, and `score` of
    shape (rows,) or, for several classes, (rows, classes) with `y` the index of the true class.

    Raises:
        Invalid: The direction is not a Boolean, or the name is not valid or is a built-in metric's.
    """
    if not isinstance(higher_is_better, bool):
        raise Invalid(f"A metric has higher_is_better={higher_is_better!r}.", fix="write True or False.")

    def build(function: Function) -> Metric:
        if not callable(function):
            raise Invalid(
                f"A metric cannot be made from {function!r}.", fix="put @ms.metric(...) above a function (y, score)."
            )
        called = check_id(name or getattr(function, "__name__", ""), "metric")
        if named(called) is not None or called in DECIDED or called.startswith(KEPT):
            raise Invalid(
                f"A metric named {called!r} already exists.", fix='give it another name: ms.metric(name="...").'
            )
        return Metric(called, function, higher_is_better, custom=True)

    return build


# decision metrics of a model whose threshold is chosen by cost: name -> whether higher is better
DECIDED = {"cost": False, "precision": True, "recall": True}

_BUILT_IN: Mapping[str, Metric] = {
    each.name: each
    for each in (
        Metric("auc", auc, True),
        Metric("average_precision", average_precision, True),
        Metric("accuracy", accuracy, True),
        Metric("brier", brier, False),
        Metric("log_loss", log_loss, False),
        Metric("rmse", rmse, False),
        Metric("mae", mae, False),
    )
}
ECE = Metric("ece", expected_calibration_error, False)  # computed if a gate or a model names it
_OF_TASK: Mapping[str, tuple[str, ...]] = {
    "binary": ("auc", "average_precision", "brier", "log_loss", "accuracy"),
    "multiclass": ("log_loss", "accuracy"),
    "regression": ("rmse", "mae"),
}
HIGHER_IS_BETTER: dict[str, bool] = {name: each.higher_is_better for name, each in _BUILT_IN.items()}


def recall_at_precision(precision: float) -> Metric:
    """Return the metric "recall_at_precision_0.9": the largest recall of a threshold with at least this precision.

    Raises:
        Invalid: `precision` is not in (0, 1].
    """
    if not _is_number(precision) or not 0 < precision <= 1:
        raise Invalid(f"{precision!r} is not a precision.", fix="use a number in (0, 1].")
    compute = partial(ranking.recall_at_precision, precision=float(precision))
    return Metric(f"recall_at_precision_{float(precision)!r}", compute, True)


def precision_at_k(k: float) -> Metric:
    """Return the metric "precision_at_100": the share of positives among the 100 rows with the highest scores.

    Args:
        k: Number of rows, or, below 1, share of rows.

    Raises:
        Invalid: `k` is neither a whole number of at least 1 nor a share in (0, 1).
    """
    return Metric(f"precision_at_{_k(k)!r}", partial(ranking.precision_at_k, k=_k(k)), True)


def recall_at_k(k: float) -> Metric:
    """Return the metric "recall_at_100": the share of all positives that are among the 100 rows with the highest
    scores.

    Arguments and errors are those of `precision_at_k`.
    """
    return Metric(f"recall_at_{_k(k)!r}", partial(ranking.recall_at_k, k=_k(k)), True)


def _k(k: Any) -> float:
    if not _is_number(k) or not (0 < k < 1 or (k >= 1 and k == int(k))):
        raise Invalid(f"{k!r} is not a number of rows.", fix="use a whole number such as 100, or a share such as 0.01.")
    return int(k) if k >= 1 else float(k)


# longest first: a prefix must not match the name of another metric
_WITH_NUMBER = (
    ("recall_at_precision_", recall_at_precision),
    ("precision_at_", precision_at_k),
    ("recall_at_", recall_at_k),
)


def named(name: str) -> Metric | None:
    """Return the built-in metric with this name, such as `recall_at_precision_0.9`; `None` if there is none."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name == ECE.name:
        return ECE
    for prefix, make in _WITH_NUMBER:
        number = name.removeprefix(prefix)
        if number != name:
            try:
                found = make(int(number) if number.isdecimal() else float(number))
            except (ValueError, Invalid):
                return None
            return found if found.name == name else None
    return None


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the names of the metrics that `score` returns for a task.

    Raises:
        Invalid: `task` is unknown.
    """
    if task not in _OF_TASK:
        raise Invalid(f"{task!r} is not a task.", fix=f"use one of {', '.join(_OF_TASK)}.")
    return _OF_TASK[task]


def is_of(task: str, found: Metric) -> bool:
    """Return whether a metric applies to a task; ranking metrics need two classes, calibration needs classes."""
    if found.custom or found.name in _OF_TASK[task]:
        return True
    return found.name not in _BUILT_IN and (task == "binary" or (task == "multiclass" and found.name == ECE.name))


def of_label(name: str, label: str) -> str:
    """Return the name of a metric for one of several labels: `rmse.minutes`."""
    return f"{name}.{label}"


def score(
    task: str,
    y: npt.ArrayLike,
    predicted: npt.ArrayLike,
    more: Sequence[Metric] = (),
    *,
    labels: Sequence[str] = (),
) -> dict[str, float]:
    """Return every metric of the task, and of `more`, by name; metrics undefined for these rows are omitted.

    For several labels these are the metrics of each, such as `rmse.minutes`, and under the plain name their mean, if
    defined for every label.

    Args:
        labels: Names of several labels; `y` and `predicted` then have the shape (rows, labels).

    Raises:
        Invalid: `task` is unknown, or the shapes do not match.
        MetricFailed: A custom metric raised, or returned no number.
    """
    if labels:
        columns = zip(np.asarray(y).T, np.asarray(predicted).T, strict=True)
        return _means([score(task, *column, more) for column in columns], labels)
    wanted = {name: _BUILT_IN[name] for name in metrics_of(task)} | {each.name: each for each in more}
    truth = truth_of(task, y)
    values = {name: measure(each, truth, predicted) for name, each in wanted.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


class UnknownClasses(InvalidData):
    """Error: held-out rows have classes without an output of the model; `names` lists them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"The held-out rows have classes that the model does not know: {', '.join(self.names)}.")


def class_places(labels: Iterable[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return each label's index among the classes, the model's output names. Labels are compared as texts.

    Raises:
        UnknownClasses: A label is not among the classes.
    """
    places = {name: place for place, name in enumerate(classes)}
    texts = [str(label) for label in labels]
    if unknown := sorted(set(texts) - set(places)):
        raise UnknownClasses(unknown)
    return np.array([places[text] for text in texts], dtype=np.int64)


def _means(found: Sequence[Mapping[str, float]], labels: Sequence[str]) -> dict[str, float]:
    """Return the mean over labels of each metric defined for all of them, followed by each label's own values."""
    means = {
        name: float(np.mean([values[name] for values in found]))
        for name in found[0]
        if all(name in values for values in found)
    }
    return means | {
        of_label(name, label): value
        for label, values in zip(labels, found, strict=True)
        for name, value in values.items()
    }


def truth_of(task: str, y: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return labels in the canonical type of all metrics: int64 classes, or float64 numbers.

    In a task with classes, labels that are not whole numbers, such as NaN, stay float64.
    """
    numbers = np.asarray(y).astype(np.float64)
    whole = task != "regression" and np.isfinite(numbers).all() and np.array_equal(numbers, np.floor(numbers))
    return numbers.astype(np.int64) if whole else numbers


def measure(found: Metric, y: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Return the value of one metric; NaN if undefined.

    Raises:
        Invalid: The shapes do not match.
        MetricFailed: A custom metric raised, or returned no number; the message names it.
    """
    if not found.custom:
        return found.compute(y, predicted)
    truth, scores = (np.array(each) for each in pair(y, predicted))
    truth.flags.writeable = scores.flags.writeable = False  # a metric must not change the input of the next
    try:
        value: Any = found.compute(truth, scores)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise MetricFailed(
            f"The metric {found.name!r} failed at {place.filename}:{place.lineno}: {type(error).__name__}: {error}",
            fix="correct the function; y and score are read-only NumPy arrays.",
        ) from error
    if not _is_number(value):
        raise MetricFailed(
            f"The metric {found.name!r} returned {value!r}, a {type(value).__name__}.", fix="let it return one number."
        )
    return float(value)


def higher_is_better(name: str, declared: Iterable[Metric] = ()) -> bool | None:
    """Return whether higher values of a metric are better, for declared and built-in metrics; `None` if unknown.

    A metric of one of several labels (`rmse.minutes`) has the direction of the plain metric.
    """
    declared = tuple(declared)
    known = {each.name: each.higher_is_better for each in declared}
    if name in known:
        return known[name]
    found = named(name)
    if found is not None:
        return found.higher_is_better
    metric, _, label = name.rpartition(".")
    return higher_is_better(metric, declared) if label.isidentifier() and metric else DECIDED.get(name)


def _is_number(value: Any) -> bool:
    """Return whether a value is a real number: an int, a float, or a NumPy scalar (no Boolean, no array)."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if values.size else math.nan
