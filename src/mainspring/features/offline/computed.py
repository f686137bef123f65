"""Computed features, offline: expressions over features and request fields, evaluated by DuckDB on existing columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.expr import Node
from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import Schema
from mainspring.core.time import MINUTE
from mainspring.data.arrow import ARROW_TYPES
from mainspring.features.functions.columns import compute
from mainspring.features.functions.model import FeatureFunction, RequestFunction, placeholder
from mainspring.features.functions.process import FunctionProcess
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import FeatureGroup, RequestFeatures, views_of
from mainspring.features.offline.observed import numbers

_ROW = "_i"
_LIMIT_US = 10 * MINUTE  # of a call on many rows; the limit of a function is for those of a request


class Computed:
    """The computed features of one group.

    Attributes:
        name: The group's name.
        used: The names of the columns that the expressions read, sorted.

    Args:
        schema: The types of those columns.
        prefix: Prefix of those names in the columns' full names.
        function: Computes the columns `NAME()` of the expressions from request fields.
    """

    def __init__(
        self,
        name: str,
        expressions: Mapping[str, Node],
        schema: Schema,
        prefix: str = "",
        function: FeatureFunction | None = None,
    ) -> None:
        self.name = name
        self._process = None if function is None else FunctionProcess(function, limit_us=_LIMIT_US)
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
            FunctionFailed: The group's function failed.
        """
        if self._process is not None:
            known = {**known, **self._outputs(self._process, known, rows)}
        missing = [name for name in self.used if self._prefix + name not in known]
        if missing:
            raise InvalidData(f"The observations lack {missing}, which features depend on.", fix="add the columns.")
        arrays: dict[str, Any] = {name: known[self._prefix + name] for name in self.used}
        con.register("known", pa.table({**arrays, _ROW: numbers(rows)}))
        found = con.sql(self.sql).to_arrow_table()
        con.unregister("known")
        return {f"{self.name}.{name}": _typed(found.column(name), kind) for name, kind in self._types.items()}

    @staticmethod
    def _outputs(
        process: FunctionProcess, known: Mapping[str, pa.ChunkedArray[Any]], rows: int
    ) -> dict[str, pa.ChunkedArray[Any]]:
        function = process.function
        missing = [name for name in function.columns if name not in known]
        if missing:
            raise InvalidData(f"The observations lack {missing}, which features depend on.", fix="add the columns.")
        inputs: dict[str, Any] = {name: known[name] for name in function.columns}
        given = pa.table(inputs)
        parts = [compute(process, given.slice(at, function.batch_rows)) for at in range(0, rows, function.batch_rows)]
        found = pa.concat_tables(parts) if parts else compute(process, given)
        return {placeholder(name): found.column(name) for name in function.outputs}


def computed_of(
    groups: Sequence[FeatureGroup], fields: Schema, needed: Collection[str] | None = None
) -> list[Computed]:
    """Return the computed features of `groups` and of the views they read, in an order in which they can be computed.

    Args:
        fields: The types of the request's fields.
        needed: Full names of features, of which the others are left out; by default none is.
    """

    def among(group: str, expressions: Mapping[str, Node]) -> Mapping[str, Node]:
        return {name: each for name, each in expressions.items() if needed is None or f"{group}.{name}" in needed}

    derived = [
        Computed(view.name, chosen, layout_of(view).stored, f"{view.name}.")
        for view in views_of(groups)
        if (chosen := among(view.name, view.derived))
    ]
    asked = [
        Computed(group.name, chosen, request_schema(group, fields), function=_function_of(group))
        for group in groups
        if isinstance(group, RequestFeatures) and (chosen := among(group.name, group.features))
    ]
    return derived + asked


def _function_of(group: RequestFeatures) -> FeatureFunction | None:
    return group.function if isinstance(group, RequestFunction) else None


def _typed(values: pa.ChunkedArray[Any], kind: pa.DataType) -> pa.ChunkedArray[Any]:
    return values if values.type == kind else values.cast(kind)
