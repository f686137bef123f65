"""Content of a source's table, load by load, to detect changes.

A load is what ingestion judges together: `_seq >> 20` is its number. It lands in several versions of the table, may be
cut short and completed later. Of each load we know how many rows it has and a digest of what a view uses of them, so
that whatever was made from it can tell whether it still holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LOAD_BITS = 20  # of `_seq`: see data.landing.LOAD_ROWS

Ints = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Content:
    """Number of rows, and the exclusive or of their digests: the same in any order and any partition."""

    rows: int
    digest: int

    def __xor__(self, other: Content) -> Content:
        return Content(self.rows + other.rows, self.digest ^ other.digest)


NOTHING = Content(0, 0)


class Loads:
    """The loads of one version of a table, in order of their numbers.

    Attributes:
        numbers: Which loads there are.
        newest: The largest `_seq` of each.
        first: When the first row of each becomes visible, UTC epoch microseconds.
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

    def places(self, first: int, last: int) -> slice:
        """Return where the loads numbered `first` to `last` are."""
        start, end = np.searchsorted(self.numbers, [first, last + 1])
        return slice(int(start), int(end))

    def rows(self, place: int) -> int:
        """Return how many rows the load at a place has."""
        return int(self._rows[place + 1] - self._rows[place])

    def content(self, first: int, last: int) -> Content:
        """Return the combined content of the loads numbered `first` to `last`."""
        where = self.places(first, last)
        rows = self._rows[where.stop] - self._rows[where.start]
        return Content(int(rows), int(self._digests[where.stop] ^ self._digests[where.start]))


def read_loads(con: Any, table: str, digest: str = "digest") -> Loads:
    """Return the loads in a table that is made of `loads_sql`, in which a load may be in several rows.

    Args:
        digest: By which of the digests they are known.
    """
    found = con.execute(
        f"SELECT load, sum(rows)::BIGINT AS rows, bit_xor({digest}) AS digest, max(newest) AS newest, "
        f"min(first) AS first FROM {table} GROUP BY load ORDER BY load"
    ).fetchnumpy()
    columns = [np.asarray(found[name]) for name in ("load", "rows", "digest", "newest", "first")]
    return Loads(*columns)


def loads_sql(landing: str, where: str = "TRUE") -> str:
    """SELECT the loads of the rows in `landing` (columns seq, v, digest, tiled)."""
    return (
        f"SELECT seq >> {LOAD_BITS} AS load, count(*) AS rows, bit_xor(digest) AS digest, bit_xor(tiled) AS tiled, "
        f"max(seq) AS newest, min(v) AS first FROM {landing} WHERE {where} GROUP BY ALL"
    )


def seqs_of(first: int, last: int) -> str:
    """The condition that a row is of the loads numbered `first` to `last`; Parquet's statistics answer it."""
    return f"seq >= {first << LOAD_BITS} AND seq < {(last + 1) << LOAD_BITS}"
