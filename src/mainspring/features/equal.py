"""Equality of two values of one feature, across the offline and the online read."""

from __future__ import annotations

import math
from typing import Any

_TOLERANCE = 1e-6  # relative; float32 results of another order of summation
_NEAR_ZERO = 1e-9


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal: floats to a relative 1e-6, NaN to NaN, true not to 1, null only to null."""
    if isinstance(left, float) or isinstance(right, float):
        if not (isinstance(left, (float, int)) and isinstance(right, (float, int))):
            return False
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return math.isclose(left, right, rel_tol=_TOLERANCE, abs_tol=_NEAR_ZERO)
    return type(left) is type(right) and bool(left == right)
