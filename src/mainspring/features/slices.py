"""A view's part of its source in DuckDB's memory, kept between materialisations and brought up to date by what changed.

Table `rows_<n>`: kid (a small integer for the entity), e and v (event and visible time), r (recorded time), seq,
counts (the record-setting flag), x<i> (last values), m<i> (measures). Times are UTC epoch microseconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mainspring.core.expr.sql import to_sql
from mainspring.core.expr.types import dtype_of
from mainspring.core.schema import DType
from mainspring.data import duck
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, VISIBLE_AT, TableScan
from mainspring.features.asof import check_flag
from mainspring.features.layout import Layout
from mainspring.features.parts import measure_sql


class Slice:
    """The rows of one view.

    Attributes:
        rows: The name of its table of rows.
        entities: The name of its table of keys: kid, the key columns, since (when its first row became visible).
        landed: How many rows it has.
        newest: The largest `_seq` in it, -1 for none.
    """

    def __init__(self, con: Any, layout: Layout, number: int) -> None:
        self._con = con
        self._layout = layout
        self._version: int | None = None
        self._files: frozenset[str] = frozenset()
        self.rows = f"rows_{number}"
        self.entities = f"entities_{number}"
        self.landed = 0
        self.newest = -1

    def refresh(self, scan: TableScan) -> None:
        """Make the slice hold exactly the rows of `scan`.

        Files are immutable, so where the new version only has more of them, only those are read. A version that lacks
        an old file (rows changed their flag, files were compacted) is read whole.
        """
        if scan.version == self._version:
            return
        files = frozenset(scan.files or ())
        added = files - self._files
        if self._version is not None and scan.files is not None and self._files <= files:
            if added:
                self._load(replace(scan, files=tuple(name for name in scan.files if name in added)))
        else:
            self._create()
            self._load(scan)
        self._version, self._files = scan.version, files
        found = self._con.execute(f"SELECT count(*), coalesce(max(seq), -1) FROM {self.rows}").fetchone()
        self.landed, self.newest = found

    def landed_by(self, newest: int) -> int:
        """Return how many rows have a `_seq` up to `newest`."""
        if newest == self.newest:
            return self.landed
        found = self._con.execute(f"SELECT count(*) FROM {self.rows} WHERE seq <= {newest}").fetchone()
        return int(found[0])

    def drop(self) -> None:
        for table in (self.rows, self.entities):
            self._con.execute(f"DROP TABLE IF EXISTS {table}")

    def _create(self) -> None:
        self._version = None
        self.drop()
        keys = ", ".join(f"k{n} {_KEY_TYPES[dtype]}" for n, dtype in enumerate(self._layout.view.entity.keys.values()))
        self._con.execute(f"CREATE TABLE {self.entities} (kid BIGINT, {keys}, since BIGINT)")

    def _load(self, scan: TableScan) -> None:
        con, view = self._con, self._layout.view
        source = view.source
        if self._layout.lasts:
            check_flag(scan, view)
        duck.register(con, "landing_source", scan)
        keys = [f'"{key}"' for key in view.entity.keys]
        named = ", ".join(
            f"epoch_us({key}) AS k{n}" if dtype == DType.Timestamp else f"{key} AS k{n}"
            for n, (key, dtype) in enumerate(zip(keys, view.entity.keys.values(), strict=True))
        )
        recorded = source.recorded_time or source.event_time
        columns = [
            f'epoch_us("{source.event_time}") AS e',
            f"epoch_us({VISIBLE_AT}) AS v",
            f'epoch_us("{recorded}") AS r',
            f"{SEQUENCE} AS seq",
            f'"{RECORD_PREFIX}{view.entity.name}" AS counts' if self._layout.lasts else "FALSE AS counts",
        ]
        for n, expr in enumerate(self._layout.last_exprs):
            value = to_sql(expr, source.columns)
            instant = dtype_of(expr, source.columns) == DType.Timestamp
            columns.append(f"{f'epoch_us({value})' if instant else value} AS x{n}")
        for n, measure in enumerate(self._layout.measures):
            value = measure_sql(measure, source.columns)
            instant = measure.of is not None and dtype_of(measure.of, source.columns) == DType.Timestamp
            columns.append(f"{f'epoch_us({value})' if instant else value} AS m{n}")
        there = " AND ".join(f"{key} IS NOT NULL" for key in keys)
        ks = ", ".join(f"k{n}" for n in range(len(keys)))
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE landing AS SELECT {named}, {', '.join(columns)} "
            f"FROM landing_source WHERE {there}"
        )
        con.execute(
            f"INSERT INTO {self.entities} "
            f"SELECT (SELECT count(*) FROM {self.entities}) + row_number() OVER (), {ks}, since "
            f"FROM (SELECT {ks}, min(v) AS since FROM landing GROUP BY ALL) ANTI JOIN {self.entities} USING ({ks})"
        )
        con.execute(
            f"CREATE TABLE IF NOT EXISTS {self.rows} AS SELECT kid, landing.* EXCLUDE ({ks}) FROM landing "
            f"JOIN {self.entities} USING ({ks}) WITH NO DATA"
        )
        con.execute(
            f"INSERT INTO {self.rows} SELECT kid, landing.* EXCLUDE ({ks}) FROM landing "
            f"JOIN {self.entities} USING ({ks}) ORDER BY v"
        )
        con.execute(
            f"UPDATE {self.entities} AS known SET since = found.since FROM (SELECT kid, min(v) AS since "
            f"FROM landing JOIN {self.entities} USING ({ks}) GROUP BY kid) AS found "
            "WHERE found.kid = known.kid AND found.since < known.since"
        )
        con.execute("DROP TABLE landing")
        con.execute("DROP VIEW IF EXISTS landing_source")


_KEY_TYPES = {
    DType.String: "VARCHAR",
    DType.Boolean: "BOOLEAN",
    DType.Int32: "INTEGER",
    DType.Int64: "BIGINT",
    DType.Timestamp: "BIGINT",
}
