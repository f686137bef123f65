"""The type of every feature, so that training, a bundle's schema and serving agree on it."""

from __future__ import annotations

import math
import struct

from mainspring.core.errors import Invalid
from mainspring.core.expr import types as expr_types
from mainspring.core.schema import DType, Schema
from mainspring.features.model import Aggregation, FeatureGroup, FeatureView, RequestFeatures

AVERAGING = ("sum", "mean", "variance", "std", "quantile")
COUNTING = ("count", "distinct")
COUNTABLE = (DType.String, DType.Boolean, DType.Int32, DType.Int64, DType.Timestamp)
_SINGLE = struct.Struct("<f")
KINDS = ("last", *COUNTING, *AVERAGING, "min", "max", "first", "newest", "top")


def feature_dtype(group: FeatureGroup, feature: str, schema: Schema | None = None) -> DType:
    """Return the type of one feature of a group.

    A count, also of distinct values, is Int64; last, first, newest, top, min and max have their expression's type; sum,
    mean, variance, std and quantile are Float32, or Float64 where the expression is Float64 or Int64, whose values
    Float32 cannot hold. A computed feature has its expression's type.

    Args:
        schema: The fields of the request, needed for request features only.

    Raises:
        Invalid: The expression names an unknown column, or its type does not suit the aggregation.
    """
    if isinstance(group, RequestFeatures):
        return expr_types.dtype_of(group.features[feature], request_schema(group, schema or {}))
    if feature in group.derived:
        return expr_types.dtype_of(group.derived[feature], stored_schema(group))
    return _aggregated(group, group.features[feature], f"{group.name}.{feature}")


def stored_schema(view: FeatureView) -> Schema:
    """Return name -> type of a view's stored features: what its derived ones are computed from."""
    return {name: feature_dtype(view, name) for name in view.features}


def request_schema(group: RequestFeatures, fields: Schema) -> Schema:
    """Return name -> type of what request features are computed from: fields, and features by their full names."""
    used = set().union(*(expr_types.columns_of(expression) for expression in group.features.values()))
    schema = dict(fields)
    for view in group.views:
        for name in view.names:
            if f"{view.name}.{name}" in used:
                schema[f"{view.name}.{name}"] = feature_dtype(view, name)
    return schema


def _aggregated(view: FeatureView, aggregation: Aggregation, name: str) -> DType:
    if aggregation.kind == "count":
        return DType.Int64
    if aggregation.of is None:
        raise Invalid(f"{name} is a {aggregation.kind} of nothing.", fix="name a column or an expression.")
    dtype = expr_types.dtype_of(aggregation.of, view.source.columns)
    if aggregation.kind in AVERAGING:
        if not dtype.numeric and dtype != DType.Boolean:
            raise Invalid(f"{name} is the {aggregation.kind} of a {dtype!r}.", fix="aggregate a number or a condition.")
        return DType.Float64 if dtype in (DType.Float64, DType.Int64) else DType.Float32
    if aggregation.kind in ("distinct", "top"):
        if dtype not in COUNTABLE:
            raise Invalid(f"{name} would count the values of a {dtype!r}.", fix="cast or round it: .cast(ms.Int64).")
        return DType.Int64 if aggregation.kind == "distinct" else dtype
    if dtype == DType.Duration:
        raise Invalid(f"{name} would be a Duration, which no column can hold.", fix="cast it: (...).cast(ms.Int64).")
    return dtype


def default_of(view: FeatureView, feature: str) -> float | int | None:
    """Return what a windowed feature is where its window is empty, as a value of the feature's type."""
    aggregation = view.features[feature]
    if aggregation.kind in COUNTING:
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
