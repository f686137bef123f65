"""The log of a view's tiles in the lake: the loads of the source in it, and those still to write.

The log is append-only. Readers ignore the tiles of loads that have changed since or no longer exist: a piece of the log
is valid only while the source contains exactly the rows that it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.core.locks import Locks
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.features.layout import Layout
from mainspring.features.tilelog.lakes import TileTables
from mainspring.features.tilelog.loads import LOAD_BITS, Content, Loads, seqs_of
from mainspring.features.tilelog.rows import column_types, merged_rows, tile_rows, tiles_table

Mask = npt.NDArray[np.bool_]  # shape (loads,)

ROWS_A_WRITE = 1 << 20
ROWS_A_PIECE = 64_000_000
MANY_PIECES = 128
_NO_LOAD = -1
_BATCH_ROWS = 100_000
_WAIT_S = 600.0


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Tiles of one write: those of the loads numbered `first` to `last`, whose content was `content`."""

    append: str
    first: int
    last: int
    content: Content


@dataclass(frozen=True, slots=True)
class Span:
    """The loads numbered `first` to `last`, with their `content`."""

    first: int
    last: int
    content: Content

    @staticmethod
    def of(places: Sequence[int], loads: Loads) -> Span:
        first, last = int(loads.numbers[places[0]]), int(loads.numbers[places[-1]])
        return Span(first, last, loads.content(first, last))


class TileLog:
    """The tiles of one view.

    Args:
        con: A DuckDB connection with the view `landing` of `features.tilelog.landed.open_landing`.
        lake: Lake that stores the log.
        locks: Locks that allow one writer of a log at a time.
        landing: Name of that view.
        open_landing: Creates the view, if it is not there.
    """

    def __init__(
        self,
        con: Any,
        lake: TileTables,
        locks: Locks,
        layout: Layout,
        landing: str,
        open_landing: Callable[[], None],
    ) -> None:
        self._con = con
        self._lake = lake
        self._locks = locks
        self._layout = layout
        self._landing = landing
        self._open_landing = open_landing
        self._version: int | None = None
        self._base = ""
        self._pieces: list[Piece] = []
        self._scan: TableScan | None = None
        self.table = tiles_table(layout.slot)
        self.types: dict[str, str] = {}

    @property
    def scan(self) -> TableScan | None:
        """Scan of the version of the log whose pieces were last returned; `None` if there is none."""
        return self._scan

    def alone(self) -> AbstractContextManager[None]:
        """Hold the lock of the log inside the block: no other process writes it or deletes its old files."""
        return self._locks.hold(self.table, wait_s=_WAIT_S)

    def write(self, loads: Loads, wanted: Mask) -> tuple[list[Piece], Mask]:
        """Write the tiles of the loads that the log lacks, exactly once even after kills. Call it inside `alone`.

        Args:
            loads: Loads of the version of the source that `landing` reads.
            wanted: Mask of the loads to have in the log.

        Returns:
            The valid pieces of the log, without overlap, and the mask of loads in none of them.
        """
        if not self.types:
            self._open_landing()
            self.types = column_types(self._con, self._layout, self._landing)
        pieces, missing = self.read(loads)
        if self._scan is not None and self._schema() != self._types_there(self._scan):
            self._restart(self._scan.version)
            pieces, missing = self.read(loads)
        if (missing & wanted).any():
            for group in _writes(np.flatnonzero(missing & wanted).tolist(), loads):
                self._append([Span.of(places, loads) for places in group], loads)
            pieces, missing = self.read(loads)
            if len(pieces) > MANY_PIECES:
                self.compact(loads)
                pieces, missing = self.read(loads)
        return pieces, missing

    def read(self, loads: Loads) -> tuple[list[Piece], Mask]:
        """Return the result of `write` without writing."""
        self._open()
        return choose(self._pieces, loads)

    def wasteful(self, loads: Loads) -> bool:
        """Return whether a piece of the log is stale."""
        return len(self.read(loads)[0]) < len(self._pieces)

    def whole(self, loads: Loads) -> int:
        """Return the version of the log that was last read, -1 if any piece of it is stale."""
        chosen, _ = choose(self._pieces, loads)
        return -1 if self._version is None or len(chosen) < len(self._pieces) else self._version

    def compact(self, loads: Loads) -> None:
        """Rewrite the log with only the valid tiles, merged over loads. Call it inside `alone`."""
        pieces, missing = self.read(loads)
        if self._scan is None:
            return
        into = dict(_merging(pieces, missing, loads))
        name = f"compact.{self._scan.version}"
        spans = [Span(first, last, loads.content(first, last)) for first, last in sorted(set(into.values()))]
        self._con.register(
            "merging",
            pa.table(
                {
                    "append": pa.array([piece.append for piece in into], pa.string()),
                    "load": pa.array([piece.first for piece in into], pa.int64()),
                    "target": pa.array([first for first, _ in into.values()], pa.int64()),
                }
            ),
        )
        duck.register(self._con, "tile_log", self._scan)
        tiles = [
            merged_rows(
                self._layout,
                "(SELECT tile_log.* REPLACE (target AS _load) FROM tile_log JOIN merging ON append = _append "
                f"AND load = _load WHERE _width = {width})",
                self.types,
            )
            for width in self._layout.hops
        ]
        # Even if nothing is left, later writes must have other keys than earlier ones.
        spans.append(Span(_NO_LOAD, _NO_LOAD, Content(0, 0)))
        try:
            self._store(name, spans, tiles, self._lake.replace)
        finally:
            self._con.execute("DROP VIEW IF EXISTS tile_log")
            self._con.unregister("merging")

    def _restart(self, version: int) -> None:
        """Empty the log, because a wider column of the source gives tiles of other types than the table has."""
        self._store(f"restart.{version}", [Span(_NO_LOAD, _NO_LOAD, Content(0, 0))], [], self._lake.replace)

    def _schema(self) -> dict[str, pa.DataType]:
        """Return the columns that depend on the view, with the current types of tiles."""
        columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in self.types.items())
        schema = self._con.sql(f"SELECT {columns} LIMIT 0").to_arrow_table().schema
        return dict(zip(schema.names, schema.types, strict=True))

    def _types_there(self, scan: TableScan) -> dict[str, pa.DataType]:
        schema = scan.schema
        assert schema is not None
        return {name: schema.field(name).type for name in self.types}

    def _append(self, spans: Sequence[Span], loads: Loads) -> None:
        self._open_landing()
        places = [(span.first, loads.places(span.first, span.last)) for span in spans]
        self._con.register(
            "tiled",
            pa.table(
                {
                    "load": pa.array([n for _, where in places for n in loads.numbers[where].tolist()], pa.int64()),
                    "_load": pa.array([first for first, where in places for _ in loads.numbers[where]], pa.int64()),
                }
            ),
        )
        where = f"{seqs_of(spans[0].first, spans[-1].last)} AND seq >> {LOAD_BITS} IN (SELECT load FROM tiled) "
        # A superseded row counts for a limited time only, and nothing can be removed from a tile.
        where += "AND g IS NULL"
        tiles = [
            f"SELECT * EXCLUDE (load) FROM ({tile_rows(self._layout, width, self._landing, where, self.types)}) "
            "JOIN tiled USING (load)"
            for width in self._layout.hops
        ]
        name = hashlib.sha256(repr((self._base, spans)).encode()).hexdigest()[:20]
        try:
            self._store(name, spans, tiles, self._lake.append)
        finally:
            self._con.unregister("tiled")

    def _store(self, name: str, spans: Sequence[Span], tiles: Sequence[str], write: Callable[..., int | None]) -> None:
        """Write tiles, one query after another, and their provenance, as one version of the table."""
        manifest = pa.table(
            {
                "_load": pa.array([span.first for span in spans], pa.int64()),
                "_upto": pa.array([span.last for span in spans], pa.int64()),
                "_rows": pa.array([span.content.rows for span in spans], pa.int64()),
                "_digest": pa.array([f"{span.content.digest:016x}" for span in spans], pa.string()),
            }
        )
        self._con.register("manifest", manifest)
        made_from = (
            "SELECT *, 0::BIGINT AS _width, 0::BIGINT AS _start, 0::BIGINT AS _enters, "
            f"{', '.join(f'NULL::{kind} AS {column}' for column, kind in self.types.items())} FROM manifest"
        )
        columns = ["_load", "_upto", "_rows", "_digest", "_width", "_start", "_enters", *self.types]
        untold = "NULL::BIGINT AS _upto, NULL::BIGINT AS _rows, NULL::VARCHAR AS _digest"
        queries = [made_from, *(f"SELECT *, {untold} FROM ({query})" for query in tiles)]
        queries = [f"SELECT '{name}' AS _append, {', '.join(columns)} FROM ({query})" for query in queries]
        schema = self._con.sql(f"{queries[0]} LIMIT 0").to_arrow_table().schema
        try:
            write(self.table, self._batches(queries), schema, key=f"tiles.{name}")
        finally:
            self._con.unregister("manifest")

    def _batches(self, queries: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for query in queries:
            # Ordered by time, so that readers of the newest tiles read little.
            with self._con.sql(f"{query} ORDER BY _start").to_arrow_reader(_BATCH_ROWS) as reader:
                yield from reader

    def _open(self) -> None:
        """Read the pieces of the newest version of the log."""
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
            if first != _NO_LOAD
        ]
        self._base = max((append for append, first, *_ in rows if first == _NO_LOAD), default="")
        self._version = self._scan.version


def choose(pieces: Sequence[Piece], loads: Loads) -> tuple[list[Piece], Mask]:
    """Return the pieces that are valid for `loads`, without overlap, and the mask of loads in none of them."""
    missing = np.ones(len(loads), np.bool_)
    chosen = []
    for piece in sorted(pieces, key=lambda piece: (piece.first - piece.last, piece)):
        where = loads.places(piece.first, piece.last)
        if missing[where].all() and piece.content.rows and loads.content(piece.first, piece.last) == piece.content:
            missing[where] = False
            chosen.append(piece)
    return chosen, missing


def _writes(places: Sequence[int], loads: Loads) -> Iterator[list[list[int]]]:
    """Split loads, by index, into writes, and these into pieces: runs without a gap.

    The newest load, which may still continue, is a separate piece.
    """
    group: list[list[int]] = []
    rows = 0
    for place in places:
        if group and group[-1][-1] == place - 1 and place != len(loads) - 1:
            group[-1].append(place)
        else:
            group.append([place])
        rows += loads.rows(place)
        if rows >= ROWS_A_WRITE:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _merging(pieces: Sequence[Piece], missing: Mask, loads: Loads) -> Iterator[tuple[Piece, tuple[int, int]]]:
    """Yield each piece with the numbers of the first and last load of the merged piece."""
    run: list[Piece] = []
    rows = 0
    for piece in sorted(pieces, key=lambda piece: piece.first):
        places = loads.places(piece.first, piece.last)
        separate = places.stop == len(loads) or rows + piece.content.rows > ROWS_A_PIECE
        if run and (separate or missing[loads.places(run[0].first, piece.last)].any()):
            yield from ((member, (run[0].first, run[-1].last)) for member in run)
            run, rows = [], 0
        run.append(piece)
        rows += piece.content.rows
    yield from ((member, (run[0].first, run[-1].last)) for member in run)
