"""Rows to enrich with features: required columns, types, times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.expr import evaluate
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import parse_instant
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.features.model import Observations
from mainspring.features.offline.observed import AT
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.frames import as_arrow


class Rows:
    """Rows for some features.

    Attributes:
        given: The rows as given, with all columns.
        read: The same with instants parsed from text, and a column `at` if `with_times` added it.
        schema: Types of the columns that the features read.

    Args:
        name: Name of the rows in errors.

    Raises:
        InvalidData: A column is missing, or has a type that features cannot have.
    """

    def __init__(self, choice: Choice, rows: Any, name: str) -> None:
        self._choice = choice
        self._name = name
        self.given = as_arrow(rows, name)
        self._check_columns()
        self.schema: Schema = {
            **{field: dtype or _dtype(self.given, field) for field, dtype in choice.fields.items()},
            **choice.keys,
        }
        self.read = self.given
        for column, dtype in self.schema.items():
            if dtype is DType.Timestamp and _is_text(self.given.column(column).type):
                place = self.read.schema.get_field_index(column)
                self.read = self.read.set_column(place, column, self._exact(column))

    @property
    def at(self) -> str:
        """A name for the column of times that no column of the rows has."""
        return AT if AT not in self.given.column_names else "_at_asked"

    def with_times(self, at: str | None) -> str:
        """Add the column `self.at` of instants to `read`; return the name of the column of times in the result.

        Args:
            at: The column with the times; `None` for the rule of the model's observations.

        Raises:
            Invalid: There is neither a column nor a rule.
            InvalidData: The times are naive, or not instants.
        """
        if at is not None and at not in self.given.column_names:
            raise InvalidData(
                f"{self._name} have no column {at!r}.", fix=f"name a column of instants: at= one of {self._instants}."
            )
        if at is None and self._choice.model is None:
            fix = f"say at={self._instants[0]!r}." if self._instants else "add a column of instants, and name it: at=."
            raise Invalid(f"The time column of {self._name.lower()} is not named.", fix=fix)
        model = self._choice.model
        if at is not None:
            times = self._exact(at)
        else:
            assert model is not None
            times = self._by_rule(model.observations)
        self.read = self.read.append_column(self.at, times)
        return self.at if at is None else at

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns that the features read as plain values, instants as UTC epoch microseconds."""
        return {name: plain(self.read.column(name)) for name in self._choice.needed}

    def _check_columns(self) -> None:
        given = self.given.column_names
        missing = [column for column in self._choice.needed if column not in given]
        if missing:
            kind = "key column" if missing[0] in self._choice.keys else "field"
            raise InvalidData(
                f"{self._name} lack the {kind} {missing[0]!r} of {self._choice.title}; they have {given}.",
                fix=f"give the columns {self._choice.needed}.",
            )
        clashing = [name for name in self._choice.columns if name in given]
        if clashing:
            raise InvalidData(f"{self._name} already have a column {clashing[0]!r}.", fix="rename or drop it.")

    @property
    def _instants(self) -> list[str]:
        """The columns that may contain the time."""
        return [field.name for field in self.given.schema if pa.types.is_timestamp(field.type)]

    def _exact(self, name: str) -> pa.ChunkedArray[Any]:
        """Return a column's instants; text is read as ISO 8601 with an offset."""
        column = self.given.column(name)
        kind = column.type
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return column
        if pa.types.is_timestamp(kind):
            raise InvalidData(
                f"Column {name!r} of {self._name.lower()} is {kind}: it has no time zone, so it is not an instant.",
                fix=f"pandas: df[{name!r}].dt.tz_localize('UTC'); Polars: pl.col({name!r}).dt.replace_time_zone('UTC');"
                " or the zone of the clock that wrote it.",
            )
        if pa.types.is_null(kind):
            return column.cast(INSTANT)
        if not _is_text(kind):
            raise InvalidData(
                f"Column {name!r} of {self._name.lower()} is {kind}, not instants.",
                fix="give timestamps with a zone, or ISO 8601 text with an offset.",
            )
        try:
            instants = [None if text is None else parse_instant(text) for text in column.to_pylist()]
        except Invalid as error:
            raise InvalidData(f"Column {name!r} of {self._name.lower()}: {error.what}", fix=error.fix) from None
        return pa.chunked_array([pa.array(instants, INSTANT)])

    def _by_rule(self, observations: Observations) -> pa.ChunkedArray[Any]:
        """Return the instants at which the model's predictions are made."""
        schema = observations.source.columns
        used = sorted(columns_of(observations.at))
        missing = [name for name in used if name not in self.given.column_names]
        if missing:
            raise InvalidData(
                f"{self._name} lack {missing[0]!r}, the time column of the model's observations.",
                fix="add it, or name another column of instants with at=.",
            )
        vectors: Mapping[str, evaluate.Vector] = {
            name: evaluate.vector(
                plain(self._exact(name) if schema[name] is DType.Timestamp else self.given.column(name)), schema[name]
            )
            for name in used
        }
        found = evaluate.evaluate(observations.at, vectors, schema, self.given.num_rows)
        return pa.chunked_array([pa.array(found.to_list(), INSTANT)])


def plain(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Return Python values; instants as UTC epoch microseconds."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(INSTANT).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _dtype(given: pa.Table, name: str) -> DType:
    """Return the type of a field that no observations declare, from the rows."""
    kind = given.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind) or pa.types.is_null(kind):
        return DType.String
    if pa.types.is_timestamp(kind):
        return DType.Timestamp
    known = {arrow: dtype for dtype, arrow in ARROW_TYPES.items() if dtype is not DType.Duration}
    if kind not in known:
        raise InvalidData(f"Column {name!r} is {kind}, which cannot be a feature.", fix="cast it.")
    return known[kind]
