"""Types of a warehouse's columns, as they are read: one of each kind.

Text, Booleans, whole numbers of 64 bits, floats of 64 bits, instants in UTC and times without a zone in microseconds,
dates, and decimals. Each type of the lake comes back equal; whole numbers and floats of 32 bits as 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Invalid, InvalidData
from mainspring.data.arrow import INSTANT, is_text

WALL_CLOCK = pa.timestamp("us")


def read_as(kind: pa.DataType) -> pa.DataType | None:
    """Return the type as which a column of an Arrow type is read; `None` if it is not."""
    if pa.types.is_dictionary(kind):
        return read_as(kind.value_type)
    if is_text(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind):
        return WALL_CLOCK if kind.tz is None else INSTANT
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_decimal(kind):
        return pa.int64() if kind.scale == 0 else kind
    return kind if pa.types.is_boolean(kind) else None


def schema_read(found: pa.Schema) -> pa.Schema:
    """Return the schema in which the columns of a result are read.

    Raises:
        Invalid: A column has another type, or two have one name.
    """
    read = [(field, read_as(field.type)) for field in found]
    for field, kind in read:
        if kind is None:
            raise Invalid(
                f"Column {field.name!r} of the statement is of type {field.type}, which is not read.",
                fix="leave it out, or cast it there: to text, a number, a timestamp.",
            )
        if found.names.count(field.name) > 1:
            raise Invalid(f"The statement has two columns {field.name!r}.", fix="give one of them another name.")
    return pa.schema([(field.name, kind) for field, kind in read if kind is not None])


def converted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the columns cast to those of a schema, by position.

    Raises:
        InvalidData: A value does not fit.
    """
    columns = [_column(column, field) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(column: pa.Array[Any], field: pa.Field[Any]) -> pa.Array[Any]:
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # truncated, as everywhere
        # Convert to UTC first: truncating local time fails where clocks were set back.
        zone = None if column.type.tz is None else "UTC"
        column = pc.floor_temporal(column.cast(pa.timestamp("ns", zone)), unit="microsecond")
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise InvalidData(
            f"Column {field.name!r} has a value that is not of type {field.type}: {error}",
            fix="cast it in the statement, or in a view there.",
        ) from None


def reader(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatchReader:
    """Return a reader of converted batches, without empty ones."""
    return pa.RecordBatchReader.from_batches(schema, (converted(each, schema) for each in batches if each.num_rows))
