"""Additive summaries of columns over the bins of their training reference.

A `Sketch` holds integers and sums alone, so the sketch of two sets of rows is the sum of their sketches: hours add up
to days, and segments to the whole. A `Ruler` makes sketches; it is compiled once for a reference.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mainspring.stats.cells import VectorCounter
from mainspring.stats.column_counting import COUNTS, WIDTH, NumberCounter, TextCounter
from mainspring.stats.reference import CATEGORICAL, ColumnReference, Reference, Values
from mainspring.stats.summaries import Summary

__all__ = ["COUNTS", "MOMENTS", "MOST_PAIRED", "WIDTH", "Pairs", "Ruler", "Sketch", "beside"]

MOMENTS = 4
MOST_PAIRED = 100  # columns of a joint summary

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCK = 256  # rows


@dataclass(frozen=True, eq=False, slots=True)
class Sketch:
    """Summary of some rows, by column.

    Attributes:
        columns: Names, in the order of the arrays' first axis.
        counts: Shape (columns, len(COUNTS)). Each row is null, NaN (or infinite), of a wrong type, or in a bin.
            `unseen` are texts that training did not have, `below` and `above` numbers outside the reference's range,
            `commonest` values that equal the reference's commonest value; all of these are in a bin as well.
        bins: Shape (columns, WIDTH), the reference's bins.
        sums: Shape (columns, 4), sums of z, z**2, z**3 and z**4, where z is the value clipped to the reference's range,
            minus its `center`, divided by its `scale`; 0 for texts.
    """

    columns: tuple[str, ...]
    counts: Ints
    bins: Ints
    sums: Floats

    def __add__(self, other: Sketch) -> Sketch:
        """Return the sketch of the rows of both.

        Raises:
            ValueError: The columns differ.
        """
        _check_same(self.columns, other.columns)
        return Sketch(self.columns, self.counts + other.counts, self.bins + other.bins, self.sums + other.sums)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sketch)
            and self.columns == other.columns
            and np.array_equal(self.counts, other.counts)
            and np.array_equal(self.bins, other.bins)
            and np.array_equal(self.sums, other.sums)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls, columns: Sequence[str]) -> Self:
        """Return the sketch of no rows."""
        size = len(columns)
        return cls(
            tuple(columns),
            np.zeros((size, len(COUNTS)), np.int64),
            np.zeros((size, WIDTH), np.int64),
            np.zeros((size, MOMENTS)),
        )

    def select(self, columns: Sequence[str]) -> Sketch:
        """Return the sketch of some columns.

        Raises:
            ValueError: A column is not in the sketch.
        """
        places = [self.columns.index(column) for column in columns]
        return Sketch(tuple(columns), self.counts[places], self.bins[places], self.sums[places])

    def count(self, name: str) -> Ints:
        """Return one of `COUNTS` for each column, shape (columns,)."""
        return self.counts[:, COUNTS.index(name)]

    @property
    def present(self) -> Ints:
        """Number of values in bins: rows without nulls, NaN and type errors, shape (columns,)."""
        present: Ints = self.bins.sum(axis=1)
        return present


def beside(first: Sketch, second: Sketch) -> Sketch:
    """Return the columns of both sketches, those of the first before those of the second."""
    parts = zip((first.counts, first.bins, first.sums), (second.counts, second.bins, second.sums), strict=True)
    counts, bins, sums = (np.concatenate(part) for part in parts)
    return Sketch((*first.columns, *second.columns), counts, bins, sums)


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """Joint summary of the columns of some rows.

    Attributes:
        columns: Names, in the order of the matrix.
        rows: Number of rows.
        products: Shape (columns, columns), symmetric: sums over the rows of the products of two columns' bin ranks.
            A rank is in [-1, 1]: the middle of its bin in the training distribution, whose mean rank is 0. A missing
            value has rank 0.
    """

    columns: tuple[str, ...]
    rows: int
    products: Floats

    def __add__(self, other: Pairs) -> Pairs:
        """Return the summary of the rows of both.

        Raises:
            ValueError: The columns differ.
        """
        _check_same(self.columns, other.columns)
        return Pairs(self.columns, self.rows + other.rows, self.products + other.products)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Pairs)
            and (self.columns, self.rows) == (other.columns, other.rows)
            and np.array_equal(self.products, other.products)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls, columns: Sequence[str]) -> Self:
        """Return the summary of no rows."""
        return cls(tuple(columns), 0, np.zeros((len(columns), len(columns))))


class Ruler:
    """Maker of sketches for the columns of a reference.

    Args:
        reference: Of the training data.
        columns: Those to sketch, in the order wanted; those that the reference lacks are left out.
        float32: Columns whose training values were float32, for a reference that does not say so.

    Attributes:
        columns: The columns that are sketched.
        paired: Those of the joint summary: the first `MOST_PAIRED`, since it grows with their square.
    """

    def __init__(
        self, reference: Reference, columns: Sequence[str] | None = None, *, float32: Collection[str] = ()
    ) -> None:
        known = reference.columns
        self.columns = tuple(name for name in (known if columns is None else columns) if name in known)
        self.paired = self.columns[:MOST_PAIRED]
        self._columns = [_counter(known[name], float32=name in float32) for name in self.columns]

    def sketch(self, values: Mapping[str, Values | Any]) -> Sketch:
        """Return the sketch of some rows.

        Args:
            values: Column -> shape (rows,): a NumPy array, a sequence of Python values, or a pyarrow array. A column
                that is missing has no rows. Booleans count as numbers; "" is null unless training had it.
        """
        return self._measured(values, np.zeros((0, 0)), None)[0]

    def measure(self, values: Mapping[str, Values | Any]) -> tuple[Sketch, Pairs]:
        """Return the sketch of some rows and their joint summary.

        Raises:
            ValueError: The columns differ in their number of rows.
        """
        return self.measure_all(values, hidden=self.columns)[:2]

    def measure_all(
        self, values: Mapping[str, Values | Any], *, hidden: Collection[str] = ()
    ) -> tuple[Sketch, Pairs, tuple[Summary | None, ...]]:
        """Return the sketch of some rows, their joint summary, and the summary of each column for display.

        Args:
            hidden: Columns without a summary, such as those that identify a person.

        Raises:
            ValueError: The columns differ in their number of rows.
        """
        lengths = {len(values[name]) for name in self.columns if name in values}
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        rows = lengths.pop() if lengths else 0
        ranks = np.zeros((len(self.paired), rows))
        sketch, found = self._measured(values, ranks, hidden)
        return sketch, Pairs(self.paired, rows, _symmetric(_products(ranks))), found

    def ranks(self) -> Floats:
        """Return the rank of each bin, shape (columns, WIDTH): with a sketch's bins, the sum of a column's ranks."""
        return np.stack([column.ranks for column in self._columns]) if self._columns else np.zeros((0, WIDTH))

    def _measured(
        self, values: Mapping[str, Values | Any], ranks: Floats, hidden: Collection[str] | None
    ) -> tuple[Sketch, tuple[Summary | None, ...]]:
        """Return the sketch and the summaries, fill `ranks`; nothing is summarised if `hidden` is `None`."""
        sketch = Sketch.empty(self.columns)
        found: list[Summary | None] = [None] * len(self.columns)
        for place, (name, column) in enumerate(zip(self.columns, self._columns, strict=True)):
            if name in values:
                mine = ranks[place] if place < len(ranks) else None
                sketch.sums[place], found[place] = column.count(
                    values[name],
                    sketch.counts[place],
                    sketch.bins[place],
                    mine,
                    summarise=hidden is not None and name not in hidden,
                )
        return sketch, tuple(found)


def _counter(reference: ColumnReference, *, float32: bool) -> NumberCounter | TextCounter | VectorCounter:
    if reference.centres is not None:
        return VectorCounter(reference)
    if reference.kind == CATEGORICAL:
        return TextCounter(reference)
    return NumberCounter(reference, float32=reference.float32 or float32)


def _products(ranks: Floats) -> Floats:
    """Return the sums over rows of the products of columns, shape (columns, columns).

    In blocks that BLAS multiplies in this thread: on a busy machine its threads wait for each other, and burn more time
    than all else here.
    """
    products = np.zeros((len(ranks), len(ranks)))
    for first in range(0, ranks.shape[1], _BLOCK):
        block = ranks[:, first : first + _BLOCK]
        products += block @ block.T.copy()
    return products


def _symmetric(products: Floats) -> Floats:
    return np.triu(products) + np.triu(products, 1).T


def _check_same(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    if ours != theirs:
        raise ValueError(f"sketches of different columns: {', '.join(ours)} and {', '.join(theirs)}")
