"""Cache of the tiles that a view's windows can reach, in DuckDB, refreshed incrementally from the log.

Tables, n being the slice's number: `tiles_n_<width>` (piece, kid, start, enters, the parts; piece is a number here) and
`untiled_n` (load: those that are not in the log yet).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.data import duck
from mainspring.data.flags import arrow_of
from mainspring.features.layout import Layout
from mainspring.features.state import sql
from mainspring.features.tilelog.landed import key_columns
from mainspring.features.tilelog.loads import Ints, Loads
from mainspring.features.tilelog.log import Mask, Piece, TileLog
from mainspring.features.tilelog.rows import parts_of, tail_of


class TileCache:
    """The tiles of one view from a log.

    Attributes:
        log: The log of tiles.
        any_untiled: Whether a load is not in the log, so that all its rows are in the slice's table of single rows.
    """

    def __init__(self, con: Any, log: TileLog, layout: Layout, number: int, entities: str) -> None:
        self._con = con
        self.log = log
        self._layout = layout
        self._entities = entities
        self._keys = ", ".join(key_columns(layout))
        self._pieces: dict[Piece, int] = {}
        self._made = 0
        self._low: int | None = None
        self._untiled: Ints | None = None  # what is in the table of that name
        self.untiled = f"untiled_{number}"
        self.tables = {width: f"tiles_{number}_{width}" for width in layout.hops}
        self.any_untiled = False

    @property
    def types(self) -> dict[str, str]:
        """DuckDB's types of the parts."""
        return self.log.types

    def refresh(self, loads: Loads, low: int) -> None:
        """Ensure that the log has every load with a row visible before `low`, and that the tables match the log."""
        with self.log.alone():
            self._take(loads, low, *self.log.write(loads, loads.first < low))

    def compact(self, loads: Loads, low: int, *, anyway: bool) -> bool:
        """Rewrite the log if a piece of it is stale, or `anyway`; return whether it was."""
        with self.log.alone():
            if not anyway and not self.log.wasteful(loads):
                return False
            self.log.compact(loads)
            self._take(loads, low, *self.log.read(loads))
            return True

    def _take(self, loads: Loads, low: int, pieces: list[Piece], missing: Mask) -> None:
        """Fill the tables with the tiles of some pieces."""
        if self._low != low:
            self.drop()
            self._create()
        self._low = low
        held = set(pieces)
        gone = [number for piece, number in self._pieces.items() if piece not in held]
        if gone:
            for table in self.tables.values():
                self._con.execute(f"DELETE FROM {table} WHERE piece IN ({', '.join(map(str, gone))})")
            self._pieces = {piece: number for piece, number in self._pieces.items() if piece in held}
        new = [piece for piece in pieces if piece not in self._pieces]
        if new:
            self._read(new)
        self._list_untiled(loads.numbers[missing])

    def _list_untiled(self, loads: Ints) -> None:
        """Make the table of the loads that are not in the log; a batch of a stream mostly adds one."""
        known, self._untiled = self._untiled, None  # until the table is written
        self.any_untiled = bool(len(loads))
        if known is not None and np.array_equal(known, loads[: len(known)]):
            if more := loads[len(known) :].tolist():
                self._con.execute(f"INSERT INTO {self.untiled} VALUES {', '.join(f'({load})' for load in more)}")
        else:
            self._con.register("untiled_now", pa.table({"load": arrow_of(loads)}))
            # A table made anew: deleted rows would stay in memory.
            self._con.execute(f"CREATE OR REPLACE TABLE {self.untiled} AS SELECT load FROM untiled_now")
            self._con.unregister("untiled_now")
        self._untiled = loads

    def drop(self) -> None:
        for table in (self.untiled, *self.tables.values()):
            self._con.execute(f"DROP TABLE IF EXISTS {table}")
        self._pieces.clear()
        self._low = self._untiled = None

    def _create(self) -> None:
        for width, table in self.tables.items():
            parts = "".join(f", {name} {self.types[name]}" for name in map(sql.column, parts_of(self._layout, width)))
            self._con.execute(f"CREATE TABLE {table} (piece BIGINT, kid BIGINT, start BIGINT, enters BIGINT{parts})")

    def _read(self, pieces: list[Piece]) -> None:
        con, scan = self._con, self.log.scan
        assert scan is not None
        assert self._low is not None
        numbers = list(range(self._made, self._made + len(pieces)))
        con.register(
            "pieces_now",
            pa.table(
                {
                    "piece": pa.array(numbers, pa.int64()),
                    "append": pa.array([piece.append for piece in pieces], pa.string()),
                    "load": pa.array([piece.first for piece in pieces], pa.int64()),
                }
            ),
        )
        duck.register(con, "tile_log", scan)
        for width, table in self.tables.items():
            con.execute(
                f"INSERT INTO {table} SELECT piece, kid, _start, _enters, {sql.columns(parts_of(self._layout, width))} "
                f"FROM tile_log JOIN pieces_now ON append = _append AND load = _load "
                f"JOIN (SELECT kid, {self._keys} FROM {self._entities}) USING ({self._keys}) "
                f"WHERE _width = {width} AND _start >= {tail_of(self._layout, width, self._low)} ORDER BY _start"
            )
        con.execute("DROP VIEW IF EXISTS tile_log")
        con.unregister("pieces_now")
        self._made += len(pieces)
        self._pieces.update(zip(pieces, numbers, strict=True))
