"""Evaluation of scores on held-out rows, and of a constant baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.stats import metrics
from mainspring.stats.metrics import Metric
from mainspring.training.flavours.scoring import check_width
from mainspring.training.frames import Array
from mainspring.training.model import Model
from mainspring.training.sets.training_set import TrainingSet


def evaluate(
    task: str,
    labels: Array,
    scores: Array,
    classes: tuple[str, ...] = (),
    more: Sequence[Metric] = (),
    columns: tuple[str, ...] = (),
) -> dict[str, float]:
    """Return the task's metrics, and those in `more`; see `stats.metrics.score`.

    Args:
        labels: Shape (rows,), or (rows, labels) for several.
        scores: Shape (rows, outputs).
        classes: Output names of a multiclass task.
        columns: Column names of several labels; empty for one.

    Raises:
        UnknownClasses: A held-out label has a class unseen in training.
        NotConvertible: See `check_width`.
        Invalid: A custom metric failed; the message names it.
    """
    check_width(task, scores, columns)
    if columns:
        return metrics.score(task, labels, scores, more, labels=columns)
    if task != "multiclass":
        return metrics.score(task, labels, scores[:, 0], more)
    return metrics.score(task, metrics.class_places(labels.tolist(), classes), scores, more)


def judge(
    model: Model, data: TrainingSet, held_out: Array, validation: Array, classes: tuple[str, ...]
) -> tuple[dict[str, float], float | None]:
    """Return the metrics of held-out scores, and the threshold chosen on the validation rows.

    Args:
        held_out: Shape (held-out rows, outputs).
        validation: Shape (validation rows, outputs).

    Raises:
        InvalidData: The validation rows have only one class, so no threshold can be chosen; see also `evaluate`.
    """
    threshold = None if model.threshold is None else model.threshold.choose(data.validation.y, validation[:, 0])
    decided = () if model.threshold is None or threshold is None else model.threshold.metrics(threshold)
    more = (*model.measured, *decided)
    return evaluate(model.task, data.holdout.y, held_out, classes, more, model.label_columns), threshold


def constant(model: Model, data: TrainingSet, classes: tuple[str, ...] = ()) -> dict[str, float]:
    """Return the held-out metrics of a constant predictor. Raises as `judge` does.

    Args:
        classes: Output names of a multiclass task; by default the classes of the training and validation rows.
    """
    known = [*data.train.y.tolist(), *data.validation.y.tolist()] if model.task == "multiclass" else []
    classes = classes or tuple(sorted({str(label) for label in known}))
    held_out, validation = (
        constant_scores(model.task, data.train.y, len(part), classes) for part in (data.holdout, data.validation)
    )
    return judge(model, data, held_out, validation, classes)[0]


def undefined(model: Model, data: TrainingSet, found: Mapping[str, float]) -> list[str]:
    """Return a sentence for each of the model's metrics that is undefined on its held-out rows."""
    held_out = data.holdout.y.tolist()
    same = held_out.count(held_out[0]) == len(held_out) if held_out else False
    only = f", which all have the label {held_out[0]!r}" if same else ""
    return [
        f"{name} is not defined on the {len(held_out):,} held-out rows{only}."
        for name in model.metric_names
        if name not in found
    ]


def constant_scores(task: str, labels: Array, rows: int, classes: tuple[str, ...] = ()) -> Array:
    """Return constant predictions from the training labels, shape (rows, outputs): their mean, or the class shares."""
    if task == "multiclass":
        names: list[Any] = [str(label) for label in labels.tolist()]
        return np.tile([names.count(name) / len(names) for name in classes], (rows, 1))
    return np.tile(np.mean(labels, axis=0).reshape(1, -1), (rows, 1))
