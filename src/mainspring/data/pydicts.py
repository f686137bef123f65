"""Iterables of mappings, read column by column in the declared type if all values fit, else as text for checks by
row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.arrow_coercion import FAULT
from mainspring.data.model import Source
from mainspring.data.refusals import check_columns


def pieces(rows: Iterable[Any], source: Source, size: int) -> Iterator[pa.Table]:
    """Yield rows as tables with the source's columns; a key missing in a row is null.

    Raises:
        InvalidData: An item is not a mapping, or a column is missing from all of the first rows.
    """
    remaining = iter(rows)
    first = True
    while chunk := list(itertools.islice(remaining, size)):
        wrong = next((row for row in chunk if not isinstance(row, Mapping)), None)
        if wrong is not None:
            raise InvalidData(
                f"Source {source.name!r} was given a {type(wrong).__name__} as a row.", fix="give mappings."
            )
        if first:
            check_columns("the rows", list(dict.fromkeys(key for row in chunk for key in row)), source)
        first = False
        yield _piece(chunk, source)


def _piece(rows: list[Mapping[str, Any]], source: Source) -> pa.Table:
    columns: dict[str, pa.Array[Any]] = {}
    faults: list[str | None] = [None] * len(rows)
    for name, dtype in source.columns.items():
        values = [row.get(name) for row in rows]
        columns[name] = _column(values, dtype)
        if dtype is DType.String:  # any value has a text form, so the text would hide the wrong type
            for index, value in enumerate(values):
                if value is not None and not isinstance(value, str):
                    faults[index] = f"{name} is not a string"
    return pa.table({**columns, FAULT: pa.array(faults, pa.string())})


def _column(values: list[Any], dtype: DType) -> pa.Array[Any]:
    if all(value is None or _is(value, dtype) for value in values):
        try:
            return pa.array(values, ARROW_TYPES[dtype])
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _is(value: Any, dtype: DType) -> bool:
    """Return whether a value fits strictly: Arrow would silently accept a naive time as UTC, True as 1, and 1.5 as
    1.
    """
    if dtype is DType.String:
        return isinstance(value, str)
    if isinstance(value, (bool, np.bool_)):
        return dtype is DType.Boolean
    if dtype is DType.Timestamp:
        return isinstance(value, Integral) or (isinstance(value, datetime) and value.tzinfo is not None)
    return isinstance(value, Real if dtype in (DType.Float32, DType.Float64) else Integral)
