"""Content of a source's table, load by load, to detect changes.

A load is the unit of ingestion: `_seq >> 20` is its number. It is written in several versions of the table, and may be
interrupted and completed later. For each load we know the number of rows and a digest of the columns that a view uses,
so that data made from it can be checked for validity.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LOAD_BITS = 20  # bits of `_seq`; see data.landing.LOAD_ROWS

Ints = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Content:
    """Number of rows, and the exclusive or of their digests, which is independent of order and partition."""

    rows: int
    digest: int

    def __xor__(self, other: Content) -> Content:
        return Content(self.rows + other.rows, self.digest ^ other.digest)


NOTHING = Content(0, 0)


class Loads:
    """The loads of one version of a table, in order of their numbers.

    Attributes:
        numbers: Numbers of the loads.
        newest: Largest `_seq` of each.
        first: Instant at which the first row of each becomes visible, UTC epoch microseconds.
    """

    def __init__(self, numbers: Ints, rows: Ints, digests: Digests, newest: Ints, first: Ints) -> None:
        self.numbers = numbers
        self.newest = newest
        self.first = first
        self._rows = np.concatenate(([0], np.cumsum(rows))).astype(np.int64)
        self._digests = np.concatenate((np.zeros(1, np.uint64), np.bitwise_xor.accumulate(digests)))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def last(self) -> int:
        """The largest `_seq` of all, -1 for none."""
        return int(self.newest[-1]) if len(self) else -1

    def grown(self, more: Loads) -> Loads:
        """Return these loads with the rows of others, some of which may continue the same loads."""
        if not len(more):
            return self
        at = int(np.searchsorted(self.numbers, more.numbers[0]))
        numbers, places = np.unique(np.concatenate((self.numbers[at:], more.numbers)), return_inverse=True)

        def combined(combine: np.ufunc, start: int, mine: Any, others: Any) -> Any:
            values = np.full(len(numbers), start, mine.dtype)
            combine.at(values, places, np.concatenate((mine, others)))
            return values

        digests = (each[1:] ^ each[:-1] for each in (self._digests[at:], more._digests))
        tail = Loads(
            numbers,
            combined(np.add, 0, np.diff(self._rows[at:]), np.diff(more._rows)),
            combined(np.bitwise_xor, 0, *digests),
            combined(np.maximum, -1, self.newest[at:], more.newest),
            combined(np.minimum, np.iinfo(np.int64).max, self.first[at:], more.first),
        )
        # The earlier loads, of which there may be a million, are only copied.
        whole = copy(self)
        for name in ("numbers", "newest", "first"):
            setattr(whole, name, np.concatenate((getattr(self, name)[:at], getattr(tail, name))))
        whole._rows = np.concatenate((self._rows[:at], self._rows[at] + tail._rows))
        whole._digests = np.concatenate((self._digests[:at], self._digests[at] ^ tail._digests))
        return whole

    def places(self, first: int, last: int) -> slice:
        """Return the slice of the loads numbered `first` to `last`."""
        start, end = np.searchsorted(self.numbers, [first, last + 1])
        return slice(int(start), int(end))

    def rows(self, place: int) -> int:
        """Return the number of rows of the load at an index."""
        return int(self._rows[place + 1] - self._rows[place])

    def content(self, first: int, last: int) -> Content:
        """Return the combined content of the loads numbered `first` to `last`."""
        where = self.places(first, last)
        rows = self._rows[where.stop] - self._rows[where.start]
        return Content(int(rows), int(self._digests[where.stop] ^ self._digests[where.start]))


def read_loads(con: Any, landing: str) -> tuple[Loads, Loads]:
    """Return the loads of the rows in `landing` (columns seq, v, digest, tiled), identified by each of the digests."""
    query = (
        f"SELECT seq >> {LOAD_BITS} AS load, count(*) AS rows, bit_xor(digest) AS digest, bit_xor(tiled) AS tiled, "
        f"max(seq) AS newest, min(v) AS first FROM {landing} GROUP BY ALL ORDER BY load"
    )
    found = {name: np.asarray(column) for name, column in con.execute(query).fetchnumpy().items()}
    by, tiled = (
        Loads(found["load"], found["rows"], found[digest], found["newest"], found["first"])
        for digest in ("digest", "tiled")
    )
    return by, tiled


def seqs_of(first: int, last: int) -> str:
    """Condition that a row belongs to the loads numbered `first` to `last`, which Parquet's statistics can evaluate."""
    return f"seq >= {first << LOAD_BITS} AND seq < {(last + 1) << LOAD_BITS}"
