"""How good scores are on held-out rows, and what a model without features would score."""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.core.errors import InvalidData
from mainspring.stats import metrics
from mainspring.training.frames import Array


def evaluate(task: str, labels: Array, scores: Array, classes: tuple[str, ...] = ()) -> dict[str, float]:
    """Return the task's metrics.

    Args:
        labels: Shape (rows,).
        scores: Shape (rows, outputs).
        classes: Of a multiclass task, the names of the outputs.

    Raises:
        InvalidData: A held-out label is of a class that training never saw.
    """
    if task != "multiclass":
        return metrics.score(task, labels, scores[:, 0])
    position = {name: number for number, name in enumerate(classes)}
    unseen = sorted({str(label) for label in labels.tolist()} - set(position))
    if unseen:
        raise InvalidData(f"The held-out rows have the classes {unseen}, which training never saw.")
    return metrics.score(task, np.array([position[str(label)] for label in labels.tolist()]), scores)


def constant_scores(task: str, labels: Array, rows: int, classes: tuple[str, ...] = ()) -> Array:
    """Return what the training labels alone predict, shape (rows, outputs): their mean, or the classes' shares."""
    if task == "multiclass":
        names: list[Any] = [str(label) for label in labels.tolist()]
        return np.tile([names.count(name) / len(names) for name in classes], (rows, 1))
    return np.full((rows, 1), float(np.mean(labels)))
