"""Schema evolution: adapts a source's table to its changed declaration.

Lossless changes are applied: a new column, null in existing rows, and a wider numeric type. Changes that would alter
the meaning of rows are refused: other time columns, which decide visibility and rank, or another type. A column that is
no longer declared stays in the table, null in new rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.arrow import arrow_schema, schema_changes, times_of
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source
from mainspring.data.ports import LakeTables

if TYPE_CHECKING:
    import duckdb

_WIDER = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}
_ANEW = "give the source another name, and ingest its data again."


@dataclass(frozen=True, slots=True)
class Evolution:
    """Changes that a table needs; `lines` describes them, as `data.arrow.schema_changes` does."""

    added: tuple[str, ...]
    widened: Mapping[str, pa.DataType]
    lines: tuple[str, ...]


def evolution(table: pa.Schema, source: Source) -> Evolution:
    """Return the changes that adapt a table of this schema to the source's declaration.

    Raises:
        InvalidData: The table cannot be adapted.
    """
    _check_times(table, source)
    cases = {name.casefold(): name for name in table.names}
    added, widened = [], {}
    for column in arrow_schema(source.columns):
        there = cases.get(column.name.casefold())
        if there is None:
            added.append(column.name)
            continue
        if there != column.name:
            raise InvalidData(
                f"Source {source.name!r} declares {column.name!r}, but its table has {there!r}: tables are "
                "case-insensitive.",
                fix=f"declare {there!r}.",
            )
        kind = table.field(there).type
        if kind.equals(column.type):
            continue
        if _WIDER.get(kind) != column.type:
            raise InvalidData(
                f"Column {column.name!r} of table {source.name!r} is {kind}, not {column.type}.",
                fix=f"declare the table's type, or {_ANEW}",
            )
        widened[column.name] = column.type
    declared = arrow_schema(source.columns)
    kept = pa.schema([column for column in table if column.name in declared.names])
    return Evolution(tuple(added), widened, schema_changes(kept, declared))


def _check_times(table: pa.Schema, source: Source) -> None:
    lacking = [name for name in (*source.times, VISIBLE_AT, SEQUENCE) if name not in table.names]
    if lacking:
        raise InvalidData(
            f"Table {source.name!r} has no column {lacking[0]!r}, so it was not ingested from the current "
            "declaration of this source.",
            fix=_ANEW,
        )
    landed_by = times_of(table)
    if landed_by is not None and landed_by != source.times:
        raise InvalidData(
            f"The rows of table {source.name!r} were ingested with the times {', '.join(landed_by)}, but the "
            f"source declares {', '.join(source.times)}.",
            fix=f"declare the table's times, or {_ANEW}",
        )


def evolve(con: duckdb.DuckDBPyConnection, lake: LakeTables, source: Source, batch_rows: int) -> tuple[str, ...]:
    """Adapt the source's table, in one version, and return the changes, a line each.

    New columns rewrite no file. A wider type rewrites every row, in bounded memory.
    """
    version = lake.version(source.name)
    if version is None:
        return ()
    scan = lake.scan(source.name, version)
    schema = scan.schema or pa.schema([])
    needed = evolution(schema, source)
    if not needed.lines:
        return ()
    declared = arrow_schema(source.columns)
    target = pa.schema([*(_typed(column, needed) for column in schema), *(declared.field(n) for n in needed.added)])
    key = f"columns of version {version}: {'; '.join(needed.lines)}"
    if not needed.widened:
        lake.append(source.name, [], target, key=key)
        return needed.lines
    duck.register(con, "evolving", scan)
    names = [quote_name(column.name) if column.name in schema.names else "NULL" for column in target]
    query = f"SELECT {', '.join(names)} FROM evolving ORDER BY {VISIBLE_AT}, {SEQUENCE}"
    reader = con.sql(query).to_arrow_reader(batch_rows)
    lake.replace(source.name, _cast(reader, target), target, key=key)
    return needed.lines


def _typed(column: pa.Field[pa.DataType], needed: Evolution) -> pa.Field[pa.DataType]:
    return column.with_type(needed.widened.get(column.name, column.type))


def _cast(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield from pa.Table.from_batches([batch]).rename_columns(schema.names).cast(schema).to_batches()
