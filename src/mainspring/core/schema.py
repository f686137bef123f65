"""Types of columns. Each has one name everywhere: in definitions, in the lake, in a request."""

from __future__ import annotations

from enum import Enum

from mainspring.core.errors import Invalid


class DType(Enum):
    """A column's type. Values are nullable unless a check says otherwise; `Timestamp` is UTC, in microseconds."""

    String = "string"
    Boolean = "boolean"
    Int32 = "int32"
    Int64 = "int64"
    Float32 = "float32"
    Float64 = "float64"
    Timestamp = "timestamp"
    Duration = "duration"  # in expressions only: a difference of timestamps, in microseconds

    def __repr__(self) -> str:
        return self.name

    @property
    def numeric(self) -> bool:
        return self in (DType.Int32, DType.Int64, DType.Float32, DType.Float64)


String = DType.String
"""Text."""
Boolean = DType.Boolean
"""True or false."""
Int32 = DType.Int32
"""Whole numbers of 32 bits."""
Int64 = DType.Int64
"""Whole numbers of 64 bits."""
Float32 = DType.Float32
"""Numbers of 32 bits, about 7 digits."""
Float64 = DType.Float64
"""Numbers of 64 bits, about 15 digits."""
Timestamp = DType.Timestamp
"""Instants: UTC, in microseconds."""

Schema = dict[str, DType]

_OF_COLUMNS = tuple(dtype for dtype in DType if dtype is not DType.Duration)


def check_schema(schema: Schema, owner: str) -> Schema:
    """Return `schema` if every name can be a column and every type is one of ours.

    Raises:
        Invalid: It is not a dict, a name begins with `_` (ours) or cannot be a name, or a type is not a `DType`.
    """
    given: object = schema  # what a project declares may be anything
    if not isinstance(given, dict):
        raise Invalid(
            f"{owner} has the columns {given!r}, of type {type(given).__name__}.",
            fix='write names with their types: {"id": ms.String, ...}.',
        )
    for name, dtype in schema.items():
        if not str.isidentifier(str(name)) or str(name).startswith("_"):
            raise Invalid(f"{owner} has a column {name!r}.", fix="use Python identifiers that do not start with '_'.")
        if dtype not in _OF_COLUMNS:
            raise Invalid(
                f"{owner} declares column {name!r} with the type {dtype!r}.", fix="use ms.String, ms.Float32, ..."
            )
    return schema
