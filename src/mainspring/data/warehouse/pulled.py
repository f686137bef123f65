"""Progress of a source's table in a warehouse's: up to which arrival, and which rows of those that are read again.

The version of the source's table that has the last row of a batch has the position after it too, as a mark. So the
table says where the next pull goes on, also after a kill or a restore.

A pull begins before the position, by the lateness, and at least at the position itself: rows of one arrival may come in
several transactions. Rows that were ingested are recognised by their digests, which are recorded before a batch is
ingested. Of a batch that is in the table only in part, since a process was killed, the rows' places in the table say
which of them are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mainspring.core.errors import Conflict
from mainspring.core.expr.sql import quote_text
from mainspring.data import duck
from mainspring.data.flags import numbers
from mainspring.data.landing import LOAD_ROWS
from mainspring.data.model import BATCH, QUARANTINE_SUFFIX, SEQUENCE
from mainspring.data.ports import LakeTables
from mainspring.data.warehouse.arrivals import Arrivals
from mainspring.data.warehouse.pull_store import ALL, PullStore
from mainspring.data.warehouse.row_digests import ROW, Known
from mainspring.data.write_keys import numbered

if TYPE_CHECKING:
    import duckdb

POSITION, NUMBER = "pull/position", "pull/number"  # marks of the source's table


@dataclass(frozen=True, slots=True)
class Start:
    """Where a pull begins.

    Attributes:
        mark: Number of the last batch that is in the table; None without one.
        number: Number of the last batch that was recorded.
        position: The largest arrival that was read; None before the first pull.
        low: The least arrival that is read; None for all.
        floor: The least arrival that any later pull reads, as this one was told; `ALL` if it was not.
    """

    mark: int | None
    number: int
    position: int | None
    low: int | None
    floor: int = ALL


def batch_key(source: str, number: int) -> str:
    """Return the id of a batch, by which its rows are found in the table."""
    return numbered(f"pull/{source}", number)


def batch_number(source: str, key: str) -> int | None:
    """Return the number of a batch that has this id; None if it is not one of a pull."""
    before = batch_key(source, 1).removesuffix("1")
    number = key.removeprefix(before)
    return int(number) if key.startswith(before) and number.isdecimal() else None


def as_mark(position: int) -> int:
    """Return a position as a mark, which is never negative."""
    return 2 * position if position >= 0 else -2 * position - 1


def as_position(mark: int) -> int:
    return -(mark + 1) // 2 if mark % 2 else mark // 2


def find_start(source: str, arrivals: Arrivals, lake: LakeTables, store: PullStore, since: int | None) -> Start:
    """Return where the next pull begins.

    Args:
        since: The least arrival that is read; by default the position says it.

    Raises:
        Conflict: The table was filled in another order, or what was read before is no longer known.
    """
    marks, last, shown = lake.marks(source, [POSITION, NUMBER]), store.last(source), arrivals.shown
    mark, position = marks.get(NUMBER), as_position(marks[POSITION]) if POSITION in marks else None
    number = max(0 if last is None else last.number, mark or 0)
    if since is not None:
        return Start(mark, number, None, since, since)
    if last is not None and (last.table, last.arrival, last.instants) != arrivals.order:
        raise Conflict(
            f"{source} was ingested from {last.table} in the order of {last.arrival}; now it is {arrivals.table} in "
            f"the order of {arrivals.column}.",
            fix="say with --since from which arrival on to read.",
        )
    if position is None or mark is None:
        return Start(mark, number, None, None)
    if last is None or last.number < mark:
        raise Conflict(
            f"Table {source!r} has batch {mark} of a warehouse, which the catalog does not know.",
            fix=f"use the catalog that was used then, or go on with --since {shown(position + 1)}.",
        )
    low = max(position - arrivals.lateness, store.known_from(source, mark), ALL)
    if low > position:
        raise Conflict(
            f"Table {source!r} was restored, and so much was read after that version that it is no longer known which "
            f"rows up to {shown(position)} it has.",
            fix=f"go on with --since {shown(position + 1)}; rows that came late before are not read.",
        )
    return Start(mark, number, position, low)


def settle(con: duckdb.DuckDBPyConnection, source: str, lake: LakeTables, store: PullStore, mark: int | None) -> None:
    """Keep, of batches that the table's marks lack, the digests of those rows alone that are there.

    Such a batch was ingested in part, or a restore removed it.
    """
    for batch in store.batches(source, mark or 0):
        there = _places(con, lake, source, batch_key(source, batch.number))
        aside = _places(con, lake, source + QUARANTINE_SUFFIX, batch_key(source, batch.number))
        kept = np.frombuffer(store.digests_of(source, batch.number), ROW)
        left = kept[np.isin(kept["position"], np.append(there, aside))]
        whole = bool(np.isin(there, kept["position"]).all())
        known_from = ALL if whole else batch.known_from
        rows = len(there) + len(aside)
        if (len(left), known_from, rows) != (len(kept), batch.known_from, batch.rows):  # else it was settled before
            store.keep(source, batch.number, left.tobytes(), known_from, rows)


def _places(con: duckdb.DuckDBPyConnection, lake: LakeTables, table: str, key: str) -> np.ndarray:
    """Return the places in a batch of those rows that are in a table."""
    load = f"{key}.0"
    if lake.version(table) is None or not lake.has(table, f"{load}.0"):
        return np.empty(0, np.int64)
    scan = lake.scan(table)
    with duck.duck_errors(table, scan):
        duck.register(con, "pinned", scan)
        rows = con.sql(f"SELECT {SEQUENCE} FROM pinned WHERE {BATCH} = {quote_text(load)}").to_arrow_table()
    return numbers(rows[SEQUENCE]) % LOAD_ROWS


def rows_before(source: str, store: PullStore, start: Start) -> int | None:
    """Return how many rows that arrived before the next pull's least arrival were ingested; None if it is not known,
    because a pull was told where to begin.
    """
    if start.mark is None or start.low is None:
        return None
    found, ends = 0, set[int | None]([None])
    for batch in store.batches(source):
        if batch.number <= start.mark:
            if batch.since not in ends:
                return None
            ends.add(batch.until)
            found += batch.rows
    for batch, kept in store.digests(source, start.low):
        if batch.number <= start.mark:
            found -= int((np.frombuffer(kept, ROW)["arrival"] >= start.low).sum())
    return found


def known_rows(con: duckdb.DuckDBPyConnection, source: str, store: PullStore, low: int | None) -> Known:
    """Return the ingested rows that arrived from `low` on."""
    known = Known(con, ALL if low is None else low)
    for batch, kept in store.digests(source, known.low):
        known.add(batch.columns, kept)
    known.settle()
    return known
