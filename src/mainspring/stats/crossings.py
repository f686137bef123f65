"""Sums of rows, missing values and scores in segments: in a few bins of the features that matter, and in their pairs.

Each row is in at most one bin of each feature. With X the rows' 0 and 1 by bin, the matrix X'X counts the rows of each
bin and of each pair of bins, and X' diag(w) X adds up any w over them. So four small matrices are the whole evidence of
depth-two segments. They add up over hours as `Pairs` do, and are kept as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.stats.column_counting import as_numbers
from mainspring.stats.reference import CATEGORICAL, ColumnReference, Reference
from mainspring.stats.segmenting import AND, quarters
from mainspring.stats.sketches import Pairs

MOST_FEATURES, MOST_BINS = 4, 4
ALL = ""  # the first bin, of all rows
ROWS, MISSING, SCORE, SQUARES = "rows", "missing", "score", "squares"
MEASURES = (ROWS, MISSING, SCORE, SQUARES)
_LEAST = 0.001  # share of the score's variance that a feature's bins explain
_LARGEST = 100.0  # deviations from training's mean; scores beyond count as this
_BLOCK = 4096  # rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


class Depth(NamedTuple):
    """All rows, each bin, and each pair of bins of different features: places of two bins, and the segment's name."""

    first: Ints
    second: Ints
    names: tuple[str, ...]

    @classmethod
    def of(cls, bins: Sequence[str]) -> Depth:
        feature = [name.partition("=")[0] for name in bins]
        first, second = np.triu_indices(len(bins))
        both = zip(first.tolist(), second.tolist(), strict=True)
        kept = [at for at, (one, other) in enumerate(both) if one == 0 or feature[one] != feature[other]]
        first, second = first[kept], second[kept]
        named = zip(first.tolist(), second.tolist(), strict=True)
        return cls(first, second, tuple(bins[two] if one == 0 else bins[one] + AND + bins[two] for one, two in named))


class Crossing:
    """Maker of the sums of one version's segments.

    Args:
        reference: Of the version's training; its `crossed` are the features whose bins are segments.
        score: Name of the score among the columns.
        hidden: Features that are left out, such as personal ones.

    Attributes:
        bins: Name of each bin, such as `Schedule.origin=JFK`; the first is `ALL`.
        features: Place of each bin's feature; -1 for `ALL`.
    """

    def __init__(self, reference: Reference, score: str, hidden: Sequence[str] = ()) -> None:
        known = reference.columns
        self._features = {
            name: known[name] for name in reference.crossed[:MOST_FEATURES] if name in known and name not in hidden
        }
        names = {name: bins_of(column) for name, column in self._features.items()}
        self.bins = (ALL, *(f"{name}={each}" for name, bins in names.items() for each in bins))
        self.features = (-1, *(place for place, bins in enumerate(names.values()) for _ in bins))
        self._score = score
        scale = known.get(score)
        self._center = 0.0 if scale is None else scale.mean
        self._scale = 1.0 if scale is None else scale.sd or 1.0

    def __bool__(self) -> bool:
        return bool(self._features)

    @property
    def names(self) -> tuple[str, ...]:
        """Features whose bins are segments."""
        return tuple(self._features)

    def totals(self, values: Mapping[str, Any], weights: Floats) -> dict[str, Floats]:
        """Return segment -> the sums of weights over its rows, of each bin and each pair of bins that has rows.

        Args:
            values: Column -> shape (rows,), as of `Ruler.sketch`.
            weights: Shape (rows, weights).
        """
        depth, inside = Depth.of(self.bins), self._inside(values, len(weights))
        weights = np.column_stack([np.ones(len(weights)), weights])
        found = np.zeros((len(depth.names), weights.shape[1]))
        for first in range(0, len(weights), _BLOCK):
            block = inside[first : first + _BLOCK]
            found += (block[:, depth.first] * block[:, depth.second]).T @ weights[first : first + _BLOCK]
        return {name: sums[1:] for name, sums in zip(depth.names, found, strict=True) if name != ALL and sums[0]}

    def sums(self, values: Mapping[str, Any], rows: int) -> list[Pairs]:
        """Return the sums of rows, one matrix for each of `MEASURES`.

        `MISSING` adds up the share of a row's columns that are missing. Scores count in training's standard deviations
        from training's mean; a row without a score counts as the mean.

        Args:
            values: Column -> shape (rows,), as of `Ruler.sketch`.
        """
        inside = self._inside(values, rows)
        score = np.zeros(rows)
        if self._score in values:
            numbers = as_numbers(values[self._score])[0]
            reach = _LARGEST * self._scale
            finite = np.where(np.isfinite(numbers), numbers, self._center)
            score = (np.clip(finite, self._center - reach, self._center + reach) - self._center) / self._scale
        weights = {MISSING: _missing(values, self._score, rows), SCORE: score, SQUARES: score * score}
        return [Pairs(self.bins, rows, _crossed(inside, weights.get(measure))) for measure in MEASURES]

    def _inside(self, values: Mapping[str, Any], rows: int) -> Floats:
        """Return 1 where a row is in a bin, else 0; shape (rows, bins)."""
        inside = np.zeros((rows, len(self.bins)))
        inside[:, 0] = 1.0
        first = 1
        for name, column in self._features.items():
            many = len(bins_of(column))
            if name in values:
                places = places_of(column, values[name])
                known = np.flatnonzero(places >= 0)
                inside[known, first + places[known]] = 1.0
            first += many
        return inside


def bins_of(column: ColumnReference) -> tuple[str, ...]:
    """Return the names of a feature's bins: its commonest categories, or the quarters of its numbers."""
    if column.kind == CATEGORICAL:
        common = sorted(range(len(column.categories)), key=lambda place: -column.bins[place])[:MOST_BINS]
        return tuple(column.categories[place] for place in common)
    return quarters(column)[1] if column.edges else ()


def places_of(column: ColumnReference, values: Any) -> Ints:
    """Return the bin of each value, shape (rows,); -1 for one that is missing or in no bin."""
    if column.kind == CATEGORICAL:
        of = {category: place for place, category in enumerate(bins_of(column))}
        given = values.to_pylist() if hasattr(values, "to_pylist") else values
        return np.fromiter((of.get(each, -1) if isinstance(each, str) else -1 for each in given), np.intp, len(given))
    numbers = as_numbers(values)[0]
    if column.float32:
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32).astype(np.float64)
    return np.where(np.isnan(numbers), -1, np.searchsorted(quarters(column)[0], numbers, side="left"))


def important(profile: Reference, values: Mapping[str, Any], score: Any) -> tuple[str, ...]:
    """Return the features by whose bins the score differs most, at most four, the most important first.

    They explain a thousandth of its variance or more, beyond what bins explain by chance.

    Args:
        values: Column of `profile` -> shape (rows,).
        score: Shape (rows,).
    """
    scores = as_numbers(score)[0]
    known = np.isfinite(scores)
    spread = float(scores[known].var()) if known.any() else 0.0
    if not spread:
        return ()
    explained = {}
    for name, column in values.items():
        if name not in profile.columns:
            continue
        places = places_of(profile.columns[name], column)
        mine = known & (places >= 0)
        counts = np.bincount(places[mine], minlength=MOST_BINS)
        sums = np.bincount(places[mine], scores[mine] - scores[known].mean(), minlength=MOST_BINS)
        by_chance = max(int(np.count_nonzero(counts)) - 1, 0)
        explained[name] = (float((sums**2 / np.maximum(counts, 1)).sum()) / spread - by_chance) / int(known.sum())
    ordered = sorted(explained, key=lambda name: (-explained[name], name))
    return tuple(name for name in ordered if explained[name] >= _LEAST)[:MOST_FEATURES]


def _missing(values: Mapping[str, Any], score: str, rows: int) -> Floats:
    """Return the share of the features that are missing in each row."""
    missing, columns = np.zeros(rows), 0
    for name, column in values.items():
        if name == score or len(column) != rows:
            continue
        columns += 1
        if hasattr(column, "null_count"):
            if column.null_count:
                missing += column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
            elif str(column.type) in ("float", "double"):
                missing += np.isnan(column.to_numpy(zero_copy_only=False))
        elif isinstance(column, np.ndarray) and column.dtype.kind == "f":
            missing += np.isnan(column)
        else:
            missing += np.fromiter(
                (each is None or (isinstance(each, float) and isnan(each)) for each in column), bool, rows
            )
    return missing / max(columns, 1)


def _crossed(inside: Floats, weights: Floats | None) -> Floats:
    """Return X' diag(w) X, symmetric to the last bit."""
    products = np.zeros((inside.shape[1], inside.shape[1]))
    for first in range(0, len(inside), _BLOCK):
        block = inside[first : first + _BLOCK]
        by = block if weights is None else block * weights[first : first + _BLOCK, None]
        products += block.T @ by
    return np.triu(products) + np.triu(products, 1).T
