"""Computed features, offline: expressions over features and request fields, evaluated by DuckDB on existing columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.expr import Node
from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import Schema
from mainspring.data.arrow import ARROW_TYPES
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import FeatureGroup, RequestFeatures, views_of
from mainspring.features.offline.observed import numbers

_ROW = "_i"


class Computed:
    """The computed features of one group.

    Attributes:
        name: The group's name.
        used: The names of the columns that the expressions read, sorted.

    Args:
        schema: The types of those columns.
        prefix: Prefix of those names in the columns' full names.
    """

    def __init__(self, name: str, expressions: Mapping[str, Node], schema: Schema, prefix: str = "") -> None:
        self.name = name
        self.expressions = expressions
        self.used = sorted(set().union(*map(columns_of, expressions.values())))
        self._schema = schema
        self._prefix = prefix

    @cached_property
    def sql(self) -> str:
        """SELECT the expressions from `known`, whose columns are the named ones and the row's number."""
        values = ", ".join(
            f"{to_sql(expr, self._schema)} AS {quote_name(name)}" for name, expr in self.expressions.items()
        )
        return f"SELECT {values} FROM known ORDER BY {_ROW}"

    @cached_property
    def _types(self) -> dict[str, pa.DataType]:
        return {name: ARROW_TYPES[dtype_of(expr, self._schema)] for name, expr in self.expressions.items()}

    def read(self, con: Any, known: Mapping[str, pa.ChunkedArray[Any]], rows: int) -> dict[str, pa.ChunkedArray[Any]]:
        """Return the features by full name, each of shape (rows,) and its own type.

        Args:
            con: A DuckDB connection, for its limits.
            known: Columns by full name, each of shape (rows,) and of its declared type.

        Raises:
            InvalidData: A column is missing.
        """
        missing = [name for name in self.used if self._prefix + name not in known]
        if missing:
            raise InvalidData(f"The observations lack {missing}, which features depend on.", fix="add the columns.")
        arrays: dict[str, Any] = {name: known[self._prefix + name] for name in self.used}
        con.register("known", pa.table({**arrays, _ROW: numbers(rows)}))
        found = con.sql(self.sql).to_arrow_table()
        con.unregister("known")
        return {f"{self.name}.{name}": _typed(found.column(name), kind) for name, kind in self._types.items()}


def computed_of(groups: Sequence[FeatureGroup], fields: Schema) -> list[Computed]:
    """Return the computed features of `groups` and of the views they read, in an order in which they can be computed.

    Args:
        fields: The types of the request's fields.
    """
    derived = [
        Computed(view.name, view.derived, layout_of(view).stored, f"{view.name}.")
        for view in views_of(groups)
        if view.derived
    ]
    asked = [
        Computed(group.name, group.features, request_schema(group, fields))
        for group in groups
        if isinstance(group, RequestFeatures)
    ]
    return derived + asked


def _typed(values: pa.ChunkedArray[Any], kind: pa.DataType) -> pa.ChunkedArray[Any]:
    return values if values.type == kind else values.cast(kind)
