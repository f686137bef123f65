"""Constants of an expression: which type one has, and which types hold it exactly."""

from __future__ import annotations

import math
import struct

from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT

_BITS = {DType.Int32: 32, DType.Int64: 64, DType.Duration: 64}


def own_type(value: bool | int | float | str) -> DType:
    kinds = {bool: DType.Boolean, int: DType.Int64, float: DType.Float64, str: DType.String}
    return kinds[type(value)]


def fit(value: bool | int | float | str, dtype: DType) -> bool | int | float | str | None:
    """Return the value as a constant of the type, `None` where the type does not hold it exactly."""
    if isinstance(value, str):
        return value if dtype is DType.String and not _has_surrogate(value) else None
    if isinstance(value, bool):
        return value if dtype is DType.Boolean else None
    if dtype in (DType.Float32, DType.Float64):
        try:
            number = float(value)
            kept = struct.unpack("f", struct.pack("f", number))[0] if dtype is DType.Float32 else number
        except OverflowError:
            return None
        return number if math.isfinite(number) and kept == value else None
    if isinstance(value, float):
        return None
    if dtype is DType.Timestamp:
        return value if FIRST_INSTANT <= value <= LAST_INSTANT else None
    limit = 1 << (_BITS[dtype] - 1) if dtype in _BITS else 0
    return value if -limit <= value < limit else None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
