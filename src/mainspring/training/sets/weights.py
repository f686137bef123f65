"""Weights of rows in a fit: higher for rare classes, lower for old rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.training.frames import Array


def class_weights(labels: Array) -> dict[Any, float]:
    """Return class -> weight that gives every class the same total: rows / (classes x rows of the class).

    This is scikit-learn's "balanced" (King and Zeng, Political Analysis 9, 2001). A model fitted with such weights
    predicts the probabilities of a balanced population: calibrate it (`flavours.calibration.calibrated`)
    before using them.

    Args:
        labels: Shape (rows,), of any sortable type.
    """
    classes, counts = np.unique(labels, return_counts=True)
    return {
        each.item() if isinstance(each, np.generic) else each: len(labels) / (len(classes) * int(count))
        for each, count in zip(classes, counts, strict=True)
    }


def sample_weights(labels: Array, at: Array, *, balanced: bool = True, half_life: int | None = None) -> Array:
    """Return each row's weight, float64 of shape (rows,), with mean 1.

    Args:
        labels: Shape (rows,).
        at: Shape (rows,), UTC epoch microseconds.
        balanced: Give every class the same total weight (after `half_life` is applied to each row).
        half_life: Age difference at which a row's weight halves, µs; `None`: age has no effect.

    Raises:
        Invalid: `half_life` is not positive.
    """
    if half_life is not None and half_life <= 0:
        raise Invalid(f"The half-life is {half_life} µs.", fix='use a duration such as "30d".')
    if not len(labels):
        return np.ones(0)
    _, group = np.unique(labels, return_inverse=True) if balanced else (None, np.zeros(len(labels), np.int64))
    newest = np.full(int(group.max()) + 1, at.min())
    np.maximum.at(newest, group, at)
    # relative to the newest row of the class, so that a class with only old rows keeps its weight
    weights = np.ones(len(labels)) if half_life is None else np.exp2((at - newest[group]) / half_life)
    if balanced:
        weights = weights / np.bincount(group, weights)[group]
    return np.asarray(weights / weights.mean())
