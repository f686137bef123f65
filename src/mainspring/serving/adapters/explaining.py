"""Shared parts of explainers: the unit of a model's sum, and the method of libraries of trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mainspring.registry.model import Bundle
from mainspring.serving.background import answers_of, background_of, owner_of
from mainspring.serving.explanation import ANSWER, LOG_ODDS, LOGARITHM, SCORE, SCORES, Method, NotExplainable
from mainspring.serving.plane.executor import Array
from mainspring.serving.ports import Executor

_CLOSE = 1e-5


def space_of(totals: Array, answers: Array) -> str | None:
    """Return the unit of a model's sums, from its answers for the same rows; `None` if the answers are no function
    of them.

    Args:
        totals, answers: Shape (rows, outputs).
    """
    with np.errstate(over="ignore"):
        shifted = np.exp(totals - totals.max(axis=1, keepdims=True))
        candidates = {
            ANSWER: totals,
            LOG_ODDS: 1 / (1 + np.exp(-totals)),
            LOGARITHM: np.exp(totals),
            SCORES: shifted / shifted.sum(axis=1, keepdims=True),
        }
    for space, expected in candidates.items():
        if np.allclose(expected, answers, rtol=_CLOSE, atol=_CLOSE):
            return space
    if totals.shape[1] > 1:
        return None
    order = np.argsort(totals[:, 0], kind="stable")
    steps = np.diff(answers[order, 0])
    rises = (steps >= -_CLOSE * np.abs(answers).max()).all()
    return SCORE if rises and answers[order[0], 0] < answers[order[-1], 0] else None


def recorded_method(executor: Executor, sums: Callable[[Mapping[str, Any], int], Array], bundle: Bundle) -> Method:
    """Return the method of a library's own contributions, which follow the rows of training through the trees.

    Args:
        sums: Returns the model's sums, shape (rows, outputs).

    Raises:
        NotExplainable: The answers do not follow from the sums, or the bundle has no rows to see it by.
    """
    given, rows = background_of(bundle)
    space = space_of(sums(given, rows), answers_of(executor, given, rows))
    if space is None:
        raise NotExplainable(owner_of(bundle), "its answers do not follow from the sum of its trees")
    calibrated = bundle.manifest.curve is not None
    return Method(name="tree-path-dependent", exact=True, space=space, calibrated=calibrated)
