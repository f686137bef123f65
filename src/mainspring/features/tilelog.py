"""The log of a view's tiles in the lake: what of the source is in it, and what is still to be written.

Append-only. What was written of loads that have changed since, or are gone, is left out by whoever reads: a piece of
the log counts only while the source holds exactly the rows that it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.locks import Locks
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.data.ports import LakeTables
from mainspring.features.layout import Layout
from mainspring.features.loads import Content, Loads, seqs_of
from mainspring.features.tilerows import column_types, tile_rows, tiles_table

ROWS_A_WRITE = 4_000_000
_BATCH_ROWS = 100_000
_WAIT_S = 600.0


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Some tiles of one write: those of the loads numbered `first` to `last`, as they were with `content`."""

    append: str
    first: int
    last: int
    content: Content


class TileLog:
    """The tiles of one view.

    Args:
        con: A DuckDB connection, in which `landing` is what `features.landed.open_landing` makes.
        lake: Where the log is kept.
        locks: One writer of a log at a time.
        landing: The name of that view.
    """

    def __init__(self, con: Any, lake: LakeTables, locks: Locks, layout: Layout, landing: str) -> None:
        self._con = con
        self._lake = lake
        self._locks = locks
        self._layout = layout
        self._landing = landing
        self._version: int | None = None
        self._base = ""
        self._pieces: list[Piece] = []
        self._scan: TableScan | None = None
        self.table = tiles_table(layout.slot)
        self.types: dict[str, str] = {}

    @property
    def scan(self) -> TableScan | None:
        """How to read the version of the log of which pieces were last returned; `None` where there is none."""
        return self._scan

    def write(self, loads: Loads, wanted: Any) -> tuple[list[Piece], Any]:
        """Write the tiles of the loads that the log lacks. Exactly once, whoever dies or writes at the same time.

        Args:
            loads: Of the version of the source that `landing` reads.
            wanted: Which of them are to be in the log: a mask.

        Returns:
            The pieces of the log that hold now, no load in two of them, and which loads (a mask) are in none.
        """
        if not self.types:
            self.types = column_types(self._con, self._layout, self._landing)
        pieces, missing = self._choose(loads)
        if (missing & wanted).any():
            with self._locks.hold(self.table, wait_s=_WAIT_S):
                _, missing = self._choose(loads)  # somebody else may have been faster
                for places in _batches(np.flatnonzero(missing & wanted).tolist(), loads):
                    self._append([int(loads.numbers[place]) for place in places], loads)
            pieces, missing = self._choose(loads)
        return pieces, missing

    def _choose(self, loads: Loads) -> tuple[list[Piece], Any]:
        self._open()
        return choose(self._pieces, loads)

    def _append(self, numbers: Sequence[int], loads: Loads) -> None:
        contents = [loads.content(number, number) for number in numbers]
        name = digest([self._base, *zip(numbers, contents, strict=True)])
        self._con.register(
            "tiled",
            pa.table(
                {
                    "load": pa.array(numbers, pa.int64()),
                    "rows": pa.array([content.rows for content in contents], pa.int64()),
                    "digest": pa.array([f"{content.digest:016x}" for content in contents], pa.string()),
                }
            ),
        )
        where = f"{seqs_of(numbers[0], numbers[-1])} AND seq >> 20 IN (SELECT load FROM tiled)"
        nothing = ", ".join(f"NULL::{kind} AS {column}" for column, kind in self.types.items())
        query = (
            f"SELECT '{name}' AS _append, * FROM ("
            f"SELECT load AS _load, load AS _upto, rows AS _rows, digest AS _digest, 0::BIGINT AS _width, "
            f"0::BIGINT AS _start, 0::BIGINT AS _enters, {nothing} FROM tiled UNION ALL "
            f"{tile_rows(self._layout, self._landing, where, self.types)}) ORDER BY _width, _start"
        )
        try:
            self._store(query, self._lake.append, f"tiles.{name}")
        finally:
            self._con.unregister("tiled")

    def _store(self, query: str, write: Callable[..., int | None], key: str) -> None:
        with self._con.sql(query).to_arrow_reader(_BATCH_ROWS) as reader:
            write(self.table, iter(reader), reader.schema, key=key)

    def _open(self) -> None:
        """Read which pieces the newest version of the log has."""
        version = self._lake.version(self.table)
        if version == self._version:
            return
        self._scan = self._lake.scan(self.table)
        duck.register(self._con, "tile_log", self._scan)
        rows = self._con.execute(
            "SELECT _append, _load, _upto, _rows, _digest FROM tile_log WHERE _width = 0"
        ).fetchall()
        self._con.execute("DROP VIEW IF EXISTS tile_log")
        self._pieces = [
            Piece(append, first, last, Content(count, int(text, 16)))
            for append, first, last, count, text in rows
            if first >= 0
        ]
        self._base = max((append for append, first, *_ in rows if first < 0), default="")
        self._version = self._scan.version


def choose(pieces: Sequence[Piece], loads: Loads) -> tuple[list[Piece], Any]:
    """Return the pieces that hold for `loads`, no load in two of them, and which loads (a mask) are in none."""
    missing = np.ones(len(loads), np.bool_)
    chosen = []
    for piece in sorted(pieces, key=lambda piece: (piece.first - piece.last, piece)):
        where = loads.places(piece.first, piece.last)
        if missing[where].all() and piece.content.rows and loads.content(piece.first, piece.last) == piece.content:
            missing[where] = False
            chosen.append(piece)
    return chosen, missing


def digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:20]


def _batches(places: Sequence[int], loads: Loads) -> Iterator[list[int]]:
    """Cut loads into what is written at once."""
    batch: list[int] = []
    rows = 0
    for place in places:
        batch.append(place)
        number = int(loads.numbers[place])
        rows += loads.content(number, number).rows
        if rows >= ROWS_A_WRITE:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch
