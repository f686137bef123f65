"""Computed features, offline: expressions over features and request fields, by DuckDB over columns that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.expr import Node
from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import Schema
from mainspring.data.arrow import ARROW_TYPES
from mainspring.features.offline.observed import numbers

_ROW = "_i"


def compute(
    con: Any, expressions: Mapping[str, Node], columns: Mapping[str, pa.ChunkedArray[Any]], schema: Schema, rows: int
) -> dict[str, pa.ChunkedArray[Any]]:
    """Return the expressions' values, each of shape (rows,) and of its own type.

    Args:
        con: A DuckDB connection, for its limits.
        columns: What the expressions name, each of shape (rows,) and of its type in `schema`.

    Raises:
        InvalidData: A column is missing.
    """
    used = sorted(set().union(*map(columns_of, expressions.values())))
    missing = [name for name in used if name not in columns]
    if missing:
        raise InvalidData(f"The observations lack {missing}, which features are computed from.", fix="add the columns.")
    arrays: dict[str, Any] = {name: columns[name] for name in used}
    table = pa.table({**arrays, _ROW: numbers(rows)})
    con.register("known", table)
    found = con.sql(compute_sql(expressions, schema)).to_arrow_table()
    con.unregister("known")
    return {name: _typed(found.column(name), ARROW_TYPES[dtype_of(expr, schema)]) for name, expr in expressions.items()}


def compute_sql(expressions: Mapping[str, Node], schema: Schema) -> str:
    """SELECT the expressions from `known`, whose columns are those they name and the row's number."""
    values = ", ".join(f"{to_sql(expr, schema)} AS {quote_name(name)}" for name, expr in expressions.items())
    return f"SELECT {values} FROM known ORDER BY {_ROW}"


def _typed(values: pa.ChunkedArray[Any], kind: pa.DataType) -> pa.ChunkedArray[Any]:
    return values if values.type == kind else values.cast(kind)
