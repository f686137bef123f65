"""Compatibility of Arrow types with Mainspring's, and the canonical form of received columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.data.arrow import INSTANT

FAULT = "_fault"  # column added by readers: fault of the received row, mostly null
BELOW = "_below_"  # prefix + column: nanoseconds that its times lose, if any
DETAIL = "\x1e"  # separates a fault from its row-specific detail, which is not counted


def fits(kind: pa.DataType, dtype: DType) -> bool:
    """Return whether an Arrow type may hold values of a Mainspring type; text may hold any, judged row by row."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or is_text(kind):
        return True
    if dtype.numeric:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
    if dtype is DType.Boolean:
        return bool(pa.types.is_boolean(kind))
    if dtype is DType.Timestamp:
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
    return False


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def plain(column: pa.ChunkedArray[Any], name: str) -> pa.ChunkedArray[Any]:
    """Convert a column that `fits` to text, booleans, integers, floats or UTC microseconds.

    Raises:
        InvalidData: A time is out of range for microseconds, or text is not UTF-8.
    """
    found = _plain(column, name)
    if pa.types.is_string(found.type):
        try:
            found.validate(full=True)
        except pa.ArrowInvalid:
            raise InvalidData(f"Column {name!r} has text that is not UTF-8.", fix="write it in UTF-8.") from None
    return found


def _plain(column: pa.ChunkedArray[Any], name: str) -> pa.ChunkedArray[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
        kind = kind.value_type
    if pa.types.is_null(kind) or pa.types.is_decimal(kind) or (is_text(kind) and not pa.types.is_string(kind)):
        return pc.cast(column, pa.string())
    if pa.types.is_float16(kind):
        return pc.cast(column, pa.float32())
    if pa.types.is_date(kind):  # a date means midnight UTC, as in core.time
        return _instants(column, pa.timestamp("us"), name).cast(INSTANT)
    if pa.types.is_timestamp(kind):
        return _instants(column, INSTANT, name)
    return column


def whole_microseconds(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Return times truncated to microseconds, Mainspring's resolution."""
    if getattr(column.type, "unit", "us") != "ns":
        return column
    # Convert to UTC first: truncating local time fails where clocks were set back.
    zone = None if column.type.tz is None else "UTC"
    return pc.floor_temporal(column.cast(pa.timestamp("ns", zone)), unit="microsecond")


def below_microsecond(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any] | None:
    """Return the nanoseconds that `whole_microseconds` drops, null where zero; None if the type has no nanoseconds."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if not pa.types.is_timestamp(column.type) or column.type.unit != "ns":
        return None
    numbers = column.cast(pa.int64())
    dropped: pa.ChunkedArray[Any] = pc.subtract(numbers, whole_microseconds(column).cast(pa.int64()))
    some: pa.ChunkedArray[Any] = pc.if_else(pc.cast(dropped, pa.bool_()), dropped, pa.scalar(None, pa.int64()))
    return some


def _instants(column: pa.ChunkedArray[Any], kind: pa.DataType, name: str) -> pa.ChunkedArray[Any]:
    column = whole_microseconds(column)
    try:
        return pc.cast(column, kind)
    except pa.ArrowInvalid:
        raise InvalidData(
            f"Column {name!r} has an instant outside the range of microseconds since 1970.",
            fix="set it to null.",
        ) from None


def without_nothing(rows: pa.Table) -> pa.Table:
    """Return rows without `BELOW` columns that are entirely null."""
    return rows.drop_columns(
        [name for name in rows.column_names if name.startswith(BELOW) and rows[name].null_count == len(rows)]
    )


def together(pieces: Sequence[pa.Table]) -> pa.Table:
    """Concatenate pieces with the same columns; a column whose type differs among them becomes text."""
    differing = [
        name for name in pieces[0].column_names if len({piece.schema.field(name).type for piece in pieces}) > 1
    ]
    for name in differing:
        index = pieces[0].column_names.index(name)
        pieces = [piece.set_column(index, name, piece[name].cast(pa.string())) for piece in pieces]
    return pa.concat_tables(pieces)
