"""Digests of rows of a warehouse, by which rows that are read again are recognised.

A digest covers the arrival and all columns of the source, so equal rows of one arrival have equal digests; of these as
many are recognised as were ingested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mainspring.data.arrow import is_text
from mainspring.data.flags import arrow_of, numbers

if TYPE_CHECKING:
    import duckdb

ARRIVAL = "_arrival"  # column of a pull with the rows' arrivals
_BYTES = 16  # of the SHA-256
ROW = np.dtype([("digest", f"V{_BYTES}"), ("arrival", "<i8"), ("position", "<u4")])


def digests(con: duckdb.DuckDBPyConnection, rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Return shape (len(rows),) of `ROW`: the digests of rows by some columns and `ARRIVAL`, and their positions."""
    found = np.empty(len(rows), ROW)
    found["arrival"] = numbers(rows[ARRIVAL])
    found["position"] = np.arange(len(rows))
    if not len(rows):
        return found
    named = [ARRIVAL, *sorted(columns)]
    con.register(
        "digested", pa.table([_plain(rows[name]) for name in named], names=[f"c{n}" for n in range(len(named))])
    )
    # The length before each value: no two rows have one text.
    parts = [f"coalesce(length(CAST(c{n} AS VARCHAR)) || ':' || CAST(c{n} AS VARCHAR), '-')" for n in range(len(named))]
    text = f"concat({', '.join(parts)})"
    made = con.sql(f"SELECT unhex(left(sha256({text}), {2 * _BYTES})) AS digest FROM digested").to_arrow_table()
    con.unregister("digested")
    found["digest"] = _voids(made["digest"])
    return found


def _plain(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Return values whose text is the same in every version of every library."""
    kind = column.type
    if pa.types.is_floating(kind):
        bits = [chunk.cast(pa.float64()).view(pa.int64()) for chunk in column.chunks]
        return pa.chunked_array(bits, pa.int64())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64())
    if pa.types.is_date(kind):
        return column.cast(pa.int32())
    return (
        column if is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) else column.cast(pa.string())
    )


def _voids(column: pa.ChunkedArray[Any]) -> np.ndarray:
    fixed = column.combine_chunks().cast(pa.binary(_BYTES))
    found = np.frombuffer(memoryview(fixed.buffers()[1] or b""), f"V{_BYTES}", len(fixed), fixed.offset * _BYTES)
    return np.asarray(found)


class Known:
    """Rows that were ingested before, each of which is recognised once.

    Args:
        con: A session, which gets a temporary table.
        low: Rows that arrived earlier are never met.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, low: int) -> None:
        self._con, self.low = con, low
        self._columns: list[tuple[str, ...]] = []
        self._latest: int | None = None
        self.rows = 0
        con.execute("CREATE OR REPLACE TEMP TABLE known (columns INTEGER, digest BLOB, times BIGINT)")

    @property
    def columns(self) -> list[str]:
        """All columns of which digests were made."""
        return sorted({name for columns in self._columns for name in columns})

    def add(self, columns: tuple[str, ...], kept: bytes) -> None:
        """Add digests that were made of these columns."""
        rows = np.frombuffer(kept, ROW)
        rows = rows[rows["arrival"] >= self.low]
        if not len(rows):
            return
        if columns not in self._columns:
            self._columns.append(columns)
        self._latest = max(int(rows["arrival"].max()), self._latest or self.low)
        self.rows += len(rows)
        self._register("added", rows)
        number = self._columns.index(columns)
        self._con.execute(f"INSERT INTO known SELECT {number}, digest, count(*) FROM added GROUP BY digest")
        self._con.unregister("added")

    def settle(self) -> None:
        """Add up equal rows of several batches, after the last `add`."""
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE known AS SELECT columns, digest, sum(times)::BIGINT AS times FROM known "
            "GROUP BY ALL"
        )

    def new(self, rows: pa.Table) -> pa.Table:
        """Return the rows that are not known. Each known row is met once."""
        if self._latest is None or not len(rows) or int(numbers(rows[ARRIVAL])[0]) > self._latest:
            return rows  # rows come in the order of their arrival
        left = np.arange(len(rows))
        for number, columns in enumerate(self._columns):
            met = self._met(number, digests(self._con, rows.take(arrow_of(left)), columns))
            left = np.delete(left, met)
        return rows.take(arrow_of(left))

    def _met(self, number: int, rows: np.ndarray) -> np.ndarray:
        self._register("arrived", rows)
        self._con.execute(f"""CREATE OR REPLACE TEMP TABLE met AS SELECT position, digest FROM (
            SELECT position, digest, times, row_number() OVER (PARTITION BY digest ORDER BY position) AS nth
            FROM arrived JOIN known USING (digest) WHERE columns = {number}) WHERE nth <= times""")
        self._con.unregister("arrived")
        used = "(SELECT digest AS one, count(*) AS used FROM met GROUP BY digest)"
        self._con.execute(
            f"UPDATE known SET times = times - used FROM {used} WHERE digest = one AND columns = {number}"
        )
        return numbers(
            self._con.sql("SELECT position FROM met ORDER BY position").to_arrow_table()["position"], pa.int64()
        )

    def _register(self, name: str, rows: np.ndarray) -> None:
        digest = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(_BYTES), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows["digest"]).tobytes())]
        )
        positions = arrow_of(rows["position"].astype(np.int64))
        self._con.register(name, pa.table({"digest": digest, "position": positions}))
