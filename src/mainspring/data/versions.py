"""Versions of facts, for sources with an id: decides when each row with the same id counts.

Rows with one id are versions of one fact, ranked by recorded time, then order of arrival. At any time the highest
visible version counts. So a version counts from its own `_visible_at` until `_superseded_at`, the time at which the
first higher version became visible; a version superseded no later than it became visible never counts. A retraction
never counts, and supersedes like other versions. `_superseded_by` is the `_seq` of the superseding row, which tells an
incremental reader which earlier rows changed.

Record-setting flags are those among the versions not yet superseded; the few superseded ones are handled separately. A
superseded version loses its flag, and rows that it shadowed may gain one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.arrow import keyings_of, landed_schema, versioning_of, widened
from mainspring.data.flags import counting, present, rank_columns
from mainspring.data.keyings import Keyings, declared, rewrite_flagged
from mainspring.data.model import (
    BATCH,
    REASON,
    RECORD_PREFIX,
    SEQUENCE,
    SUPERSEDED_AT,
    SUPERSEDED_BY,
    VISIBLE_AT,
    Source,
)
from mainspring.data.ports import LakeTables

if TYPE_CHECKING:
    import duckdb

_ARRIVING = f"typed WHERE {REASON} IS NULL"


def judged(source: Source, rows: str) -> str:
    """Return a SQL query of `rows`, all versions of some facts, with `_superseded_at` and `_superseded_by`."""
    _, recorded, seq = rank_columns(source)
    # Among rows visible at the same time, the first to arrive is the superseding one.
    first = f"min({{v: {VISIBLE_AT}, s: {seq}}})"
    found = f"SELECT *, {first} OVER newer AS _first FROM ({rows}) WINDOW newer AS (PARTITION BY {_list(source.id)} "
    found += f"ORDER BY {recorded} DESC, {seq} DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    if source.retracted is not None:
        own = f"coalesce({quote_name(source.retracted)}, false) AND coalesce({VISIBLE_AT} <= _first.v, true)"
        found = (
            f"SELECT * REPLACE (CASE WHEN {own} THEN {{v: {VISIBLE_AT}, s: {seq}}} ELSE _first END AS _first) "
            f"FROM ({found})"
        )
    return f"SELECT * EXCLUDE (_first), _first.v AS {SUPERSEDED_AT}, _first.s AS {SUPERSEDED_BY} FROM ({found})"


def landing(
    con: duckdb.DuckDBPyConnection, source: Source, keyings: Keyings, batch: str, *, kept: bool
) -> tuple[pa.Table, pa.Table]:
    """Return the result of `data.staging.Staging.landing` for a source with an id.

    Reads the table's rows with an id of the load, and for the affected entities the rows that a superseded one may have
    shadowed. Changes include `_superseded_at` and `_superseded_by` beside the flags.
    """
    known = declared(source, keyings)
    keys = dict.fromkeys(key for names in known.values() for key in names)
    retracted = [] if source.retracted is None else [source.retracted]
    needed = _list([*dict.fromkeys((*source.id, *source.times, *keys, *retracted, VISIBLE_AT, SEQUENCE))])
    rows = f"SELECT {needed}, NULL::TIMESTAMPTZ AS _had, false AS _was FROM {_ARRIVING}"
    if kept:
        flags = "".join(f", {quote_name(RECORD_PREFIX + name)}" for name in known)
        rows += (
            f" UNION ALL BY NAME SELECT {needed}, {SUPERSEDED_AT} AS _had, true AS _was{flags} FROM kept "
            f"SEMI JOIN (SELECT DISTINCT {_list(source.id)} FROM {_ARRIVING}) USING ({_list(source.id)})"
        )
    con.execute(f"CREATE OR REPLACE TEMP TABLE versions AS {judged(source, rows)}")
    changes = [
        f"SELECT {SEQUENCE}, {VISIBLE_AT}, {SUPERSEDED_AT}, {SUPERSEDED_BY} FROM versions "
        f"WHERE _was AND {SUPERSEDED_AT} IS DISTINCT FROM _had"
    ]
    joins, flags = "", ""
    for index, name in enumerate(keyings):
        flag = quote_name(RECORD_PREFIX + name)
        if name not in known:
            flags += f", false AS {flag}"
            continue
        _flag(con, f"flagged_{index}", source, name, known[name], kept=kept)
        joins += f" LEFT JOIN flagged_{index} ON typed.{SEQUENCE} = flagged_{index}.{SEQUENCE}"
        flags += f", coalesce(flagged_{index}._counts, false) AS {flag}"
        changes.append(
            f"SELECT {SEQUENCE}, {VISIBLE_AT}, _counts AS {flag} FROM flagged_{index} WHERE _counted <> _counts"
        )
    columns = _list([*source.columns, VISIBLE_AT, SEQUENCE], "typed")
    order = ", ".join(f"typed.{name} DESC" for name in rank_columns(source))
    landed: pa.Table = con.sql(f"""
        SELECT {columns}, {quote_text(batch)} AS {BATCH}{flags}, versions.{SUPERSEDED_AT}, versions.{SUPERSEDED_BY}
        FROM typed JOIN versions ON typed.{SEQUENCE} = versions.{SEQUENCE}{joins}
        ORDER BY typed.{VISIBLE_AT}, {order}""").to_arrow_table(duck.BATCH_ROWS)
    schema = landed_schema(source, keyings)
    return landed.select(schema.names).cast(schema), _changed(con, changes, known)


def _flag(
    con: duckdb.DuckDBPyConnection, table: str, source: Source, name: str, keys: tuple[str, ...], *, kept: bool
) -> None:
    """Create a table of (`_seq`, `_visible_at`, `_counts`, `_counted`): the new flags, and the table rows' old ones.

    `_counted` is null for arriving rows. Rows superseded by this load are included, and no longer count.
    """
    quoted = _list(keys)
    columns = _list([*dict.fromkeys((*keys, *source.times, VISIBLE_AT, SEQUENCE))])
    flag = quote_name(RECORD_PREFIX + name)
    rows = f"SELECT {columns}, NULL::BOOLEAN AS _counted FROM versions WHERE NOT _was AND {SUPERSEDED_AT} IS NULL"
    rows += f" AND {present(keys)}"
    dying = f"versions WHERE _was AND _had IS NULL AND {SUPERSEDED_AT} IS NOT NULL AND {present(keys)}"
    if not kept:
        con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {_counted(source, rows, keys)}")
        return
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE touched AS SELECT {quoted}, min({VISIBLE_AT}) AS _since FROM (
            SELECT {quoted}, {VISIBLE_AT} FROM ({rows}) UNION ALL SELECT {quoted}, {VISIBLE_AT} FROM {dying})
        GROUP BY ALL""")
    there = f"""
        SELECT {_list([*dict.fromkeys((*keys, *source.times, VISIBLE_AT, SEQUENCE))], "kept")}, _since,
            kept.{flag} AS _counted
        FROM kept JOIN touched USING ({quoted})
        WHERE kept.{SUPERSEDED_AT} IS NULL AND (kept.{VISIBLE_AT} >= _since OR kept.{flag})
            AND kept.{SEQUENCE} NOT IN (SELECT {SEQUENCE} FROM {dying})"""
    con.execute(f"CREATE OR REPLACE TEMP TABLE standing AS {there}")
    rows += f"""
        UNION ALL BY NAME SELECT * EXCLUDE (_since) FROM standing WHERE {VISIBLE_AT} >= _since
        UNION ALL BY NAME SELECT * EXCLUDE (_since) FROM standing WHERE {VISIBLE_AT} < _since
            QUALIFY row_number() OVER (PARTITION BY {quoted} ORDER BY {VISIBLE_AT} DESC) = 1"""
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE {table} AS {_counted(source, rows, keys)}
        UNION ALL SELECT {SEQUENCE}, {VISIBLE_AT}, false, {flag} FROM {dying}""")


def _counted(source: Source, rows: str, keys: tuple[str, ...]) -> str:
    return f"SELECT {SEQUENCE}, {VISIBLE_AT}, _counts, _counted FROM ({counting(source, rows, keys)})"


def _changed(con: duckdb.DuckDBPyConnection, queries: list[str], keyings: Keyings) -> pa.Table:
    columns = [SUPERSEDED_AT, SUPERSEDED_BY, *(quote_name(RECORD_PREFIX + name) for name in keyings)]
    changes: pa.Table = con.sql(f"""
        SELECT {SEQUENCE}, any_value({VISIBLE_AT}) AS {VISIBLE_AT},
            {", ".join(f"any_value({column}) AS {column}" for column in columns)}
        FROM ({" UNION ALL BY NAME ".join(queries)}) GROUP BY {SEQUENCE}""").to_arrow_table()
    return changes


def lacking_versions(con: duckdb.DuckDBPyConnection, lake: LakeTables, source: Source) -> tuple[str, ...]:
    """Return the changes that would apply the declared id to the table's versions, a line each.

    Raises:
        InvalidData: A row of the table has a null in its id.
    """
    if lake.version(source.name) is None:
        return ()
    scan = lake.scan(source.name)
    there = versioning_of(scan.schema or pa.schema([]))
    if there == source.versioning:
        return ()
    if source.versioning is None:
        return (f"- {SUPERSEDED_AT}: rows are no longer versions of facts",)
    missing = [name for name in source.id if name not in (scan.schema or pa.schema([])).names]
    duck.register(con, "kept", widened(scan, source))
    nulls, rows = duck.one_row(con, f"SELECT count(*) FILTER (NOT ({present(source.id)})), count(*) FROM kept")
    if nulls:
        why = f"lacks {missing[0]!r}" if missing else f"has {nulls:,} of {rows:,} rows with a null in it"
        raise InvalidData(
            f"Source {source.name!r} declares the id {', '.join(source.id)}, but its table {why}.",
            fix="declare an id that every row has, or give the source another name and ingest its data again.",
        )
    marked = "" if source.retracted is None else f", retracted by {source.retracted}"
    return (f"+ {SUPERSEDED_AT} for the id {', '.join(source.id)}{marked}",)


def complete_versions(
    con: duckdb.DuckDBPyConnection, lake: LakeTables, source: Source, keyings: Keyings, batch_rows: int
) -> None:
    """Evaluate all versions in the source's table by the declared id, and all flags, as one new version.

    To be called if `lacking_versions` returns changes.

    Args:
        keyings: The declared keyings; the table's own are kept in addition.
    """
    scan = lake.scan(source.name)
    schema = scan.schema or pa.schema([])
    keyings = declared(source, {**keyings_of(schema), **keyings})
    duck.register(con, "landed", widened(scan, source))
    old = open_judged(con, source, schema)
    key = f"versions of version {scan.version}: {source.versioning}"
    rewrite_flagged(con, lake, source, keyings, old, batch_rows, key=key)


def open_judged(con: duckdb.DuckDBPyConnection, source: Source, schema: pa.Schema) -> list[pa.Field[pa.DataType]]:
    """Create the view `kept` of the relation `landed`, with all versions evaluated anew; return its columns, without
    flags.

    Args:
        schema: Of the table.
    """
    ours = (SUPERSEDED_AT, SUPERSEDED_BY)
    old = [column for column in schema if column.name not in ours and not column.name.startswith(RECORD_PREFIX)]
    rows = f"SELECT {_list([column.name for column in old], 'landed')} FROM landed"
    if source.versioning is not None:
        retracted = [] if source.retracted is None else [source.retracted]
        needed = _list([*dict.fromkeys((*source.id, *source.times, *retracted, VISIBLE_AT, SEQUENCE))])
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE versions AS SELECT {SEQUENCE}, {SUPERSEDED_AT}, {SUPERSEDED_BY} "
            f"FROM ({judged(source, f'SELECT {needed} FROM landed')})"
        )
        rows = f"SELECT * FROM ({rows}) JOIN versions USING ({SEQUENCE})"
        old += [column for column in landed_schema(source, {}) if column.name in ours]
    con.execute(f"CREATE OR REPLACE TEMP VIEW kept AS {rows}")
    return old


def _list(names: Iterable[str], table: str = "") -> str:
    return ", ".join(f"{table}.{quote_name(name)}" if table else quote_name(name) for name in names)
