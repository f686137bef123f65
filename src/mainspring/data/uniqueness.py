"""The uniqueness check, the only one that involves other rows: in order of arrival, the first row is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import SQL_TYPES, quote_name
from mainspring.data import duck
from mainspring.data.flags import numbers, present
from mainspring.data.model import REASON, Source
from mainspring.data.quality import unique_rules

if TYPE_CHECKING:
    import duckdb

ROW = "_row"
SEPARATOR = "\x1f"  # separates the reasons of one row; occurs in no reason


def judge_unique(con: duckdb.DuckDBPyConnection, source: Source, *, kept: bool) -> pa.Table | None:
    """Return the rows of `typed` that duplicate an earlier one, or one of `kept` if it exists, with the reasons.

    A quarantined row does not block others. A null equals nothing.
    """
    # Most loads have no duplicates; checking that costs a fraction of finding them.
    rules = [
        (names, reason)
        for names, reason in unique_rules(source)
        if not _all_differ(con, names) or (kept and _one_landed(con, source, names))
    ]
    joins, columns, found = "", [], 0
    for index, (names, _) in enumerate(rules):
        con.execute(f"CREATE OR REPLACE TEMP TABLE rivals_{index} AS {_rivals(names, kept)}")
        found += duck.one_row(con, f"SELECT count(*) FROM rivals_{index}")[0]
        same = " AND ".join(f"rivals_{index}.{quote_name(name)} = typed.{quote_name(name)}" for name in names)
        joins += f" LEFT JOIN rivals_{index} ON {same}"
        columns += [f"rivals_{index}._first", f"coalesce(rivals_{index}._there, false)"]
    if not found:
        return None
    suspect = " OR ".join(f"rivals_{index}._first IS NOT NULL" for index in range(len(rules)))
    suspects = con.execute(f"""
        SELECT {ROW}, {", ".join(columns)} FROM typed{joins}
        WHERE {REASON} IS NULL AND ({suspect}) ORDER BY {ROW}""").fetchall()
    return _failures(suspects, [reason for _, reason in rules])


def _all_differ(con: duckdb.DuckDBPyConnection, names: tuple[str, ...]) -> bool:
    """Return True if no two rows of the load agree; a hash collision may give False, never a wrong True."""
    hashed = f"SELECT hash({', '.join(map(quote_name, names))}) AS _hash FROM ({_good(names)})"
    hashes = np.sort(numbers(con.sql(hashed).to_arrow_table()["_hash"], pa.uint64()))
    return bool((hashes[1:] != hashes[:-1]).all())


def _one_landed(con: duckdb.DuckDBPyConnection, source: Source, names: tuple[str, ...]) -> bool:
    """Return whether a row of the table agrees with one of the load."""
    first, kind = quote_name(names[0]), SQL_TYPES[source.columns[names[0]]]
    ends = duck.one_row(con, f"SELECT min({first})::VARCHAR, max({first})::VARCHAR FROM ({_good(names)})")
    if ends[0] is None:
        return False
    # Growing numbers and times lie outside the table's range, which file statistics show without a read.
    near = f"SELECT * FROM kept WHERE {first} BETWEEN CAST(? AS {kind}) AND CAST(? AS {kind})"
    same = " AND ".join(f"near.{quote_name(name)} = good.{quote_name(name)}" for name in names)
    among = f"({near}) AS near SEMI JOIN ({_good(names)}) AS good ON {same}"
    return all(con.execute(f"SELECT 1 FROM {rows} LIMIT 1", ends).fetchall() for rows in (f"({near})", among))


def _good(names: tuple[str, ...]) -> str:
    columns = ", ".join(map(quote_name, names))
    return f"SELECT {columns}, {ROW}, false AS _there FROM typed WHERE {REASON} IS NULL AND {present(names)}"


def _rivals(names: tuple[str, ...], kept: bool) -> str:
    """Return a SQL query of duplicate values, `_first` with the first row's number, `_there` if one is in the table."""
    columns = ", ".join(map(quote_name, names))
    good = _good(names)
    if kept:
        same = " AND ".join(f"kept.{quote_name(name)} = good.{quote_name(name)}" for name in names)
        good = f"""
            WITH good AS ({good})
            SELECT * FROM good UNION ALL BY NAME
            SELECT DISTINCT {columns}, true AS _there FROM kept SEMI JOIN good ON {same}"""
    return f"""
        SELECT {columns}, min({ROW}) AS _first, bool_or(_there) AS _there FROM ({good})
        GROUP BY {columns} HAVING count(*) > 1"""


def _failures(suspects: list[tuple[Any, ...]], reasons: list[str]) -> pa.Table:
    """Return the failing rows and reasons. A suspect is (row, then for each rule: first duplicate or None, stored)."""
    taken: list[set[int]] = [set() for _ in reasons]
    rows, whys = [], []
    for row, *clashes in suspects:
        firsts, landed = clashes[::2], clashes[1::2]
        rules = zip(reasons, firsts, landed, taken, strict=True)
        why = [reason for reason, first, there, gone in rules if there or first in gone]
        if why:
            rows.append(row)
            whys.append(SEPARATOR.join(why))
            continue
        for first, gone in zip(firsts, taken, strict=True):
            if first is not None:
                gone.add(first)
    return pa.table({ROW: pa.array(rows, pa.int64()), REASON: pa.array(whys, pa.string())})
