"""Type rules of stored features. `features.layout` applies them once per view."""

from __future__ import annotations

import math
import struct

from mainspring.core.errors import Invalid
from mainspring.core.expr import types as expr_types
from mainspring.core.schema import DType
from mainspring.features.model import FeatureView

AVERAGING = ("sum", "mean", "variance", "std", "quantile")
COUNTING = ("count", "distinct")
COUNTABLE = (DType.String, DType.Boolean, DType.Int32, DType.Int64, DType.Timestamp)
_SINGLE = struct.Struct("<f")
KINDS = ("last", *COUNTING, *AVERAGING, "min", "max", "first", "newest", "top")


def stored_dtype(view: FeatureView, feature: str) -> DType:
    """Return the type of a stored feature.

    A count, also of distinct values, is Int64; last, first, newest, top, min and max have their expression's type; sum,
    mean, variance, std and quantile are Float32, or Float64 if the expression is Float64 or Int64, whose values Float32
    cannot represent.

    Raises:
        Invalid: The expression names an unknown column, or its type does not match the aggregation.
    """
    name, aggregation = f"{view.name}.{feature}", view.features[feature]
    if aggregation.kind == "count":
        return DType.Int64
    if aggregation.of is None:
        raise Invalid(f"{name} is a {aggregation.kind} without an input.", fix="name a column or an expression.")
    dtype = expr_types.dtype_of(aggregation.of, view.source.columns)
    if aggregation.kind in AVERAGING:
        if not dtype.numeric and dtype != DType.Boolean:
            raise Invalid(f"{name} is the {aggregation.kind} of a {dtype!r}.", fix="aggregate a number or a condition.")
        return DType.Float64 if dtype in (DType.Float64, DType.Int64) else DType.Float32
    if aggregation.kind in ("distinct", "top"):
        if dtype not in COUNTABLE:
            raise Invalid(f"{name} cannot count the values of a {dtype!r}.", fix="cast or round it: .cast(ms.Int64).")
        return DType.Int64 if aggregation.kind == "distinct" else dtype
    if dtype == DType.Duration:
        raise Invalid(f"{name} would be a Duration, which a column cannot store.", fix="cast it: (...).cast(ms.Int64).")
    return dtype


def single(value: float) -> float:
    """Return the nearest Float32; beyond its range, infinity."""
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded
