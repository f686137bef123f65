"""Cache of a view's source in one process between materialisations, in DuckDB, refreshed incrementally.

DuckDB spills data over its memory limit to disk.

For the settled past it has one row per entity, and the tiles that windows can reach (features.tilelog.cache). It has
single rows only from `low` on, by visible time: a boundary of the widest hop, before which they cover every row. Times
are UTC epoch microseconds. Tables, n being the slice's number:

- `entities_n`: kid (a small integer, at first in the order of keys), k<i> (keys), since (when its first row became
  visible), counted (its rows, while the slice is in order), and the standing row for last values among those before
  `low`: sv, se (visible and event time) and x<i>;
- `raw_n`: kid, e, v, r, seq, counts, x<i>, m<i> of the rows with v >= low;
- `arrived_n`: kid, seq of the rows with v < low that landed after the last materialisation;
- `mortals_n`, if rows are versions of facts: as `raw_n` with g, for the rows that count in [v, g) only, with g > low.
  Then `raw_n` has none of them, `entities_n` has also sr and sq (recorded time and seq of the standing row), and
  `arrived_n` also the rows that were superseded since, each with the seq of the row that superseded it;
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.locks import Locks
from mainspring.core.time import LAST_INSTANT
from mainspring.data import duck
from mainspring.data.flags import arrow_of
from mainspring.data.model import TableScan
from mainspring.features.layout import Layout
from mainspring.features.offline.versions import landed_versioning
from mainspring.features.state.blobs import SETTLING
from mainspring.features.tilelog.cache import TileCache
from mainspring.features.tilelog.lakes import TileTables
from mainspring.features.tilelog.landed import close_landing, key_columns, open_landing, value_columns
from mainspring.features.tilelog.loads import LOAD_BITS, NOTHING, Content, Loads, read_loads
from mainspring.features.tilelog.log import TileLog

_WORTH_TRIMMING = 100_000  # rows
_SETTLING_RUNS = 20  # each costs as much as reading all rows of the last hour
_TRIM_EVERY = 50  # runs
_ALL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Settling:
    """Rows of all entities settle in tiles, over several runs.

    Args:
        settled: Position through which all had settled before.
        position: Position through which all have settled when no entity is `left`.
        last: Position of the last run in which some settled.
        left: Sorted numbers of the entities that have not settled, int64 of shape (entities,).
        most: Number of entities a run.
    """

    settled: int
    position: int
    last: int
    left: np.ndarray
    most: int

    def due(self, position: int) -> int:
        """Return the number of entities that settle in a run: a share of those left by the time since the last such."""
        end = self.position + SETTLING
        if position < min(end, self.last + SETTLING // _SETTLING_RUNS):
            return 0
        share = 1.0 if position >= end else (position - self.last) / (end - self.last)
        return min(self.most, math.ceil(share * len(self.left)))


class Slice:
    """The rows of one view.

    Attributes:
        loads: Loads of the source, once it was read.
        settling: Settling in the making; see `settle_some`.
        low: Visible time from which single rows are kept.
        ordered: Whether entities are numbered in the order of their keys.
        tiles: Tiles of the rows before.
        versions: Whether rows are versions of facts.
    """

    def __init__(self, con: Any, lake: TileTables, locks: Locks, layout: Layout, number: int) -> None:
        self.con = self._con = con
        self._layout = layout
        self._keys = ", ".join(key_columns(layout))
        self._version: int | None = None
        self._files: frozenset[str] = frozenset()
        self._heard = -1  # `_seq` from which arrivals are in `arrived_n`
        self.loads: Loads | None = None
        self._tiled: Loads | None = None  # the same, identified by the content of tiles
        self.versions = False
        self._trims = 0
        self._trimming = False  # whether the next refresh moves `low`
        self._lake = lake
        self._rows: int | None = None  # of the version that was read last
        self._landing = f"landing_{number}"
        self._scan: TableScan | None = None
        self._opened = False
        self.number = number
        self.low = 0
        self.ordered = False
        self.entities = f"entities_{number}"
        self.raw = f"raw_{number}"
        self.arrived = f"arrived_{number}"
        self.mortals = f"mortals_{number}"
        self.settling: Settling | None = None
        self.tiles = TileCache(
            con, TileLog(con, lake, locks, layout, self._landing, self._open_landing), layout, number, self.entities
        )

    def refresh(self, scan: TableScan, *, since: int, heard: int | None) -> None:
        """Update the slice to a version of the source, with single rows from `since` on and arrivals after `heard`.

        Files are immutable, so if rows were only appended, only their files are read. A version in which other rows
        changed is read completely, in a few passes and bounded memory. `heard` None means that no existing row counts
        as an arrival.
        """
        low = self._floor(since)
        known = self._version is not None and low >= self.low and (heard is None or heard >= self._heard)
        if known and scan.version == self._version:
            return
        description = self._lake.describe(self._layout.view.source.name, scan.version)
        rows = None if description is None else description.rows
        added = self._added(scan, rows) if known else None
        self._version = None  # until all of it is done
        self._close_landing()  # left open by a refresh that failed
        versions = landed_versioning(scan) is not None
        grown, self.versions = added is not None and versions == self.versions, versions
        if grown and added:
            self._add(replace(scan, files=added))
        if grown and self._trimming and low > self.low:
            self._settle(low, heard)
        self._scan = scan
        if not grown:
            self.low, self._heard = low, _ALL if heard is None else heard
            self._open_landing()
            self._load()
        tiled = self._tiled
        assert tiled is not None
        self._heard = min(self._heard, self.newest)
        if self._layout.windows:
            self.tiles.refresh(tiled, self.low)
        self._close_landing()
        self._version, self._files, self._rows = scan.version, frozenset(scan.files or ()), rows

    @property
    def newest(self) -> int:
        """The largest `_seq` in the source, -1 for none."""
        return -1 if self.loads is None else self.loads.last

    @property
    def content(self) -> Content:
        """Content of the source."""
        return NOTHING if self.loads is None else self.loads.content(0, self.newest >> LOAD_BITS)

    @property
    def whole_log(self) -> int:
        """The version of the log of tiles, -1 if there is none or it has stale pieces."""
        return -1 if self._tiled is None or not self._layout.windows else self.tiles.log.whole(self._tiled)

    def changes_after(self, until: int) -> int:
        """Return the first instant after `until` (not before `low`) at which a row begins or ceases to count."""
        instants = [f"SELECT v AS t FROM {self.raw}"]
        if self.versions:
            instants += [f"SELECT unnest([v, g]) AS t FROM {self.mortals}"]
        query = f"SELECT coalesce(min(t), {LAST_INSTANT}) FROM ({' UNION ALL '.join(instants)}) WHERE t > {until}"
        return int(duck.one_row(self._con, query)[0])

    def content_up_to(self, newest: int, scan: TableScan) -> Content:
        """Return the content of the source's last read version for rows with a `_seq` up to `newest`."""
        loads, load = self.loads, newest >> LOAD_BITS
        if loads is None or newest < 0:
            return NOTHING
        inside = loads.places(load, load)
        if inside.start == inside.stop or int(loads.newest[inside.start]) <= newest:
            return loads.content(0, load)
        # A load that continued since: its earlier rows are read.
        self._scan = scan
        self._open_landing()
        rows, digest = duck.one_row(
            self._con,
            f"SELECT count(*), coalesce(bit_xor(digest), 0) FROM {self._landing} "
            f"WHERE seq >= {load << LOAD_BITS} AND seq <= {newest}",
        )
        self._close_landing()
        return loads.content(0, load - 1) ^ Content(rows, digest)

    def compact(self, *, anyway: bool = False) -> bool:
        """Rewrite the log of tiles if it has stale pieces, or `anyway`; return whether it was rewritten.

        Call it after a refresh. Valid tiles are merged over loads.
        """
        loads = self._tiled
        return loads is not None and bool(self._layout.windows) and self.tiles.compact(loads, self.low, anyway=anyway)

    def forget(self) -> None:
        """Read everything again at the next refresh."""
        self._version = None

    def trim(self, since: int, *, anyway: bool = False) -> None:
        """Make the next refresh drop single rows if most of them became visible before `since`, or `anyway`."""
        self._trims += 1
        low = self._floor(since)
        if (self._trims % _TRIM_EVERY and not anyway) or self._version is None or low <= self.low:
            return
        settled, rows = duck.one_row(self._con, f"SELECT count(*) FILTER (v < {low}), count(*) FROM {self.raw}")
        if anyway or (settled > _WORTH_TRIMMING and settled * 2 > rows):
            self._trimming = True
            if self.versions:
                self.forget()

    def settle_some(self, changed: str, settled: int, position: int, until: int) -> tuple[int, Settling]:
        """Add to table `changed` (kid, rows) some entities with rows that may settle in tiles.

        Args:
            settled: Position through which all entities have settled.
            position: Position of this run, at which the entities of `changed` settle too.
            until: Visible time of the latest rows in states.

        Returns:
            Number of added entities, and what `settling` is once the states are written.
        """
        now = self.settling
        if now is None or now.settled != settled or not len(now.left):
            left = self._kids(f"{self.raw} WHERE v >= {settled - SETTLING} AND v <= {until}")
            now = Settling(settled, position, position, left, -(-len(left) // _SETTLING_RUNS))
        self.settling = None  # if the states are not written, it begins anew
        left = np.setdiff1d(now.left, self._kids(changed), assume_unique=True)
        due = left[: now.due(position)]
        if len(due):
            self._con.register("settling_now", pa.table({"kid": arrow_of(due)}))
            self._con.execute(f"INSERT INTO {changed} SELECT kid, 0 FROM settling_now")
            self._con.unregister("settling_now")
        return len(due), replace(now, last=position if len(due) else now.last, left=left[len(due) :])

    def _kids(self, rows: str) -> np.ndarray:
        """Return the sorted numbers of the entities in `rows`, int64 of shape (entities,)."""
        found = self._con.execute(f"SELECT DISTINCT kid FROM {rows} ORDER BY kid").fetchnumpy()
        return np.asarray(found["kid"], np.int64)

    def drop(self) -> None:
        self.settling = None
        for table in (self.entities, self.raw, self.arrived, self.mortals):
            self._con.execute(f"DROP TABLE IF EXISTS {table}")
        self.tiles.drop()

    def _floor(self, since: int) -> int:
        widest = max(self._layout.hops, default=1)
        return since // widest * widest

    def _open_landing(self) -> None:
        """Open the rows of the version that is read, unless they are open; in many a refresh nobody needs them."""
        if not self._opened:
            assert self._scan is not None
            open_landing(self._con, self._layout, self._scan, self._landing)
            self._opened = True

    def _close_landing(self) -> None:
        if self._opened:
            close_landing(self._con, self._landing)
            self._opened = False

    def _added(self, scan: TableScan, rows: int | None) -> tuple[str, ...] | None:
        """Return the files of the rows that a version has in addition to the one read last; `None` if that is unknown.

        Args:
            rows: Number of rows of the version.
        """
        if scan.files is None or self._version is None:
            return None
        if self._files.issubset(scan.files):
            return tuple(name for name in scan.files if name not in self._files)
        # Files were compacted, or rows changed: rows that were deleted are missing in the sum.
        appended = self._lake.appended(self._layout.view.source.name, self._version, scan.version)
        if appended is None or rows is None or self._rows is None:
            return None
        more = sum(pq.read_metadata(name).num_rows for name in appended.files or ())
        return appended.files if self._rows + more == rows else None

    def _read_loads(self) -> None:
        """Read the loads of the rows in `landing`, in addition to those known."""
        digests = read_loads(self._con, self._landing)
        loads, tiled = digests if self.versions else (digests[0], digests[0])
        if self.loads is None or self._tiled is None:
            self.loads, self._tiled = loads, tiled
            return
        self.loads = grown = self.loads.grown(loads)
        self._tiled = self._tiled.grown(tiled) if self.versions else grown

    def _settle(self, low: int, heard: int | None) -> None:
        """Move `low`: single rows before it become standing rows and arrivals."""
        con = self._con
        self._heard = _ALL if heard is None else heard
        if self._layout.lasts:
            values = self._standing[2:]
            fields = ", ".join(f"{name}: {name}" for name in ("e", *values))
            found = (
                f"SELECT kid, max(v) AS sv, arg_max({{{fields}}}, v) AS s "
                f"FROM {self.raw} WHERE counts AND v < {low} GROUP BY kid"
            )
            assigned = "".join(f", {name} = s.{name}" for name in values)
            con.execute(
                f"UPDATE {self.entities} AS known SET sv = found.sv, se = s.e{assigned} FROM ({found}) AS found "
                "WHERE known.kid = found.kid"
            )
        con.execute(f"DELETE FROM {self.arrived} WHERE seq <= {self._heard}")
        con.execute(
            f"INSERT INTO {self.arrived} SELECT kid, seq FROM {self.raw} WHERE v < {low} AND seq > {self._heard}"
        )
        # A table made anew gives its memory back, and is in order.
        con.execute(f"CREATE OR REPLACE TABLE {self.raw} AS SELECT * FROM {self.raw} WHERE v >= {low} ORDER BY v")
        self.low, self._trimming = low, False

    def _load(self) -> None:
        """Read the whole source: each query is one pass over it."""
        con = self._con
        self.drop()
        self.ordered, self._trimming = True, False
        self.loads = self._tiled = None
        self._read_loads()
        con.execute(
            f"CREATE TABLE {self.entities} AS "
            f"SELECT row_number() OVER (ORDER BY {self._keys}) AS kid, * FROM ({self._entities_sql()})"
        )
        con.execute(f"CREATE TABLE {self.raw} AS {self._raw_sql()}")
        con.execute(f"CREATE TABLE {self.arrived} AS {self._arrived_sql()}")
        if self.versions:
            con.execute(f"CREATE TABLE {self.mortals} AS {self._mortals_sql()}")

    def _add(self, scan: TableScan) -> None:
        """Read only the rows that landed since."""
        con, opened = self._con, f"{self._landing}_new"
        open_landing(con, self._layout, scan, opened)
        con.execute(f"CREATE OR REPLACE TEMP TABLE {opened}_rows AS SELECT * FROM {opened}")
        close_landing(con, opened)
        con.execute(f"CREATE OR REPLACE TEMP VIEW {self._landing} AS SELECT * FROM {opened}_rows")
        self._read_loads()
        self.ordered = False
        better = "found.since < known.since"
        if self._standing:
            better += " OR found.sv > coalesce(known.sv, found.sv - 1)"
        same = " AND ".join(f"found.{name} = known.{name}" for name in key_columns(self._layout))
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {opened}_entities AS SELECT found.*, kid, {better} AS better "
            f"FROM ({self._entities_sql()}) AS found LEFT JOIN {self.entities} AS known ON {same}"
        )
        # In most batches of a stream all entities are known, and no row is the first of its entity, or late.
        new, some_better, late = duck.one_row(
            con,
            "SELECT count(*) FILTER (kid IS NULL), count(*) FILTER (better), "
            f"(SELECT count(*) FROM {self._landing} WHERE v < {self.low}) FROM {opened}_entities",
        )
        if new:
            con.execute(
                f"INSERT INTO {self.entities} SELECT (SELECT count(*) FROM {self.entities}) + "
                f"row_number() OVER (ORDER BY {self._keys}) AS kid, * EXCLUDE (kid, better) "
                f"FROM {opened}_entities WHERE kid IS NULL"
            )
        if some_better:
            standing = "found.sv > coalesce(known.sv, found.sv - 1)"
            values = "".join(
                f", {name} = CASE WHEN {standing} THEN found.{name} ELSE known.{name} END" for name in self._standing
            )
            con.execute(
                f"UPDATE {self.entities} AS known SET since = least(known.since, found.since){values} "
                f"FROM {opened}_entities AS found WHERE better AND found.kid = known.kid"
            )
        con.execute(f"INSERT INTO {self.raw} {self._raw_sql()}")
        if late or self.versions:
            con.execute(f"INSERT INTO {self.arrived} {self._arrived_sql()}")
        if self.versions:
            con.execute(f"INSERT INTO {self.mortals} {self._mortals_sql()}")
        con.execute(f"DROP VIEW {self._landing}")
        con.execute(f"DROP TABLE {opened}_rows")
        con.execute(f"DROP TABLE {opened}_entities")

    @property
    def _standing(self) -> list[str]:
        """Return the columns of an entity's standing row."""
        if not self._layout.lasts:
            return []
        rank = ["sr", "sq"] if self.versions else []
        return ["sv", "se", *rank, *(f"x{n}" for n in range(len(self._layout.last_exprs)))]

    def _entities_sql(self) -> str:
        past = f"v < {self.low}"
        standing, selected = "NULL::BIGINT AS sv", "sv"
        if self._layout.lasts:
            column_of = {"sr": "r", "sq": "seq"}
            values = "".join(f", {name}: {column_of.get(name, name)}" for name in self._standing[2:])
            standing = (
                f"max(v) FILTER (counts AND {past}) AS sv, "
                f"arg_max({{se: e{values}}}, v) FILTER (counts AND {past}) AS s"
            )
            selected = ", ".join(["sv", *(f"s.{name} AS {name}" for name in self._standing[1:])])
        # An entity without any row that ever counted has not been seen yet.
        since = f"coalesce(min(v) FILTER (v < coalesce(g, {_ALL})), {_ALL})"
        grouped = (
            f"SELECT {self._keys}, {since} AS since, count(*) AS counted, {standing} "
            f"FROM {self._landing} GROUP BY {self._keys}"
        )
        return f"SELECT {self._keys}, since, counted, {selected} FROM ({grouped})"

    def _raw_sql(self) -> str:
        columns = ", ".join(["kid", "e", "v", "r", "seq", "counts", *value_columns(self._layout)])
        # The condition is on the stored column, so a file's statistics can evaluate it.
        return (
            f"SELECT {columns} FROM (SELECT * FROM {self._landing} "
            f"WHERE shown >= make_timestamptz({self.low - 1}::BIGINT) AND g IS NULL) {self._numbered} ORDER BY v"
        )

    def _mortals_sql(self) -> str:
        columns = ", ".join(["kid", "e", "v", "g", "r", "seq", *value_columns(self._layout)])
        return (
            f"SELECT {columns} FROM (FROM {self._landing} WHERE v < g AND g > {self.low}) {self._numbered} ORDER BY v"
        )

    def _arrived_sql(self) -> str:
        ended = f"UNION ALL SELECT {self._keys}, ender FROM {self._landing} WHERE ender > {self._heard} "
        return (
            f"SELECT kid, seq FROM (SELECT {self._keys}, seq FROM {self._landing} "
            f"WHERE seq > {self._heard} AND v < {self.low} {ended if self.versions else ''}) {self._numbered}"
        )

    @property
    def _numbered(self) -> str:
        return f"JOIN (SELECT kid, {self._keys} FROM {self.entities}) USING ({self._keys})"
