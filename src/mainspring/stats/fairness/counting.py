"""Counts of rows by group, block of time, decision, label and score: they add up, and have every rate in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats.jackknife import Floats, Ints
from mainspring.stats.quality_sums import BINS, bins_of
from mainspring.stats.segmenting import text_of

SELECTION, TPR, FPR, FNR = "selection rate", "true positive rate", "false positive rate", "false negative rate"
PRECISION, ERROR, BASE = "precision", "error rate", "positive rate"
BIAS, CALIBRATION, ABSOLUTE = "bias", "calibration error", "mean absolute error"
MEASURES: Mapping[str, tuple[str, ...]] = {
    "binary": (SELECTION, TPR, FPR, FNR, PRECISION, ERROR, BASE, BIAS, CALIBRATION),
    "multiclass": (ERROR, BIAS, CALIBRATION),  # of the most likely class and the confidence in it
    "regression": (ABSOLUTE, BIAS),
}

Cells = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
# rate -> its numerator and its denominator, of counts of shape (..., decision, label)
_RATES: Mapping[str, tuple[Cells, Cells]] = {
    SELECTION: (lambda n: n[..., 1, :].sum(-1), lambda n: n.sum((-2, -1))),
    TPR: (lambda n: n[..., 1, 1], lambda n: n[..., :, 1].sum(-1)),
    FPR: (lambda n: n[..., 1, 0], lambda n: n[..., :, 0].sum(-1)),
    FNR: (lambda n: n[..., 0, 1], lambda n: n[..., :, 1].sum(-1)),
    PRECISION: (lambda n: n[..., 1, 1], lambda n: n[..., 1, :].sum(-1)),
    ERROR: (lambda n: n[..., 1, 0] + n[..., 0, 1], lambda n: n.sum((-2, -1))),
    BASE: (lambda n: n[..., :, 1].sum(-1), lambda n: n.sum((-2, -1))),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure of several groups: the sums of its values by block of time, and the numbers of rows.

    Attributes:
        sums: Shape (groups, blocks).
        rows: Shape (groups, blocks): the rows that count.
        spread: Shape (groups,): variance of the mean if rows were independent.
        counts: Whether the values are 0 and 1.
    """

    sums: Floats
    rows: Floats
    spread: Floats
    counts: bool = True

    def of(self, groups: npt.NDArray[Any]) -> Measured:
        """Return the measure of some of the groups, by number or by a mask."""
        return Measured(self.sums[groups], self.rows[groups], self.spread[groups], self.counts)


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """Counts of rows by group, block of time, decision, label and bin of the score. They add up: `a + b`.

    Attributes:
        columns: Names of the columns whose values make the groups.
        groups: The values of each group, as texts.
        blocks: The start of each block of time, ascending; any number.
        cells: Shape (groups, blocks, 2, 2): rows by decision and label. Of several classes the decision is whether the
            most likely class is wrong, and no row has a label; of a regression all rows are in the first cell.
        bins: Shape (groups, blocks, BINS, 3): rows, labels and sums of scores by bin of the score (`quality_sums`); of
            a regression nothing.
        errors: Shape (groups, blocks, 3): sums of score - label, of its absolute value, and of its square.
    """

    columns: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    blocks: tuple[int, ...]
    cells: Ints
    bins: Floats
    errors: Floats

    def __add__(self, other: GroupCounts) -> GroupCounts:
        if self.columns != other.columns:
            raise ValueError(f"Counts by {self.columns} and by {other.columns} cannot be added.")
        groups = tuple(dict.fromkeys((*self.groups, *other.groups)))
        blocks = tuple(sorted({*self.blocks, *other.blocks}))
        shape = len(groups), len(blocks)
        place = {group: number for number, group in enumerate(groups)}
        when = {block: number for number, block in enumerate(blocks)}

        def spread_out(counts: GroupCounts) -> GroupCounts:
            rows = np.array([place[group] for group in counts.groups], np.int64)
            columns = np.array([when[block] for block in counts.blocks], np.int64)

            def larger(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
                total = np.zeros((*shape, *part.shape[2:]), part.dtype)
                total[np.ix_(rows, columns)] = part
                return total

            return counts.each(larger)

        one, two = spread_out(self), spread_out(other)
        return GroupCounts(
            self.columns,
            groups,
            blocks,
            one.cells + two.cells,
            one.bins + two.bins,
            one.errors + two.errors,
        )

    def by(self, columns: Sequence[str]) -> GroupCounts:
        """Return the counts by some of the columns, over all values of the others.

        Raises:
            ValueError: One is not among the columns.
        """
        places = [self.columns.index(name) for name in columns]
        kept = [tuple(group[place] for place in places) for group in self.groups]
        groups = tuple(dict.fromkeys(kept))
        number = {group: place for place, group in enumerate(groups)}
        to = np.array([number[group] for group in kept], np.int64)

        def summed(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
            total = np.zeros((len(groups), *part.shape[1:]), part.dtype)
            np.add.at(total, to, part)
            return total

        return replace(self.each(summed), columns=tuple(columns), groups=groups)

    def each(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> GroupCounts:
        """Return the counts with each array changed."""
        return replace(
            self,
            cells=change(self.cells),
            bins=change(self.bins),
            errors=change(self.errors),
        )

    def within(self, start: int, end: int) -> GroupCounts:
        """Return the counts of the blocks with `start <= block < end`."""
        kept = np.array([start <= block < end for block in self.blocks], np.bool_)
        blocks = tuple(block for block in self.blocks if start <= block < end)
        return replace(self.each(lambda part: part[:, kept]), blocks=blocks)

    def measured(self, measure: str) -> Measured:
        """Return one of `MEASURES`, but `CALIBRATION`, which is no mean over rows."""
        if measure in _RATES:
            top, bottom = _RATES[measure]
            sums, rows = top(self.cells).astype(np.float64), bottom(self.cells).astype(np.float64)
            return Measured(sums, rows, _spread(sums, rows, sums))
        rows = self.cells.sum(axis=(-2, -1)).astype(np.float64)
        sums = self.errors[..., 1 if measure == ABSOLUTE else 0]
        return Measured(sums, rows, _spread(sums, rows, self.errors[..., 2]), counts=False)

    def calibration(self) -> Floats:
        """Return each group's calibration error of all blocks, and without each block; shape (groups, 1 + blocks).

        It is the mean distance of score and label over the bins of the score, weighted by rows.
        """
        gaps, rows = self.bins[..., 2] - self.bins[..., 1], self.bins[..., 0].sum(axis=-1)
        gaps = np.concatenate([gaps.sum(axis=1, keepdims=True), gaps.sum(axis=1, keepdims=True) - gaps], axis=1)
        rows = np.concatenate([rows.sum(axis=1, keepdims=True), rows.sum(axis=1, keepdims=True) - rows], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.abs(gaps).sum(axis=-1) / rows)


def count(
    columns: Sequence[str],
    groups: Sequence[tuple[str, ...]],
    place: Ints,
    block: Ints,
    *,
    truth: npt.NDArray[Any],
    score: Floats | None = None,
    decided: npt.NDArray[np.bool_] | None = None,
    blocks: Sequence[int] | None = None,
) -> GroupCounts:
    """Return the counts of rows.

    Args:
        groups: The values of each group.
        place: Shape (rows,): the number of each row's group.
        block: Shape (rows,): the number of each row's block of time.
        truth: Shape (rows,): Booleans; of a regression numbers.
        score: Shape (rows,): probabilities or, of a regression, predictions; `None` where only decisions are known.
        decided: Shape (rows,): whether the row was selected; `None` of a regression.
        blocks: The start of each block, by default its number.
    """
    starts = tuple(range(int(block.max(initial=-1)) + 1)) if blocks is None else tuple(blocks)
    shape = len(groups), len(starts)
    size = shape[0] * shape[1]
    where = place * shape[1] + block
    label = truth.astype(np.float64)
    cell = where * 4
    if decided is not None:
        cell = cell + decided.astype(np.int64) * 2 + truth.astype(np.int64)
    bins, errors = np.zeros((*shape, BINS, 3)), np.zeros((*shape, 3))
    if score is not None:
        error = score - label
        parts = (error, np.abs(error), error**2)
        errors = np.stack([np.bincount(where, part, size).reshape(shape) for part in parts], axis=-1)
    if score is not None and decided is not None:
        at = where * BINS + bins_of(score)
        parts = (np.ones(at.size), label, score)
        bins = np.stack([np.bincount(at, part, size * BINS).reshape(*shape, BINS) for part in parts], axis=-1)
    cells = np.bincount(cell, minlength=size * 4).astype(np.int64).reshape(*shape, 2, 2)
    return GroupCounts(tuple(columns), tuple(groups), starts, cells, bins, errors)


def group_rows(columns: Sequence[Sequence[Any]]) -> tuple[tuple[tuple[str, ...], ...], Ints]:
    """Return the groups that the values of columns make, and the number of each row's; null is a value of its own."""
    known: dict[tuple[Any, ...], int] = {}
    texts: dict[tuple[str, ...], int] = {}
    place = np.empty(len(columns[0]) if columns else 0, np.int64)
    for row, values in enumerate(zip(*columns, strict=True)):
        typed = tuple((type(value), value) for value in values)
        number = known.get(typed)
        if number is None:
            number = known[typed] = texts.setdefault(tuple(text_of(value) for value in values), len(texts))
        place[row] = number
    return tuple(texts), place


def _spread(sums: Floats, rows: Floats, squares: Floats) -> Floats:
    size = rows.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.maximum(squares.sum(axis=1) / size - (sums.sum(axis=1) / size) ** 2, 0.0) / size)
