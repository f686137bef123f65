"""Importance and effect of each column of a model, on held-out rows.

Three answers to three questions. Mean absolute contribution: how much the column moves answers. Permutation importance
(Breiman 2001; Fisher et al. 2019, https://arxiv.org/abs/1801.01489): how much worse the answers become without the
column's information. Partial dependence (Friedman 2001) with individual curves (Goldstein et al. 2015,
https://arxiv.org/abs/1309.6392): where the answer goes as the column changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

import msgspec
import numpy as np

from mainspring.governance.model import Importance, Interval
from mainspring.serving.explanation import Array, Method
from mainspring.serving.ports import Explainer

Columns = Mapping[str, Sequence[Any]]
Answer = Callable[[Columns, int], Array]  # -> the model's answers, shape (rows, outputs)

REPEATS = 3
_SPREAD = 1.96  # standard errors of a 95 % interval
_AT_ONCE = 1024
_GRID = 12  # values of one curve
_CURVES = 200


class Dependence(msgspec.Struct, frozen=True, kw_only=True):
    """Partial dependence of one output on one column.

    Args:
        values: Values of the column, in order; the commonest ones of a text.
        mean: Mean answer with each value in all rows.
        low, high: Deciles 1 and 9 of the rows' own curves, each moved to the same mean.
        interaction: Share of the curves' variance that the mean curve lacks: 0 if the column's effect is the same in
            all rows.
    """

    column: str
    output: str
    values: list[Any]
    mean: list[float]
    low: list[float]
    high: list[float]
    interaction: float


class ModelExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """A version as a whole. The most important columns come first.

    Args:
        rows: Number of held-out rows.
        method: How contributions were computed; `None` if there is no exact way, and `why` says it.
    """

    model: str
    version: str
    digest: str
    rows: int
    method: Method | None
    why: str
    importances: list[Importance]
    dependences: list[Dependence]


def importances(
    columns: Columns, rows: int, answer: Answer, explainer: Explainer | None, truth: Array | None
) -> list[Importance]:
    """Return the importance of every column, the most important first.

    Args:
        truth: Shape (rows, outputs): the number, or 1 for the class that it was; `None` if unknown.
    """
    contributions = None if explainer is None else _contributions(columns, rows, explainer)
    increases = None if truth is None else _increases(columns, rows, answer, truth)
    found = [
        Importance(
            column=name,
            contribution=None if contributions is None else _interval(contributions[:, place]),
            permutation=None if increases is None else _interval(increases[:, place]),
        )
        for place, name in enumerate(columns)
    ]
    return sorted(found, key=_weight, reverse=True)


def dependences(
    columns: Columns, rows: int, answer: Answer, outputs: Sequence[str], chosen: Sequence[str]
) -> list[Dependence]:
    """Return the partial dependence of every output on the columns `chosen`, over up to 200 rows."""
    some = np.unique(np.linspace(0, rows - 1, min(rows, _CURVES)).astype(int)).tolist()
    base = {name: [values[row] for row in some] for name, values in columns.items()}
    found = []
    for name in chosen:
        grid = _grid(columns[name])
        if not grid:
            continue
        curves = np.stack([_answers({**base, name: [value] * len(some)}, len(some), answer) for value in grid], axis=1)
        for place, output in enumerate(outputs):
            found.append(_dependence(name, output, grid, curves[:, :, place]))
    return found


def _contributions(columns: Columns, rows: int, explainer: Explainer) -> Array:
    """Return absolute contributions, shape (rows, columns)."""
    parts = [
        np.abs(explainer.explain(_part(columns, at), min(rows, at + _AT_ONCE) - at).values).sum(axis=2)
        for at in range(0, rows, _AT_ONCE)
    ]
    return np.concatenate(parts)


def _increases(columns: Columns, rows: int, answer: Answer, truth: Array) -> Array:
    """Return how much the squared error of each row grows when a column is permuted, shape (rows, columns)."""
    before = ((_answers(columns, rows, answer) - truth) ** 2).sum(axis=1)
    found = np.zeros((rows, len(columns)))
    rng = np.random.default_rng(0)
    for _ in range(REPEATS):
        order = rng.permutation(rows).tolist()
        for place, (name, values) in enumerate(columns.items()):
            after = _answers({**columns, name: [values[row] for row in order]}, rows, answer)
            found[:, place] += ((after - truth) ** 2).sum(axis=1) - before
    return found / REPEATS


def _answers(columns: Columns, rows: int, answer: Answer) -> Array:
    parts = [answer(_part(columns, at), min(rows, at + _AT_ONCE) - at) for at in range(0, rows, _AT_ONCE)]
    return np.concatenate(parts)


def _part(columns: Columns, start: int) -> Columns:
    return {name: values[start : start + _AT_ONCE] for name, values in columns.items()}


def _interval(values: Array) -> Interval:
    mean, error = float(values.mean()), float(values.std() / np.sqrt(max(1, len(values))))
    return Interval(mean, mean - _SPREAD * error, mean + _SPREAD * error)


def _weight(found: Importance) -> float:
    first = found.contribution or found.permutation
    return 0.0 if first is None else first.value


def _grid(values: Sequence[Any]) -> list[Any]:
    """Return up to 12 values of a column: quantiles of numbers that occur, or the commonest texts."""
    known = [value for value in values if value is not None and not (isinstance(value, float) and isnan(value))]
    distinct = sorted(set(known))
    if len(distinct) <= _GRID:
        return distinct
    if isinstance(distinct[0], str):
        return sorted(distinct, key=lambda value: (-known.count(value), value))[:_GRID]
    ordered = sorted(known)
    return sorted({ordered[round(place)] for place in np.linspace(0.02, 0.98, _GRID) * (len(ordered) - 1)})


def _dependence(name: str, output: str, grid: Sequence[Any], curves: Array) -> Dependence:
    mean = curves.mean(axis=0)
    centred = curves - curves.mean(axis=1, keepdims=True)
    low, high = np.quantile(centred, [0.1, 0.9], axis=0) + mean.mean()
    total = float((centred**2).sum())
    rest = float(((centred - centred.mean(axis=0)) ** 2).sum())
    return Dependence(
        column=name,
        output=output,
        values=list(grid),
        mean=mean.tolist(),
        low=low.tolist(),
        high=high.tolist(),
        interaction=rest / total if total > 0 else 0.0,
    )
