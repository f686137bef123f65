"""Keyings, the key columns by which rows are ranked, and the flags of a keying added to existing rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.arrow import keyings_of, landed_schema, widened
from mainspring.data.flags import counting, present
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, Source
from mainspring.data.ports import LakeTables

if TYPE_CHECKING:
    import duckdb

Keyings = Mapping[str, tuple[str, ...]]  # entity name -> its key columns


def check_keyings(source: Source, keyings: Keyings) -> Keyings:
    """Return `keyings` if the source has their columns.

    Raises:
        Invalid: The source lacks a column, a keying has no columns, or two names differ only in case.
    """
    for name, keys in keyings.items():
        missing = [key for key in keys if key not in source.columns]
        if missing or not keys:
            raise Invalid(
                f"Entity {name!r} has the keys {list(keys)}; source {source.name!r} lacks {missing or 'any'}.",
                fix=f"the source has {sorted(source.columns)}.",
            )
    if len({name.casefold() for name in keyings}) < len(keyings):
        raise Invalid(
            f"The entities {sorted(keyings)} include two that differ in case only.", fix="rename one of them."
        )
    return keyings


def keyings_there(lake: LakeTables, source: Source) -> dict[str, tuple[str, ...]]:
    """Return the keyings whose flags the source's table has; none if there is no table."""
    if lake.version(source.name) is None:
        return {}
    return keyings_of(lake.scan(source.name).schema or pa.schema([]))


def declared(source: Source, keyings: Keyings) -> Keyings:
    """Return the keyings whose columns the source still declares; a table keeps the flags of the others."""
    return {name: keys for name, keys in keyings.items() if set(keys) <= set(source.columns)}


def lacking(lake: LakeTables, source: Source, keyings: Keyings) -> dict[str, tuple[str, ...]]:
    """Return the keyings whose flags the table lacks, or has for other columns."""
    there = keyings_there(lake, source)
    return {name: tuple(keys) for name, keys in keyings.items() if there.get(name) != tuple(keys)}


def complete_keyings(
    con: duckdb.DuckDBPyConnection, lake: LakeTables, source: Source, keyings: Keyings, batch_rows: int
) -> int | None:
    """Compute the flags that the source's table lacks, or has for other columns; return the new version, if any."""
    missing = lacking(lake, source, keyings)
    version = lake.version(source.name)
    if version is None or not missing:
        return None
    scan = lake.scan(source.name)
    duck.register(con, "kept", widened(scan, source))
    replaced = {RECORD_PREFIX + name for name in missing}
    old = [column for column in (scan.schema or ()) if column.name not in replaced]
    key = f"keyings of version {version}: {sorted(missing.items())}"
    return rewrite_flagged(con, lake, source, missing, old, batch_rows, key=key)


def rewrite_flagged(
    con: duckdb.DuckDBPyConnection,
    lake: LakeTables,
    source: Source,
    keyings: Keyings,
    old: Sequence[pa.Field[pa.DataType]],
    batch_rows: int,
    *,
    key: str,
) -> int | None:
    """Rewrite the table from the relation `kept`: the columns `old`, and newly computed flags of `keyings`."""
    reader, schema = flagged(con, source, keyings, old, batch_rows)
    return lake.replace(source.name, reader, schema, key=key)


def flagged(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    keyings: Keyings,
    old: Sequence[pa.Field[pa.DataType]],
    batch_rows: int,
) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """Return the rows of the relation `kept` with the columns `old` and newly computed flags, and their schema."""
    joins, flags = "", []
    standing = f"{SUPERSEDED_AT} IS NULL" if any(column.name == SUPERSEDED_AT for column in old) else "true"
    for index, (name, keys) in enumerate(keyings.items()):
        needed = dict.fromkeys((*keys, *source.times, VISIBLE_AT, SEQUENCE))
        rows = f"SELECT {', '.join(map(quote_name, needed))} FROM kept WHERE {present(keys)} AND {standing}"
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE flagged_{index} AS
            SELECT {SEQUENCE}, _counts FROM ({counting(source, rows, keys)})""")
        joins += f" LEFT JOIN flagged_{index} ON kept.{SEQUENCE} = flagged_{index}.{SEQUENCE}"
        flags.append(f"coalesce(flagged_{index}._counts, false) AS {quote_name(RECORD_PREFIX + name)}")
    new = [column for column in landed_schema(source, keyings) if column.name.startswith(RECORD_PREFIX)]
    schema = pa.schema([*old, *new])
    columns = [f"kept.{quote_name(column.name)}" for column in old]
    reader = con.sql(f"""
        SELECT {", ".join([*columns, *flags])} FROM kept{joins}
        ORDER BY kept.{VISIBLE_AT}, kept.{SEQUENCE}""").to_arrow_reader(batch_rows)
    return _cast(reader, schema), schema


def _cast(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield from pa.Table.from_batches([batch]).cast(schema).to_batches()
