"""A sweep over the rows of entities with many rows: each row enters and leaves its windows once, for all observations.

A row is in the windows of one span of instants. So the windows of an entity, in the order of their instants, are one
count of values, updated by the rows that entered and left since the previous window. DuckDB returns entries, exits and
observations in that order; it sorts them and spills if needed. Memory contains the counts of one entity. So the cost of
a read is the sum of its rows and observations, not their product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.features.state.sketches import BLOCK, KEPT, most_frequent_places

Ints = npt.NDArray[np.int64]

_BATCH_ROWS = 122_880  # DuckDB's row group
_FEW = 16  # a window is sparse if it has less than one in this many of an entity's values


class Counts:
    """Counts of each value of one entity in a window. A value is identified by its rank among the entity's values.

    Sums of blocks of values complement the counts, so that an answer about a short window need not scan each value of a
    long history.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((4, BLOCK), np.int64)
        self._present = np.zeros((4, BLOCK), np.bool_)  # values that occur, which is searched much faster
        self._sums = np.zeros(4, np.int64)
        self._kinds = np.zeros(4, np.int64)
        self._used = 0

    @property
    def counts(self) -> Ints:
        """Counts, shape (blocks, BLOCK), with zeros after the last value."""
        return self._counts[: self._used]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Whether each value occurs, shape (blocks, BLOCK)."""
        return self._present[: self._used]

    @property
    def sums(self) -> Ints:
        """Total count of the values of a block, shape (blocks,)."""
        return self._sums[: self._used]

    @property
    def kinds(self) -> Ints:
        """Number of distinct values of a block that are present, shape (blocks,)."""
        return self._kinds[: self._used]

    def clear(self) -> None:
        for each in (self.counts, self.present, self.sums, self.kinds):
            each.fill(0)
        self._used = 0

    def add(self, places: Ints, changes: Ints) -> None:
        self._used = max(self._used, int(places.max()) // BLOCK + 1)
        if self._used > len(self._sums):
            missing = max(self._used, 2 * len(self._sums)) - len(self._sums)
            self._counts = np.concatenate((self._counts, np.zeros((missing, BLOCK), np.int64)))
            self._present = np.concatenate((self._present, np.zeros((missing, BLOCK), np.bool_)))
            self._sums = np.concatenate((self._sums, np.zeros(missing, np.int64)))
            self._kinds = np.concatenate((self._kinds, np.zeros(missing, np.int64)))
        np.add.at(self._counts.reshape(-1), places, changes)
        np.add.at(self._sums, places // BLOCK, changes)
        distinct = np.unique(places)
        present = self._counts.reshape(-1)[distinct] > 0
        change = present.view(np.int8) - self._present.reshape(-1)[distinct].view(np.int8)
        np.add.at(self._kinds, distinct // BLOCK, change)
        self._present.reshape(-1)[distinct] = present


# Computes an answer from a window's counts: places of values (-1 for none) or numbers, always of the same length.
Answer = Callable[[Counts], list[int]]


def ranks(millionths: Sequence[int]) -> Answer:
    """Return the answer function for the quantiles of a window, as in `state.sketches.quantile`."""

    def answer(window: Counts) -> list[int]:
        upto = np.cumsum(window.sums)
        n = int(upto[-1]) if len(upto) else 0
        if not n:
            return [-1] * len(millionths)
        places = []
        for share in millionths:
            rank = max(1, -(-n * share // 1_000_000))
            block = int(np.searchsorted(upto, rank))
            before = int(upto[block - 1]) if block else 0
            places.append(block * BLOCK + int(np.searchsorted(np.cumsum(window.counts[block]), rank - before)))
        return places

    return answer


def most_frequent(most: int) -> Answer:
    """Return the answer function for the `most` most frequent values; of equal counts the smaller value comes first."""

    def answer(window: Counts) -> list[int]:
        blocks = np.flatnonzero(window.kinds)
        if window.kinds.sum() * _FEW < len(blocks) * BLOCK:
            indices = np.flatnonzero(window.present[blocks])
            places = blocks[indices // BLOCK] * BLOCK + indices % BLOCK
            places = places[np.argsort(-window.counts.reshape(-1)[places], kind="stable")[:most]]
        else:
            dense = len(blocks) == len(window.kinds)
            ranked = most_frequent_places((window.counts if dense else window.counts[blocks]).reshape(-1), most)
            places = blocks[ranked // BLOCK] * BLOCK + ranked % BLOCK
        return [*places.tolist(), *[-1] * (most - len(places))]

    return answer


def smallest(window: Counts) -> list[int]:
    """Return the number of distinct values, and the largest of the `KEPT` smallest if there are that many."""
    upto = np.cumsum(window.kinds)
    n = int(upto[-1]) if len(upto) else 0
    if n < KEPT:
        return [n, -1]
    block = int(np.searchsorted(upto, KEPT))
    before = int(upto[block - 1]) if block else 0
    return [n, block * BLOCK + int(np.flatnonzero(window.present[block])[KEPT - before - 1])]


@dataclass(frozen=True)
class Sweep:
    """A step of a read that creates a table with the answer for each observation: _i, kid, c0, c1, ...

    Attributes:
        query: SELECT kid, place, n, _i by entity in the order of instants: the count of the value at `place` changes by
            `n`, or `_i` is an observation (-1 for a row).
        width: Length of an answer.
    """

    table: str
    query: str
    answer: Answer
    width: int

    def __call__(self, con: Any) -> None:
        try:
            found = self._answers(con)
        except duckdb.OutOfMemoryException:
            con.execute("SET threads = 1")
            found = self._answers(con)
        con.register("swept", found)
        con.execute(f"CREATE TEMP TABLE {self.table} AS FROM swept")
        con.unregister("swept")

    def _answers(self, con: Any) -> pa.Table:
        names = ["_i", "kid", *(f"c{n}" for n in range(self.width))]
        schema = pa.schema([(name, pa.int64()) for name in names])
        reader = con.sql(self.query).to_arrow_reader(_BATCH_ROWS)
        batches = (tuple(column.to_numpy() for column in batch.columns) for batch in reader)
        return pa.Table.from_batches(
            [
                pa.record_batch([pa.array(column) for column in columns], schema=schema)
                for columns in swept(batches, self.answer)
            ],
            schema,
        )


def swept(batches: Iterable[Sequence[Ints]], answer: Answer) -> Iterator[Sequence[Ints]]:
    """Yield for each batch of kid, place, n and _i the columns of the answers for its observations: _i, kid, ..."""
    window, entity, current = Counts(), None, None
    for kids, places, changes, numbers in batches:
        asks = np.flatnonzero(numbers >= 0)
        edges = [0, *(np.flatnonzero(np.diff(kids)) + 1).tolist(), len(kids)]
        answers: list[list[int]] = []
        for (start, end), (first, last) in zip(
            pairwise(edges), pairwise(np.searchsorted(asks, edges).tolist()), strict=True
        ):
            if kids[start] != entity:
                window.clear()
                entity, current = kids[start], None
            added = start
            for ask in asks[first:last].tolist():
                if ask > added:
                    window.add(places[added:ask], changes[added:ask])
                    current = None
                added = ask + 1
                current = current or answer(window)
                answers.append(current)
            if end > added:
                window.add(places[added:end], changes[added:end])
                current = None
        if answers:
            yield numbers[asks], kids[asks], *np.array(answers, np.int64).T.copy()
