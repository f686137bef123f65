"""One load of rows on its way to the table: cast, judged, flagged, in DuckDB.

Temporary tables: `raw` is what came, `typed` has the declared types, `_visible_at`, `_seq` and the reasons for which a
row goes to the quarantine; `kept` is the table as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mainspring.data import duck
from mainspring.data.arrow import landed_schema, quarantine_schema
from mainspring.data.casting import Casting, casting
from mainspring.data.duck import identifier, literal
from mainspring.data.fitting import FAULT
from mainspring.data.model import BATCH, REASON, RECORD_PREFIX, SEQUENCE, VISIBLE_AT, Source, TableScan
from mainspring.data.quality import row_rules, unique_rules
from mainspring.data.records import competitors, counting, present
from mainspring.data.refusals import naive, wrong_type

if TYPE_CHECKING:
    import duckdb

_ROW = "_row"
_SEPARATOR = "\x1f"  # between the reasons of one row: no reason holds it
_BETWEEN = "chr(31)"


class Staging:
    """A load's rows, `base` being the `_seq` of its first and `batch` its id.

    Args:
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
        base: int,
        batch: str,
        name: str,
        strict: bool,
    ) -> None:
        self._con = con
        self._source = source
        self._base = base
        self._batch = batch
        self._kept = False
        raw = raw.append_column(_ROW, pa.array(np.arange(len(raw), dtype=np.int64)))
        con.register("raw", raw)
        castings = [casting(column, raw.schema.field(column).type, dtype) for column, dtype in source.columns.items()]
        self._cast(castings)
        self._refuse(castings, name, strict)

    def _cast(self, castings: list[Casting]) -> None:
        pairs = [pair for one in castings for pair in one.reasons]
        flags = [f"{condition} AS _misfit_{index}" for index, (condition, _) in enumerate(pairs)]
        values = [f"{one.value} AS {identifier(one.name)}" for one in castings]
        rules = [(f"_misfit_{index}", reason) for index, (_, reason) in enumerate(pairs)]
        misfits = [condition for condition, _ in rules]
        # A null that only stands for a value that does not fit is not told twice.
        fine = f"NOT ({' OR '.join(misfits)})" if misfits else "true"
        rules += [(f"({fine} AND {condition})", reason) for condition, reason in row_rules(self._source)]
        reasons = ", ".join(f"CASE WHEN {condition} THEN {literal(reason)} END" for condition, reason in rules)
        source = self._source
        recorded = identifier(source.recorded_time or source.event_time)
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE typed AS
            SELECT * EXCLUDE ({", ".join([FAULT, *misfits])}),
                greatest({identifier(source.event_time)}, {recorded} + to_microseconds({source.lag_us})) AS {VISIBLE_AT},
                {self._base} + {_ROW} AS {SEQUENCE},
                CASE WHEN {FAULT} IS NOT NULL OR {" OR ".join(condition for condition, _ in rules)}
                    THEN concat_ws({_BETWEEN}, {FAULT}, {reasons}) END AS {REASON}
            FROM (SELECT {", ".join([_ROW, FAULT, *values, *flags])} FROM raw)""")

    def _refuse(self, castings: list[Casting], name: str, strict: bool) -> None:
        for one in castings:
            if one.misfit is None or not duck.one_row(self._con, f"SELECT count({REASON}) FROM typed")[0]:
                continue
            column = f"raw.{identifier(one.name)}"
            there = f"count(*) FILTER ({column} IS NOT NULL)"
            misfits = f"count(*) FILTER ({one.misfit})"
            naives = f"count(*) FILTER ({one.naive})" if one.naive else "0"
            total, valued, wrong, without = duck.one_row(
                self._con, f"SELECT count(*), {there}, {misfits}, {naives} FROM raw"
            )
            if without and without + wrong == valued:
                raise naive(name, one.name)
            if strict and wrong == valued and 2 * valued >= total:
                example = duck.one_row(self._con, f"SELECT first({column}) FROM raw WHERE {one.misfit}")[0]
                raise wrong_type(name, one.name, one.dtype, example)

    def compare_with(self, scan: TableScan | None) -> None:
        """Make the table as it is now known to what follows; `None` where there is none."""
        self._kept = scan is not None
        if scan is not None:
            duck.register(self._con, "kept", scan)

    def judge_unique(self) -> None:
        """Give its reasons to every row that agrees with one that came first, in this load or in the table.

        Which rows stay is decided in order of arrival: a row that goes to the quarantine stands in nobody's way.
        """
        rules = unique_rules(self._source)
        joins, columns = "", []
        for index, (names, _) in enumerate(rules):
            self._con.execute(f"CREATE OR REPLACE TEMP TABLE rivals_{index} AS {self._rivals(names)}")
            same = " AND ".join(f"rivals_{index}.{identifier(name)} = typed.{identifier(name)}" for name in names)
            joins += f" LEFT JOIN rivals_{index} ON {same}"
            columns += [f"rivals_{index}.first", f"coalesce(rivals_{index}.there, false)"]
        suspect = " OR ".join(f"rivals_{index}.first IS NOT NULL" for index in range(len(rules)))
        if not rules or not any(
            duck.one_row(self._con, f"SELECT count(*) FROM rivals_{n}")[0] for n in range(len(rules))
        ):
            return
        suspects = self._con.execute(f"""
            SELECT {_ROW}, {", ".join(columns)} FROM typed{joins}
            WHERE {REASON} IS NULL AND ({suspect}) ORDER BY {_ROW}""").fetchall()
        failed = pa.table(_failures(suspects, [reason for _, reason in rules]), names=[_ROW, REASON])
        self._con.register("failed", failed)
        self._con.execute(f"UPDATE typed SET {REASON} = failed.{REASON} FROM failed WHERE typed.{_ROW} = failed.{_ROW}")
        self._con.unregister("failed")

    def _rivals(self, names: tuple[str, ...]) -> str:
        """Return SQL: the values that more than one row has, `first` the first of them, `there` if one is landed."""
        columns = ", ".join(map(identifier, names))
        good = f"SELECT {columns}, {_ROW} FROM typed WHERE {REASON} IS NULL AND {present(names)}"
        if not self._kept:
            return (
                f"SELECT {columns}, min({_ROW}) AS first, false AS there FROM ({good}) GROUP BY ALL HAVING count(*) > 1"
            )
        # Rows of this very load that landed before a crash were judged then, among their own: they are no rivals.
        last = self._base + duck.one_row(self._con, "SELECT count(*) FROM raw")[0] - 1
        same = " AND ".join(f"kept.{identifier(name)} = good.{identifier(name)}" for name in names)
        return f"""
            WITH good AS ({good}),
            known AS (
                SELECT DISTINCT {columns} FROM kept SEMI JOIN good ON {same}
                WHERE kept.{SEQUENCE} NOT BETWEEN {self._base} AND {last})
            SELECT {columns}, min({_ROW}) AS first, bool_or(there) AS there FROM (
                SELECT *, false AS there FROM good UNION ALL BY NAME SELECT good.*, true AS there FROM good JOIN known
                USING ({columns}))
            GROUP BY {columns} HAVING count(*) > 1"""

    def leave_out(self, landed: pa.Table) -> None:
        """Forget the rows with these `_seq`: they are there already."""
        self._con.register("landed", landed)
        self._con.execute(f"DELETE FROM typed WHERE {SEQUENCE} IN (SELECT {SEQUENCE} FROM landed)")
        self._con.unregister("landed")

    def quarantined(self) -> pa.Table:
        """Return the rows that fail, as they came, with all their reasons."""
        columns = ", ".join(
            f"CAST(raw.{identifier(name)} AS VARCHAR) AS {identifier(name)}" for name in self._source.columns
        )
        return (
            self._con.sql(f"""
            SELECT {columns}, replace({REASON}, {_BETWEEN}, '; ') AS {REASON}, {SEQUENCE}, {literal(self._batch)} AS {BATCH}
            FROM raw JOIN typed USING ({_ROW}) WHERE {REASON} IS NOT NULL ORDER BY {_ROW}
            """)
            .to_arrow_table()
            .cast(quarantine_schema(self._source))
        )

    def reasons(self) -> dict[str, int]:
        """Return reason -> how many rows have it."""
        return dict(
            self._con.execute(f"""
                SELECT unnest(string_split({REASON}, {_BETWEEN})) AS reason, count(*) FROM typed
                WHERE {REASON} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1""").fetchall()
        )

    def landing(self, keyings: Mapping[str, tuple[str, ...]]) -> tuple[pa.Table, pa.Table]:
        """Return the rows that land, with their flags, and the changes of earlier rows' flags.

        Rows are in the order of `_visible_at`, among equals the highest rank first: so a flag that is right for the
        load is right for every part of it that begins where the load begins. Changes have `_seq`, one column for each
        keying (null where it stays) and the `_visible_at` of the row that changes.
        """
        source = self._source
        joins, flags, changes = "", [], []
        for index, (name, keys) in enumerate(keyings.items()):
            self._flag(f"flagged_{index}", name, keys)
            flag = identifier(RECORD_PREFIX + name)
            joins += f" LEFT JOIN flagged_{index} ON typed.{SEQUENCE} = flagged_{index}.{SEQUENCE}"
            flags.append(f"coalesce(flagged_{index}.counts, false) AS {flag}")
            changes.append(
                f"SELECT {SEQUENCE}, {VISIBLE_AT}, false AS {flag} FROM flagged_{index} WHERE was AND NOT counts"
            )
        columns = [f"typed.{identifier(name)}" for name in [*source.columns, VISIBLE_AT, SEQUENCE]]
        order = [f"{identifier(name)} DESC" for name in (*source.times, SEQUENCE)]
        rows = self._con.sql(f"""
            SELECT {", ".join([*columns, f"{literal(self._batch)} AS {BATCH}", *flags])}
            FROM typed{joins} WHERE {REASON} IS NULL ORDER BY typed.{VISIBLE_AT}, {", ".join(f"typed.{key}" for key in order)}
            """).to_arrow_table()
        return rows.cast(landed_schema(source, keyings)), self._changes(changes, keyings)

    def _flag(self, table: str, name: str, keys: tuple[str, ...]) -> None:
        source = self._source
        columns = ", ".join(map(identifier, dict.fromkeys((*keys, *source.times, VISIBLE_AT, SEQUENCE))))
        rows = f"SELECT {columns}, false AS was FROM typed WHERE {REASON} IS NULL AND {present(keys)}"
        if self._kept:
            known = competitors(source, "kept", f"(SELECT * FROM typed WHERE {REASON} IS NULL)", name, keys)
            rows += f" UNION ALL BY NAME SELECT *, true AS was FROM ({known})"
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE {table} AS
            SELECT {SEQUENCE}, {VISIBLE_AT}, was, counts FROM ({counting(source, rows, keys)})""")

    def _changes(self, queries: list[str], keyings: Mapping[str, tuple[str, ...]]) -> pa.Table:
        flags = [identifier(RECORD_PREFIX + name) for name in keyings]
        if not self._kept or not queries:
            return pa.table({SEQUENCE: pa.array([], pa.int64())})
        any_flag = ", ".join(f"bool_and({flag}) AS {flag}" for flag in flags)
        return self._con.sql(f"""
            SELECT {SEQUENCE}, any_value({VISIBLE_AT}) AS {VISIBLE_AT}, {any_flag}
            FROM ({" UNION ALL BY NAME ".join(queries)}) GROUP BY {SEQUENCE}""").to_arrow_table()


def _failures(suspects: list[tuple[Any, ...]], reasons: list[str]) -> list[pa.Array[Any]]:
    """Return the rows that fail and why. A suspect is (row, then for each rule: first of its kind or None, landed)."""
    taken: list[set[int]] = [set() for _ in reasons]
    rows, whys = [], []
    for row, *clashes in suspects:
        firsts, landed = clashes[::2], clashes[1::2]
        why = [
            reason
            for reason, first, there, gone in zip(reasons, firsts, landed, taken, strict=True)
            if there or first in gone
        ]
        if why:
            rows.append(row)
            whys.append(_SEPARATOR.join(why))
        else:
            for first, gone in zip(firsts, taken, strict=True):
                if first is not None:
                    gone.add(first)
    return [pa.array(rows, pa.int64()), pa.array(whys, pa.string())]
