"""A column of a batch: values and where they are not null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.core.time import from_datetime

Array = npt.NDArray[Any]

NUMPY_TYPES: Mapping[DType, Any] = {
    DType.String: np.object_,
    DType.Boolean: np.bool_,
    DType.Int32: np.int32,
    DType.Int64: np.int64,
    DType.Float32: np.float32,
    DType.Float64: np.float64,
    DType.Timestamp: np.int64,
    DType.Duration: np.int64,
}
_NONE = type(None)
_ACCEPTED: Mapping[DType, frozenset[type]] = {
    DType.String: frozenset((str, _NONE)),
    DType.Boolean: frozenset((bool, _NONE)),
    DType.Int32: frozenset((int, _NONE)),
    DType.Int64: frozenset((int, _NONE)),
    DType.Float32: frozenset((float, int, _NONE)),
    DType.Float64: frozenset((float, int, _NONE)),
    DType.Timestamp: frozenset((int, datetime, _NONE)),
    DType.Duration: frozenset((int, _NONE)),
}
_FILL: Mapping[DType, Any] = {dtype: "" if dtype is DType.String else 0 for dtype in DType}


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """Values of one type, shape (rows,), and `valid`, shape (rows,): False where the value is null.

    What `values` holds at a null is arbitrary, of the right type. Strings are `object`, times are int64 microseconds.
    """

    values: Array
    valid: Array

    def to_list(self) -> list[Any]:
        """Return plain Python values, None for null."""
        if self.valid.all():
            return list(self.values.tolist())
        pairs = zip(self.values.tolist(), self.valid.tolist(), strict=True)
        return [value if valid else None for value, valid in pairs]


def vector(values: Sequence[Any], dtype: DType) -> Vector:
    """Return plain Python values (None for null) as a vector.

    Timestamps are ints (UTC epoch microseconds) or aware datetimes; an int may stand for a float.

    Raises:
        InvalidData: A value is of another type or does not fit; the message names it.
    """
    found = set(map(type, values))
    if not found <= _ACCEPTED[dtype]:
        wrong = next(value for value in values if type(value) not in _ACCEPTED[dtype])
        raise InvalidData(f"{wrong!r} of type {type(wrong).__name__} is not a {dtype!r}.")
    if datetime in found:
        values = [from_datetime(value) if isinstance(value, datetime) else value for value in values]
    if _NONE in found:
        valid = np.array([value is not None for value in values], dtype=np.bool_)
        fill = _FILL[dtype]
        values = [fill if value is None else value for value in values]
    else:
        valid = np.ones(len(values), dtype=np.bool_)
    try:
        if dtype is DType.Float32:
            with np.errstate(over="raise"):
                return Vector(np.array(values, dtype=np.float64).astype(np.float32), valid)
        return Vector(np.array(values, dtype=NUMPY_TYPES[dtype]), valid)
    except (OverflowError, FloatingPointError):
        raise InvalidData(f"{max(values, key=abs)!r} does not fit {dtype!r}.") from None
