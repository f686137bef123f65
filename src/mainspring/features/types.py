"""The type of every feature, so that training, a bundle's schema and serving agree on it."""

from __future__ import annotations

import math
import struct

from mainspring.core.errors import Invalid
from mainspring.core.expr import types as expr_types
from mainspring.core.schema import DType, Schema
from mainspring.features.model import FeatureView, RequestFeatures

AVERAGING = ("sum", "mean", "variance", "std")
_SINGLE = struct.Struct("<f")
KINDS = ("last", "count", *AVERAGING, "min", "max")


def feature_dtype(group: FeatureView | RequestFeatures, feature: str, schema: Schema | None = None) -> DType:
    """Return the type of one feature of a group.

    A count is Int64; last, min and max have their expression's type; sum, mean, variance and std are Float32, or
    Float64 where the expression is Float64 or Int64, whose values Float32 cannot hold.

    Args:
        schema: The fields of the request, needed for request features only.

    Raises:
        Invalid: The expression names an unknown column, or its type does not suit the aggregation.
    """
    if isinstance(group, RequestFeatures):
        return expr_types.dtype_of(group.features[feature], schema or {})
    aggregation = group.features[feature]
    if aggregation.kind == "count":
        return DType.Int64
    name = f"{group.name}.{feature}"
    if aggregation.of is None:
        raise Invalid(f"{name} is a {aggregation.kind} of nothing.", fix="name a column or an expression.")
    dtype = expr_types.dtype_of(aggregation.of, group.source.columns)
    if aggregation.kind in AVERAGING:
        if not dtype.numeric and dtype != DType.Boolean:
            raise Invalid(f"{name} is the {aggregation.kind} of a {dtype!r}.", fix="aggregate a number or a condition.")
        return DType.Float64 if dtype in (DType.Float64, DType.Int64) else DType.Float32
    if dtype == DType.Duration:
        raise Invalid(f"{name} would be a Duration, which no column can hold.", fix="cast it: (...).cast(ms.Int64).")
    return dtype


def default_of(view: FeatureView, feature: str) -> float | int | None:
    """Return what a windowed feature is where its window is empty, as a value of the feature's type."""
    aggregation = view.features[feature]
    if aggregation.kind == "count":
        return 0
    if aggregation.default is None:
        return None
    dtype = feature_dtype(view, feature)
    if dtype == DType.Float32:
        return single(aggregation.default)
    return float(aggregation.default) if dtype == DType.Float64 else int(aggregation.default)


def single(value: float) -> float:
    """Return the nearest Float32; beyond its range, infinity."""
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded
