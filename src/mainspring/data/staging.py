"""One load of rows on its way to the table: cast, judged, flagged, in DuckDB.

Temporary tables: `raw` is what came, `typed` has the declared types, `_visible_at`, `_seq` and the reasons for which a
row goes to the quarantine; the view `kept` is the table as it was. Names that begin with `_` are ours: no source has
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.time import LAST_INSTANT
from mainspring.data import duck
from mainspring.data.arrow import landed_schema, no_rows, quarantine_schema
from mainspring.data.casting import CAME, Casting, casting
from mainspring.data.fitting import DETAIL, FAULT
from mainspring.data.heads import Heads
from mainspring.data.keyings import declared
from mainspring.data.model import BATCH, REASON, RECORD_PREFIX, SEQUENCE, VISIBLE_AT, Source
from mainspring.data.quality import row_rules
from mainspring.data.records import counting, present, rank_columns
from mainspring.data.refusals import naive, wrong_type
from mainspring.data.uniqueness import ROW, SEPARATOR, judge_unique

if TYPE_CHECKING:
    import duckdb

_BETWEEN = quote_text(SEPARATOR)


class Staging:
    """A load's rows, `base` being the `_seq` of its first and `batch` its id.

    Args:
        heads: Of the table, the view `kept`, that the rows are compared with; None where there is none.
        name: What to call the data in messages.
        strict: Refuse the whole where no value of a text column fits: then the column is wrong, not its values.

    Raises:
        InvalidData: See `strict`; and whatever the data, no time of a column has a UTC offset.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        source: Source,
        raw: pa.Table,
        *,
        heads: Heads | None,
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
        castings = [casting(column, raw.schema.field(column).type, dtype) for column, dtype in source.columns.items()]
        raw = raw.append_column(ROW, _numbered(len(raw)))
        con.register("raw", raw.rename_columns({column: CAME + column for column in source.columns}))
        self._cast(castings)
        if duck.one_row(con, f"SELECT count({REASON}) FROM typed")[0]:
            for one in castings:
                self._refuse(one, name, strict)

    def _cast(self, castings: list[Casting]) -> None:
        rules = [pair for one in castings for pair in one.reasons]
        failing = [one.unfit for one in castings]
        unfit = {one.name: one.unfit for one in castings}
        no_row = f"coalesce(contains({FAULT}, {quote_text(DETAIL)}), false)"
        for columns, condition, reason in row_rules(self._source):
            failing.append(condition)
            # A null that only stands for a value that does not fit, or for a line that is no row, is not told twice.
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
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE typed AS
            SELECT {ROW}, {names},
                greatest({event}, {recorded} + to_microseconds({self._source.lag_us})) AS {VISIBLE_AT},
                {self._base} + {ROW} AS {SEQUENCE},
                CASE WHEN {FAULT} IS NOT NULL OR {" OR ".join(failing)}
                    THEN concat_ws({_BETWEEN}, {FAULT}, {reasons}) END AS {REASON}
            FROM (SELECT *, {values} FROM raw)""")

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
        """Give a reason to every row that agrees with one that came first, in this load or in the table."""
        judge_unique(self._con, self._source, kept=self._heads is not None)

    def leave_out(self, landed: pa.Table) -> None:
        """Forget the rows with these `_seq`: they are there already."""
        self._con.register("landed", landed)
        self._con.execute(f"DELETE FROM typed WHERE {SEQUENCE} IN (SELECT {SEQUENCE} FROM landed)")
        self._con.unregister("landed")

    def quarantined(self) -> pa.Table:
        """Return the rows that fail, as they came, with all their reasons."""
        came = [(quote_name(CAME + name), quote_name(name)) for name in self._source.columns]
        columns = ", ".join(f"CAST(raw.{text} AS VARCHAR) AS {name}" for text, name in came)
        reason = f"replace(replace({REASON}, {_BETWEEN}, '; '), {quote_text(DETAIL)}, ': ')"
        rows: pa.Table = self._con.sql(f"""
            SELECT {columns}, {reason} AS {REASON}, {SEQUENCE}, {quote_text(self._batch)} AS {BATCH}
            FROM raw JOIN typed USING ({ROW}) WHERE {REASON} IS NOT NULL ORDER BY {ROW}""").to_arrow_table()
        return rows.cast(quarantine_schema(self._source))

    def reasons(self) -> dict[str, int]:
        """Return reason -> how many rows have it."""
        counted = self._con.execute(f"""
            SELECT split_part(reason, {quote_text(DETAIL)}, 1) AS why, count(*)
            FROM (SELECT unnest(string_split({REASON}, {_BETWEEN})) AS reason FROM typed WHERE {REASON} IS NOT NULL)
            GROUP BY why ORDER BY 2 DESC, 1""")
        return dict(counted.fetchall())

    def landing(self, keyings: Mapping[str, tuple[str, ...]]) -> tuple[pa.Table, pa.Table]:
        """Return the rows that land, with their flags, and the changes of earlier rows' flags.

        Rows are in the order of `_visible_at`, among equals the highest rank first: so a flag that is right for the
        load is right for every part of it that begins where the load begins. Changes have `_seq`, one column for each
        keying (null where it stays) and the `_visible_at` of the row that changes.

        What lands has null keys by a keying that is no longer declared: it never counts, and changes nothing.
        """
        joins, flags, changes = "", [], []
        known = declared(self._source, keyings)
        for index, (name, keys) in enumerate(keyings.items()):
            flag = quote_name(RECORD_PREFIX + name)
            if name not in known:
                flags.append(f"false AS {flag}")
                continue
            self._flag(f"flagged_{index}", name, keys)
            joins += f" LEFT JOIN flagged_{index} ON typed.{SEQUENCE} = flagged_{index}.{SEQUENCE}"
            flags.append(f"coalesce(flagged_{index}._counts, false) AS {flag}")
            changes.append(
                f"SELECT {SEQUENCE}, {VISIBLE_AT}, false AS {flag} FROM flagged_{index} WHERE _was AND NOT _counts"
            )
        columns = [f"typed.{quote_name(name)}" for name in [*self._source.columns, VISIBLE_AT, SEQUENCE]]
        order = ", ".join(f"typed.{name} DESC" for name in rank_columns(self._source))
        rows: pa.Table = self._con.sql(f"""
            SELECT {", ".join([*columns, f"{quote_text(self._batch)} AS {BATCH}", *flags])}
            FROM typed{joins} WHERE {REASON} IS NULL ORDER BY typed.{VISIBLE_AT}, {order}""").to_arrow_table()
        return rows.cast(landed_schema(self._source, keyings)), self._changes(changes, known)

    def _flag(self, table: str, name: str, keys: tuple[str, ...]) -> None:
        columns = ", ".join(map(quote_name, dict.fromkeys((*keys, *self._source.times, VISIBLE_AT, SEQUENCE))))
        rows = f"SELECT {columns}, false AS _was FROM typed WHERE {REASON} IS NULL AND {present(keys)}"
        if self._heads is not None:
            known = self._heads.competitors(f"(SELECT * FROM typed WHERE {REASON} IS NULL)", name, keys)
            rows += f" UNION ALL BY NAME SELECT *, true AS _was FROM ({known})"
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE {table} AS
            SELECT {SEQUENCE}, {VISIBLE_AT}, _was, _counts FROM ({counting(self._source, rows, keys)})""")

    def _changes(self, queries: list[str], keyings: Mapping[str, tuple[str, ...]]) -> pa.Table:
        if self._heads is None or not queries:
            return no_rows(pa.schema([pa.field(SEQUENCE, pa.int64())]))
        flags = [quote_name(RECORD_PREFIX + name) for name in keyings]
        changes: pa.Table = self._con.sql(f"""
            SELECT {SEQUENCE}, any_value({VISIBLE_AT}) AS {VISIBLE_AT},
                {", ".join(f"bool_and({flag}) AS {flag}" for flag in flags)}
            FROM ({" UNION ALL BY NAME ".join(queries)}) GROUP BY {SEQUENCE}""").to_arrow_table()
        return changes


def _numbered(rows: int) -> pa.Array[Any]:
    # `pa.array` would import pandas.
    return pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(np.arange(rows, dtype=np.int64).tobytes())])
