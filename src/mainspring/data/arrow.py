"""Arrow types of Mainspring's column types, and the schemas of tables that ingestion fills."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import DType, Schema
from mainspring.data.model import (
    BATCH,
    REASON,
    RECORD_PREFIX,
    SEQUENCE,
    SUPERSEDED_AT,
    SUPERSEDED_BY,
    VISIBLE_AT,
    KeyValue,
    Source,
    TableScan,
)

if TYPE_CHECKING:
    import pyarrow.parquet as pq

INSTANT = pa.timestamp("us", tz="UTC")
Where = Mapping[str, Collection[KeyValue]]  # column -> values of rows; see `LakeTables.erase`

ARROW_TYPES: Mapping[DType, pa.DataType] = {
    DType.String: pa.string(),
    DType.Boolean: pa.bool_(),
    DType.Int32: pa.int32(),
    DType.Int64: pa.int64(),
    DType.Float32: pa.float32(),
    DType.Float64: pa.float64(),
    DType.Timestamp: INSTANT,
    DType.Duration: pa.int64(),
}

_KEYS = b"keys"  # metadata of a record-setting flag: its key columns
_TIMES = b"times"  # metadata of `_visible_at`: the time columns it was computed from
_ID, _RETRACTED = b"id", b"retracted"  # metadata of `_superseded_at`: the columns it was computed from


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema of Mainspring's column types."""
    return pa.schema([pa.field(name, ARROW_TYPES[dtype]) for name, dtype in schema.items()])


def expect_columns(where: Where) -> None:
    """Raise if a condition names no column, and so would hold for every row."""
    if not where:
        raise Invalid("An erasure names no column.", fix="name the columns and values of the rows to erase.")


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is of text; delta-rs writes views of it into files."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def fitting(values: Collection[KeyValue], kind: pa.DataType) -> list[KeyValue]:
    """Return the values that a column of a type can have."""
    if is_text(kind):
        return [each for each in values if isinstance(each, str)]
    if pa.types.is_boolean(kind):
        return [each for each in values if isinstance(each, bool)]
    if not pa.types.is_integer(kind) and not pa.types.is_timestamp(kind):
        return []
    limit = 1 << (kind.bit_width - 1)
    return [each for each in values if type(each) is int and -limit <= each < limit]


def matching(rows: pa.Table, where: Where) -> pa.ChunkedArray[Any]:
    """Return which rows of a table match."""
    import pyarrow.compute as pc

    found: pa.ChunkedArray[Any] = pa.chunked_array([pa.repeat(True, len(rows))])
    no_match: pa.ChunkedArray[Any] = pa.chunked_array([pa.repeat(False, len(rows))])
    for name, values in where.items():
        if name not in rows.column_names:
            return no_match
        kind = rows.schema.field(name).type
        column = rows[name].cast(pa.string()) if is_text(kind) else rows[name]
        found = pc.and_(found, pc.is_in(column, pa.array(fitting(values, kind), column.type)))
    return found


def no_rows(schema: pa.Schema) -> pa.Table:
    """Return an empty table. (`schema.empty_table()` imports pandas, which costs more than ingesting a small file.)"""
    return pa.Table.from_arrays([pa.nulls(0, column.type) for column in schema], schema=schema)


def landed_schema(source: Source, keyings: Mapping[str, tuple[str, ...]]) -> pa.Schema:
    """Return the schema of a source's table: its columns, the added columns, one record-setting flag per keying.

    For a source with an id also the time at which a version was superseded, and by which row.
    """
    schema = arrow_schema(source.columns)
    schema = schema.append(pa.field(VISIBLE_AT, INSTANT, metadata={_TIMES: ",".join(source.times).encode()}))
    schema = schema.append(pa.field(SEQUENCE, pa.int64())).append(pa.field(BATCH, pa.string()))
    for name, keys in keyings.items():
        metadata = {_KEYS: ",".join(keys).encode()}
        schema = schema.append(pa.field(RECORD_PREFIX + name, pa.bool_(), metadata=metadata))
    if source.versioning is not None:
        by = {_ID: ",".join(source.id).encode(), _RETRACTED: (source.retracted or "").encode()}
        schema = schema.append(pa.field(SUPERSEDED_AT, INSTANT, metadata=by))
        schema = schema.append(pa.field(SUPERSEDED_BY, pa.int64()))
    return schema


def keyings_of(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the keyings whose flags a table has, from its schema."""
    found = {}
    for column in schema:
        keys = (column.metadata or {}).get(_KEYS)
        if column.name.startswith(RECORD_PREFIX) and keys is not None:
            found[column.name.removeprefix(RECORD_PREFIX)] = tuple(keys.decode().split(","))
    return found


def versioning_of(schema: pa.Schema) -> tuple[tuple[str, ...], str | None] | None:
    """Return the `Source.versioning` of a table's superseding columns; `None` if its rows are not versions."""
    index = schema.get_field_index(SUPERSEDED_AT)
    if index < 0:
        return None
    by = schema.field(index).metadata or {}
    return tuple(by.get(_ID, b"").decode().split(",")), by.get(_RETRACTED, b"").decode() or None


def times_of(schema: pa.Schema) -> tuple[str, ...] | None:
    """Return the time columns by which a table was ingested: event time and, if declared, recorded time."""
    index = schema.get_field_index(VISIBLE_AT)
    times = None if index < 0 else (schema.field(index).metadata or {}).get(_TIMES)
    return None if times is None else tuple(times.decode().split(","))


def widened(scan: TableScan, source: Source) -> TableScan:
    """Return a scan that adds, as nulls, the columns that the source got after the table was made.

    Raises:
        InvalidData: A column's type differs between source and table.
    """
    schema = scan.schema or pa.schema([])
    declared = arrow_schema(source.columns)
    check_types(source.name, schema, declared)
    return replace(scan, schema=pa.unify_schemas([schema, declared]))


def quarantine_schema(source: Source) -> pa.Schema:
    """Return the schema of the quarantine: every column as received text, the reason, and the batch position."""
    text = pa.schema([pa.field(name, pa.string()) for name in (*source.columns, REASON)])
    return text.append(pa.field(SEQUENCE, pa.int64())).append(pa.field(BATCH, pa.string()))


def schema_changes(old: pa.Schema, new: pa.Schema) -> tuple[str, ...]:
    """Return the differences of two schemas, a line each: `+ gate string`, `seats int32 -> int64`, `- wing`."""
    lines = []
    for column in new:
        index = old.get_field_index(column.name)
        if index < 0:
            lines.append(f"+ {column.name} {column.type}")
        elif not old.field(index).type.equals(column.type):
            lines.append(f"{column.name} {old.field(index).type} -> {column.type}")
    return (*lines, *(f"- {column.name}" for column in old if column.name not in new.names))


def check_types(table: str, old: pa.Schema, new: pa.Schema) -> None:
    """Raise `InvalidData` if a column has different types in `new` and `old`."""
    for column in new:
        index = old.get_field_index(column.name)
        if index >= 0 and not old.field(index).type.equals(column.type):
            raise InvalidData(
                f"Column {column.name!r} of table {table!r} is {old.field(index).type}, not {column.type}.",
                fix="declare the table's type, or ingest the rows into a source with another name.",
            )


def parquet_batches(file: pq.ParquetFile, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows in batches of up to `rows`, with bounded memory.

    An iteration of `ParquetFile` retains the bytes of every row group until its end. So each iteration covers row
    groups with about `rows` rows in total: one over the whole file would grow to the file's size.
    """
    groups: list[int] = []
    count = 0
    for number in range(file.num_row_groups):
        groups.append(number)
        count += file.metadata.row_group(number).num_rows
        if count >= rows or number == file.num_row_groups - 1:
            yield from file.iter_batches(batch_size=rows, row_groups=groups, columns=columns, use_threads=False)
            groups, count = [], 0
