"""Staging of one load in DuckDB: casts, checks and flags.

Relations: `raw` holds the received values; `typed` has the declared types, `_visible_at`, `_seq` and the reasons for
quarantine; the view `kept` is the table before the load. Names that begin with `_` are reserved, so no source has them.

A load that has the declared types and no faults stays in Arrow, with `typed` as a view of it: DuckDB then reads only
the columns that a rule needs. Any other load is cast into the temporary table `staged`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.time import LAST_INSTANT
from mainspring.data import duck
from mainspring.data.arrow import INSTANT, landed_schema, no_rows, quarantine_schema
from mainspring.data.arrow_coercion import DETAIL, FAULT
from mainspring.data.casting import CAME, Casting, casting
from mainspring.data.flags import (
    Ranks,
    arrow_of,
    counting_rows,
    in_order,
    nearly_in_order,
    numbers,
    rank_columns,
    ranks,
    repeated,
)
from mainspring.data.heads import Heads
from mainspring.data.keyings import declared
from mainspring.data.model import BATCH, REASON, RECORD_PREFIX, SEQUENCE, VISIBLE_AT, Source
from mainspring.data.quality import certainly_pass, row_rules
from mainspring.data.refusals import naive, wrong_type
from mainspring.data.uniqueness import ROW, SEPARATOR, judge_unique

if TYPE_CHECKING:
    import duckdb

_BETWEEN = quote_text(SEPARATOR)


class Staging:
    """One load; `base` is the `_seq` of its first row, `batch` its id.

    Args:
        heads: Heads of the table, which is the view `kept`.
        kept: Whether the table exists.
        name: The data's name in messages.
        strict: Refuse the data if no value of a text column fits: then the column is wrong, not its values.

    Raises:
        InvalidData: See `strict`; or, with any setting, no time in a column has a UTC offset.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        source: Source,
        raw: pa.Table,
        *,
        heads: Heads,
        kept: bool,
        base: int,
        batch: str,
        name: str,
        strict: bool,
    ) -> None:
        self._con = con
        self._source = source
        self._base = base
        self._batch = batch
        self._heads = heads
        self._kept = kept
        castings = [casting(column, raw.schema.field(column).type, dtype) for column, dtype in source.columns.items()]
        raw = raw.append_column(ROW, arrow_of(np.arange(len(raw))))
        con.register("raw", raw.rename_columns({column: CAME + column for column in source.columns}))
        self._whole = self._cast(castings, raw)  # the rows of `typed`, if they are not in a temporary table
        if self._whole is None and duck.one_row(con, f"SELECT count({REASON}) FROM typed")[0]:
            for one in castings:
                self._refuse(one, name, strict)

    def _cast(self, castings: list[Casting], raw: pa.Table) -> pa.Table | None:
        """Create `typed`; return its rows if they are those of `raw`."""
        rules = [pair for one in castings for pair in one.reasons]
        failing = [one.unfit for one in castings]
        unfit = {one.name: one.unfit for one in castings}
        no_row = f"coalesce(contains({FAULT}, {quote_text(DETAIL)}), false)"
        for columns, condition, reason in row_rules(self._source):
            failing.append(condition)
            # A null that stands for a misfit value, or for a malformed line, is not reported a second time.
            told = " OR ".join([no_row, *(unfit[name] for name in columns)])
            rules.append((f"({condition} AND NOT ({told}))", reason))
        event, recorded, _ = rank_columns(self._source)
        if self._source.lag_us:
            late = f"coalesce(epoch_us({recorded}) > {LAST_INSTANT - self._source.lag_us}, false)"
            failing.append(late)
            rules.append((late, f"{self._source.times[-1]} and the lag are beyond the year 9999"))
        reasons = ", ".join(f"CASE WHEN {condition} THEN {quote_text(reason)} END" for condition, reason in rules)
        names = ", ".join(quote_name(one.name) for one in castings)
        values = ", ".join(f"{one.value} AS {quote_name(one.name)}" for one in castings)
        came, fails = f"(SELECT *, {values} FROM raw)", f"{FAULT} IS NOT NULL OR {' OR '.join(failing)}"
        exact = all(one.misfit is None for one in castings)
        if exact and raw[FAULT].null_count == len(raw) and certainly_pass(raw, self._source):
            return self._view(raw)
        if exact and not duck.one_row(self._con, f"SELECT count(*) FROM {came} WHERE {fails}")[0]:
            return self._view(raw)
        self._stage(f"""
            SELECT {ROW}, {names},
                greatest({event}, {recorded} + to_microseconds({self._source.lag_us})) AS {VISIBLE_AT},
                {self._base} + {ROW} AS {SEQUENCE},
                CASE WHEN {fails} THEN concat_ws({_BETWEEN}, {FAULT}, {reasons}) END AS {REASON}
            FROM {came}""")
        return None

    def _view(self, raw: pa.Table) -> pa.Table:
        """Create `typed` from fault-free rows of the declared types."""
        times = [numbers(raw[name]) for name in self._source.times]
        rows = raw.select([ROW, *self._source.columns])
        visible = np.maximum(times[0], times[-1] + self._source.lag_us)
        rows = rows.append_column(VISIBLE_AT, arrow_of(visible).view(INSTANT))
        rows = rows.append_column(SEQUENCE, arrow_of(self._base + np.arange(len(raw))))
        self._con.register("whole", rows)
        self._con.execute(f"CREATE OR REPLACE TEMP VIEW typed AS SELECT *, NULL::VARCHAR AS {REASON} FROM whole")
        self._con.execute("DROP TABLE IF EXISTS staged")
        return rows

    def _stage(self, rows: str = "SELECT * FROM typed") -> None:
        """Create `typed` from rows in a temporary table, which can be updated."""
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE staged AS {rows}")
        self._con.execute("CREATE OR REPLACE TEMP VIEW typed AS SELECT * FROM staged")
        self._whole = None

    def _refuse(self, one: Casting, name: str, strict: bool) -> None:
        if one.misfit is None:
            return
        total, valued, wrong, without = duck.one_row(
            self._con,
            f"""SELECT count(*), count({one.came}), count(*) FILTER ({one.misfit}),
                count(*) FILTER ({one.naive or "false"}) FROM raw""",
        )
        if without and without + wrong == valued:
            raise naive(name, one.name)
        if strict and valued and wrong == valued and 2 * valued >= total:
            example = duck.one_row(self._con, f"SELECT first({one.came} ORDER BY {ROW}) FILTER ({one.misfit}) FROM raw")
            raise wrong_type(name, one.name, one.dtype, example[0])

    def judge_unique(self) -> None:
        """Add a reason to every row that duplicates an earlier one, in this load or in the table."""
        failed = judge_unique(self._con, self._source, kept=self._kept)
        if failed is None:
            return
        if self._whole is not None:
            self._stage()
        self._con.register("failed", failed)
        self._con.execute(f"UPDATE staged SET {REASON} = failed.{REASON} FROM failed WHERE staged.{ROW} = failed.{ROW}")
        self._con.unregister("failed")

    def leave_out(self, landed: pa.Table) -> None:
        """Remove the rows with these `_seq`, which are stored already."""
        if not len(landed):
            return
        if self._whole is not None:
            self._stage()
        self._con.register("landed", landed)
        self._con.execute(f"DELETE FROM staged WHERE {SEQUENCE} IN (SELECT {SEQUENCE} FROM landed)")
        self._con.unregister("landed")

    def quarantined(self) -> pa.Table:
        """Return the failing rows as received, with all their reasons."""
        if self._whole is not None:
            return no_rows(quarantine_schema(self._source))
        came = [(quote_name(CAME + name), quote_name(name)) for name in self._source.columns]
        columns = ", ".join(f"CAST(raw.{text} AS VARCHAR) AS {name}" for text, name in came)
        reason = f"replace(replace({REASON}, {_BETWEEN}, '; '), {quote_text(DETAIL)}, ': ')"
        failing = self._con.sql(f"""
            SELECT {columns}, {reason} AS {REASON}, {SEQUENCE}, {quote_text(self._batch)} AS {BATCH}
            FROM raw JOIN typed USING ({ROW}) WHERE {REASON} IS NOT NULL ORDER BY {ROW}""")
        rows: pa.Table = failing.to_arrow_table(duck.BATCH_ROWS)
        return rows.cast(quarantine_schema(self._source))

    def reasons(self) -> dict[str, int]:
        """Return reason -> number of rows."""
        counted = self._con.execute(f"""
            SELECT split_part(reason, {quote_text(DETAIL)}, 1) AS why, count(*)
            FROM (SELECT unnest(string_split({REASON}, {_BETWEEN})) AS reason FROM typed WHERE {REASON} IS NOT NULL)
            GROUP BY why ORDER BY 2 DESC, 1""")
        return dict(counted.fetchall())

    def landing(self, keyings: Mapping[str, tuple[str, ...]], at_once: int) -> tuple[pa.Table, pa.Table]:
        """Return the valid rows with their flags, and the changes to flags of earlier rows.

        Rows are ordered by `_visible_at`, and among equals by descending rank, so flags that are right for the load are
        right for every prefix of it. Changes have `_seq`, one column per keying (null for no change) and the
        `_visible_at` of the changed row.

        Under a keying with undeclared columns, new rows have null keys: they never count and change nothing.
        """
        known = declared(self._source, keyings)
        columns = [*self._source.columns, VISIBLE_AT, SEQUENCE]
        rows = self._good() if self._whole is None else self._whole
        rows = rows.select(columns)
        ranked = ranks(rows, self._source)
        changes = []
        flags: dict[str, Any] = {}
        for name, keys in keyings.items():
            flag = RECORD_PREFIX + name
            flags[flag] = arrow_of(np.zeros(len(rows), bool))
            if name in known:
                flags[flag], changed = self._flags(rows, ranked, name, keys)
                changes.append(changed.append_column(flag, arrow_of(np.zeros(len(changed), bool))))
        for flag, values in flags.items():
            rows = rows.append_column(flag, values)
        if len(rows) > at_once or any(map(len, changes)) or not nearly_in_order(ranked.order):
            rows = in_order(rows, ranked.order)
        rows = rows.append_column(BATCH, repeated(self._batch, len(rows)))
        landed = landed_schema(self._source, keyings)
        return rows.select(landed.names).cast(landed), self._merged(changes)

    def _good(self) -> pa.Table:
        good = self._con.sql(f"SELECT * FROM typed WHERE {REASON} IS NULL")
        rows: pa.Table = good.to_arrow_table(duck.BATCH_ROWS)
        return rows

    def _flags(self, rows: pa.Table, ranked: Ranks, name: str, keys: tuple[str, ...]) -> tuple[pa.Array[Any], pa.Table]:
        """Return the mask of rows that count, and `_seq` and `_visible_at` of table rows that no longer count."""
        rows = rows.select(list(dict.fromkeys((*keys, *self._source.times, VISIBLE_AT, SEQUENCE)))).combine_chunks()
        there = rows.slice(0, 0)
        if self._kept and len(rows):
            arriving, since = f"(SELECT * FROM typed WHERE {REASON} IS NULL)", pc.min(rows[self._source.event_time])
            known = self._heads.competitors(arriving, name, keys, len(rows), since.cast(pa.int64()).as_py())
            if known is not None:
                there = self._con.sql(known).to_arrow_table().select(rows.column_names).cast(rows.schema)
        hashes = self._hashes(rows, keys)
        counted = counting_rows(rows, keys, ranked, hashes)
        self._heads.note(name, keys, rows, counted)
        counts, lost = counted.counts, there.select([SEQUENCE, VISIBLE_AT])
        if len(there):
            # Rows of entities with competitors are evaluated again, together with these.
            theirs = self._hashes(there, keys)
            met = np.flatnonzero(np.isin(hashes, theirs))
            both = pa.concat_tables([there, rows.take(arrow_of(met))]).combine_chunks()
            again = counting_rows(both, keys, ranks(both, self._source), np.append(theirs, hashes[met])).counts
            counts[met] = again[len(there) :]
            lost = lost.take(arrow_of(np.flatnonzero(~again[: len(there)])))
        return arrow_of(counts), lost

    def _hashes(self, rows: pa.Table, keys: tuple[str, ...]) -> np.ndarray:
        self._con.register("hashed", rows)
        found = self._con.sql(f"SELECT hash({', '.join(map(quote_name, keys))}) AS _hash FROM hashed").to_arrow_table()
        self._con.unregister("hashed")
        return numbers(found["_hash"], pa.uint64())

    def _merged(self, changes: list[pa.Table]) -> pa.Table:
        """Return the changes of all flags, one row per `_seq`; an unchanged flag is null."""
        if not any(map(len, changes)):
            return no_rows(pa.schema([pa.field(SEQUENCE, pa.int64())]))
        changed = pa.concat_tables(changes, promote_options="default")
        self._con.register("changed", changed)
        flags = ", ".join(f"bool_and({quote_name(name)}) AS {quote_name(name)}" for name in changed.column_names[2:])
        merged: pa.Table = self._con.sql(f"""
            SELECT {SEQUENCE}, any_value({VISIBLE_AT}) AS {VISIBLE_AT}, {flags}
            FROM changed GROUP BY {SEQUENCE}""").to_arrow_table()
        self._con.unregister("changed")
        return merged
