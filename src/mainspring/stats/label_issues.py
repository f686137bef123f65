"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang, J. Artificial Intelligence
Research 70, 2021).

A row counts for a class if its out-of-sample probability of the class is at least the mean probability that rows with
this label have of it; of several such classes for the most probable. Rows that count for another class than their label
are issues, unless their label is the most probable of all classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelIssues:
    """Issues among some rows, the least plausible label first.

    Attributes:
        rows: Row of each issue.
        suggested: The class that each counts for.
        confidence: Probability of the given label of each.
        joint: Estimated number of rows by given class and true class, shape (classes, classes).
    """

    rows: Places
    suggested: Places
    confidence: Floats
    joint: Floats


def find(labels: Places, probabilities: Floats) -> LabelIssues:
    """Return the issues among labelled rows.

    Args:
        labels: Class of each row, shape (rows,). Every class has a row.
        probabilities: By a model that was not fitted on the row, shape (rows, classes).
    """
    classes = probabilities.shape[1]
    of_label = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, of_label, minlength=classes) / counts
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.max(axis=1) >= 0
    chosen = np.where(counted, confident.argmax(axis=1), labels)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], chosen[counted]), 1)
    # Scaled so that each given class has as many rows as it has in the data.
    sums = joint.sum(axis=1, keepdims=True)
    joint = np.divide(joint, sums, out=np.diag(np.ones(classes)), where=sums > 0) * counts[:, None]
    rows = np.flatnonzero((chosen != labels) & (probabilities.argmax(axis=1) != labels))
    order: npt.NDArray[Any] = np.argsort(of_label[rows], kind="stable")
    return LabelIssues(rows[order], chosen[rows[order]], of_label[rows[order]], joint)
