"""Additive sums over labelled predictions, from which metrics and their intervals follow without the rows.

Sums of disjoint rows add up: those of a day are the sums of its hours. The bins of the score are fixed, so sums of
different models can be added too.

Shapes: totals (..., len(TOTALS)) and bins (..., 64, 6); functions of them work on any leading axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Of all predictions: their number. Of those with a label: `labels`, `repeated` (several label rows), `contradicted`
# (label rows that differ). Of those with label and score: all others. A name that ends with 2 is a sum of squares.
# `score`, `label`, `error`: of several classes, the confidence in the most likely one and whether it is the true one.
# `squared`: the squared error, of several classes summed over them. `capped`: the loss that a test of harm bounds.
# `flagged`, `hits`: scores at or above the bundle's threshold, and the positives among them.
# `groups`, `ndcg`, `precision`: of rankings. `naive`: a naive forecast's absolute error. `pinball`: a quantile's loss.
TOTALS = (
    "predictions", "labels", "repeated", "contradicted", "scored", "score", "label", "error", "error2",
    "squared", "squared2", "absolute", "log_loss", "log_loss2", "correct", "capped", "capped2", "flagged", "hits",
    "groups", "ndcg", "ndcg2", "precision", "precision2", "naive", "pinball", "pinball2",
)  # fmt: skip
PLACE = {name: place for place, name in enumerate(TOTALS)}
BINS = 64
# By bin of the score, of rows with a label: their number, and sums of labels, of scores, of label x score; of all
# predictions, labelled or not: their number and the sum of scores. Of numbers: absolute errors as labels, squared
# errors as products, and bins by the edges of training.
CELLS = ("rows", "labels", "scores", "products", "predictions", "predicted")
_LOG_ODDS = np.linspace(-8, 8, BINS + 1)[1:-1]  # a quarter wide, so that rare classes are resolved as well
EDGES: Floats = 1 / (1 + np.exp(-_LOG_ODDS))  # probabilities between the bins, shape (63,)
NO_BINS: Floats = np.zeros((BINS, len(CELLS)))  # shared, so never written
NO_BINS.flags.writeable = False
LEAST = 1e-4  # probability below which the loss that a test of harm bounds does not grow


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over some predictions. `+` joins disjoint rows, `-` takes rows away."""

    totals: Floats
    bins: Floats

    @classmethod
    def nothing(cls) -> Sums:
        return cls(np.zeros(len(TOTALS)), np.zeros((BINS, len(CELLS))))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.totals + other.totals, self.bins + other.bins)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.totals - other.totals, self.bins - other.bins)

    def __getitem__(self, name: str) -> float:
        return float(self.totals[PLACE[name]])

    @property
    def empty(self) -> bool:
        """True if every sum is zero, as after `a - a`; the sums of reals may differ by rounding."""
        counts = [PLACE[name] for name in ("predictions", "labels", "repeated", "contradicted", "scored", "groups")]
        return not (self.totals[counts].any() or np.abs(self.totals).max() > 1e-6 or np.abs(self.bins).max() > 1e-6)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to sum up. All arrays have the shape (rows,), except `classes` (rows, classes).

    Attributes:
        score: Probability of class 1, or the predicted number; NaN where missing.
        label: 0 and 1, a number, or, with `classes`, the place of the true class, -1 for an unknown one.
        classes: Probabilities of several classes.
        threshold: Decisions are scores of at least the threshold.
        cap: Upper bound of the loss that a test of harm adds up.
        naive: Naive forecasts.
        quantile: The quantile that the score predicts.
        edges: Of the bins of predicted numbers, shape (63,); without them these have no bins.
    """

    score: Floats
    label: Floats
    classes: Floats | None = None
    threshold: float | None = None
    cap: float = math.inf
    naive: Floats | None = None
    quantile: float | None = None
    edges: Floats | None = None

    @property
    def shown(self) -> Floats:
        """The score, of several classes the confidence in the most likely one."""
        return self.score if self.classes is None else np.asarray(self.classes.max(axis=1, initial=0.0))


def contributions(task: str, rows: Rows) -> tuple[Floats, Ints]:
    """Return what each row adds to the totals, shape (rows, len(TOTALS)), and the bin of its score, -1 for none."""
    score, label = rows.shown, rows.label
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        parts = _of_numbers(rows) if task == "regression" else _of_classes(rows)
        error = score - parts["label"]
        parts |= {"score": score, "error": error, "capped": np.minimum(parts["capped"], rows.cap)}
        parts["error2"] = error**2
        for name in ("squared", "log_loss", "capped", "pinball"):
            if name in parts:
                parts[f"{name}2"] = parts[name] ** 2
    known = np.isfinite(score) & np.isfinite(label)
    found = np.zeros((label.size, len(TOTALS)))
    for name, values in parts.items():
        found[:, PLACE[name]] = np.where(known & np.isfinite(values), values, 0.0)
    found[:, PLACE["labels"]], found[:, PLACE["scored"]] = 1.0, known
    edges = rows.edges if task == "regression" else EDGES
    return found, np.full(label.size, -1) if edges is None else np.where(known, bins_of(score, edges), -1)


def _of_numbers(rows: Rows) -> dict[str, Any]:
    error = rows.score - rows.label
    parts: dict[str, Any] = {"label": rows.label, "squared": error**2, "absolute": np.abs(error)}
    if rows.naive is not None:
        parts["naive"] = np.abs(rows.naive - rows.label)
    if rows.quantile is not None:
        parts["pinball"] = np.maximum(rows.quantile * -error, (rows.quantile - 1) * -error)
    return parts | {"capped": parts["absolute"]}


def _of_classes(rows: Rows) -> dict[str, Any]:
    score, label, classes = rows.shown, rows.label, rows.classes
    if classes is None:
        likely = np.where(label >= 0.5, score, 1 - score)
        parts: dict[str, Any] = {"label": label, "squared": (score - label) ** 2, "absolute": np.abs(score - label)}
        parts["correct"] = (score >= 0.5) == (label >= 0.5)
        if rows.threshold is not None:
            flagged = score >= rows.threshold
            parts |= {"flagged": flagged, "hits": flagged & (label >= 0.5)}
    else:
        place = np.where(np.isfinite(label), label, -1).astype(np.int64)
        at_place = classes[np.arange(label.size), np.clip(place, 0, classes.shape[1] - 1)]
        likely = np.where(place >= 0, at_place, 0.0)
        right = (classes.argmax(axis=1) == place).astype(np.float64)
        parts = {"label": right, "correct": right, "squared": (classes**2).sum(axis=1) - 2 * likely + 1}
    parts["log_loss"] = -np.log(np.clip(likely, np.finfo(np.float64).eps, 1.0))
    return parts | {"capped": -np.log(np.clip(likely, LEAST, 1.0))}


def bins_of(score: Floats, edges: Floats = EDGES) -> Ints:
    """Return the bin of each score, shape (rows,); that of a NaN is the last."""
    return np.asarray(np.searchsorted(edges, score, side="right"), np.int64)


def grouped(
    found: Floats, place: Ints, score: Floats, group: Ints, groups: int, *, numbers: bool = False
) -> tuple[Floats, Floats]:
    """Return totals (groups, len(TOTALS)) and bins (groups, 64, 6) of rows by group.

    Args:
        found: As of `contributions`.
        place: Bin of each row, -1 for none.
        score: Score of each row.
        group: Number of each row's group.
        numbers: Whether the scores are numbers and not probabilities.
    """
    totals = np.zeros((groups, found.shape[1]))
    for number, column in enumerate(found.T):
        totals[:, number] = np.bincount(group, column, groups)
    binned = place >= 0
    at = group[binned] * BINS + place[binned]
    label, shown = found[binned, PLACE["absolute" if numbers else "label"]], score[binned]
    parts = (np.ones(at.size), label, shown, found[binned, PLACE["error2"]] if numbers else label * shown)
    bins = np.zeros((groups * BINS, len(CELLS)))
    for cell, part in enumerate(parts):
        bins[:, cell] = np.bincount(at, part, groups * BINS)
    return totals, bins.reshape(groups, BINS, len(CELLS))


def summed(task: str, rows: Rows) -> Sums:
    """Return the sums of labelled rows."""
    found, place = contributions(task, rows)
    totals, bins = grouped(
        found, place, rows.shown, np.zeros(rows.label.size, np.int64), 1, numbers=task == "regression"
    )
    return Sums(totals[0], bins[0])


def scores_summed(score: Floats, edges: Floats = EDGES) -> Floats:
    """Return the bins of predictions, labelled or not, shape (64, 6)."""
    known = score[np.isfinite(score)]
    place, bins = bins_of(known, edges), np.zeros((BINS, len(CELLS)))
    bins[:, 4], bins[:, 5] = np.bincount(place, minlength=BINS), np.bincount(place, known, BINS)
    return bins


def with_rankings(sums: Sums, score: Floats, gain: Floats, group: Ints, k: int) -> Sums:
    """Return the sums with the rankings of some groups of rows added.

    Each group is ranked by score, equal scores by their place; a group without a positive gain is left out.

    Args:
        gain: Relevance of each row, at least 0.
        group: Number of each row's group.
        k: Only the first `k` of a ranking count.
    """
    totals = sums.totals.copy()
    order = np.lexsort((-score, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for part in np.split(order, starts[1:]):
        gains = gain[part]
        if not gains.size or not (gains > 0).any():
            continue
        discount = 1 / np.log2(np.arange(2, gains.size + 2))
        best = float((np.sort(gains)[::-1][:k] * discount[:k]).sum())
        ndcg = float((gains[:k] * discount[:k]).sum()) / best
        relevant = gains > 0
        precision = np.cumsum(relevant) / np.arange(1, gains.size + 1)
        mean = float((precision[:k] * relevant[:k]).sum()) / min(int(relevant.sum()), k)
        for name, value in (("groups", 1.0), ("ndcg", ndcg), ("precision", mean)):
            totals[PLACE[name]] += value
        totals[PLACE["ndcg2"]] += ndcg**2
        totals[PLACE["precision2"]] += mean**2
    return replace(sums, totals=totals)
