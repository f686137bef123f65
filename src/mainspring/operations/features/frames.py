"""Conversion of rows from and to Arrow, pandas, Polars and dictionaries.

pandas and Polars are imported only if one of their frames is given or requested.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from mainspring.core.errors import Invalid, InvalidData, MissingExtra

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Kind = Literal["arrow", "pandas", "polars"]
KINDS = ("arrow", "pandas", "polars")


def as_arrow(rows: Any, name: str) -> pa.Table:
    """Return rows as an Arrow table, in their order.

    Args:
        rows: An Arrow table or batch, a pandas or Polars frame, any object with Arrow's stream protocol (a DuckDB
            relation), a list of dictionaries, or one dictionary of columns.
        name: Name of the rows in errors.

    Raises:
        Invalid: They have another type.
        InvalidData: Two columns have the same name, or a column's values have several types.
    """
    table = _read(rows, name)
    twice = sorted({column for column in table.column_names if table.column_names.count(column) > 1})
    if twice:
        raise InvalidData(f"{name} have several columns named {twice[0]!r}.", fix="rename all but one.")
    return table.replace_schema_metadata(None)


def _read(rows: Any, name: str) -> pa.Table:
    try:
        if isinstance(rows, pa.Table):
            return rows
        if isinstance(rows, pa.RecordBatch):
            return pa.Table.from_batches([rows])
        if _is_frame(rows, "pandas"):
            return _from_pandas(rows, name)
        if isinstance(rows, Mapping):
            return pa.table({str(column): values for column, values in rows.items()})
        if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
            return _from_dictionaries(rows, name)
        if hasattr(rows, "__arrow_c_stream__"):
            return pa.table(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise InvalidData(
            f"{name} cannot be read: {' '.join(str(error).split())[:300]}", fix="give each column values of one type."
        ) from None
    raise Invalid(
        f"{name} are a {type(rows).__module__.partition('.')[0]} {type(rows).__name__}.",
        fix="give an Arrow table, a pandas or Polars frame (a LazyFrame: collect() it), or a list of dictionaries.",
    )


def _is_frame(rows: Any, library: str) -> bool:
    module = sys.modules.get(library)  # the caller of a library's frame has imported the library
    return module is not None and isinstance(rows, module.DataFrame)


def _from_pandas(frame: pd.DataFrame, name: str) -> pa.Table:
    columns: list[Any] = list(frame.columns)
    wrong = [column for column in columns if not isinstance(column, str)]
    if wrong:
        raise InvalidData(f"{name} have a column named {wrong[0]!r}, which is not text.", fix="rename it.")
    if len(set(columns)) < len(columns):  # pandas knows the column, Arrow does not
        twice = next(column for column in columns if columns.count(column) > 1)
        raise InvalidData(f"{name} have several columns named {twice!r}.", fix="rename all but one.")
    return pa.Table.from_pandas(frame, preserve_index=False)


def _from_dictionaries(rows: Sequence[Any], name: str) -> pa.Table:
    if not rows:
        raise InvalidData(f"{name} are an empty list, which has no columns.", fix="give at least one row.")
    wrong = next((row for row in rows if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise Invalid(f"{name} contain {wrong!r}, which is not a row.", fix='give dictionaries: [{"origin": "EWR"}].')
    columns: dict[str, None] = {str(column): None for row in rows for column in row}
    return pa.table({column: pa.array([row.get(column) for row in rows]) for column in columns})


def index_of(rows: Any) -> Any:
    """Return a pandas frame's index unless it is just the row number, else `None`."""
    if not _is_frame(rows, "pandas") or isinstance(rows.index, sys.modules["pandas"].RangeIndex):
        return None
    return rows.index


def check_kind(kind: str | None) -> None:
    """Raise `Invalid` for an unknown kind of frame, `MissingExtra` for one whose library is not installed."""
    if kind is None or kind == "arrow":
        return
    if kind not in KINDS:
        raise Invalid(f"as_={kind!r} is not a kind of frame.", fix=f"use one of {', '.join(map(repr, KINDS))}.")
    _library(kind)


def to_pandas(table: pa.Table, index: Any = None) -> pd.DataFrame:
    """Return a pandas frame. Integers and booleans with nulls keep their type, as pandas' nullable ones."""
    pandas = _library("pandas")
    nullable = {
        pa.int32(): pandas.Int32Dtype(),
        pa.int64(): pandas.Int64Dtype(),
        pa.bool_(): pandas.BooleanDtype(),
    }
    frame = table.to_pandas()
    for name in table.column_names:
        column = table.column(name)
        if column.null_count and column.type in nullable:
            frame[name] = column.to_pandas(types_mapper=nullable.get)
    if index is not None:
        frame.index = index
    return frame


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Return a Polars frame."""
    return _library("polars").from_arrow(table)


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError:
        raise MissingExtra(f"A {name} frame", "sklearn" if name == "pandas" else name) from None
