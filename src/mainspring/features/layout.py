"""Layout of a view: the types of its features, and its state, from which windows are answered.

A state has measures with mergeable parts. A measure is a filtered expression: one value per row, null where the filter
is false. Windows that aggregate the same measure share its parts, and windows with the same hop share their tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import msgspec

from mainspring.core.expr import Node
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.features.functions.model import RequestFunction, placeholder
from mainspring.features.model import Aggregation, FeatureGroup, FeatureView, RequestFeatures, hop
from mainspring.features.types import COUNTING, single, stored_dtype

# The parts of a measure's state that each aggregation merges. `spread` is (n, origin, sum of differences from the
# origin, M2): the mean of values near 1e9 as a float alone would cost the variance seven digits. `newest` is the newest
# row's (event, seq, value), `newest_3` the list of the three newest; the last three are sketches (features.sketches).
PARTS = {
    "count": ("n",),
    "sum": ("n", "sum"),
    "mean": ("n", "sum"),
    "variance": ("spread",),
    "std": ("spread",),
    "min": ("min",),
    "max": ("max",),
    "first": ("oldest",),
    "newest": ("newest",),
    "distinct": ("hashes",),
    "quantile": ("bins",),
    "top": ("values",),
}
SKETCHES = ("hashes", "bins", "values")
RANKED = ("oldest", "newest")  # parts whose rows are ordered by (event, seq)
_MOST_LAYOUTS = 1024  # maximum number of cached layouts


@dataclass(frozen=True)
class Measure:
    """One value per row. Without `of` it is true, so that it can be counted."""

    of: Node | None
    where: Node | None


@dataclass(frozen=True)
class WindowFeature:
    """A windowed feature: its measure and the width of its window."""

    name: str
    kind: str
    measure: int
    window: int  # microseconds
    default: float | None
    parts: tuple[str, ...] = ()  # what it merges
    nth: int = 1  # rank of newest and top
    share: float = 0.5  # of quantile


@dataclass(frozen=True)
class LastFeature:
    """A last value: its column of the candidates."""

    name: str
    column: int
    ttl: int | None


class Layout:
    """Layout of a view. A pure function of its definition; `layout_of` returns it.

    Attributes:
        lasts: The last values, in order; candidate column i is `last_exprs[i]`.
        windows: The windowed features, in order.
        measures: The measures that the windows aggregate.
    """

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self._dtypes: dict[str, DType] = {}
        self.lasts: list[LastFeature] = []
        self.last_exprs: list[Node] = []
        self.windows: list[WindowFeature] = []
        self.measures: list[Measure] = []
        known: dict[bytes, int] = {}
        depths: dict[int, int] = {}
        windowed: list[tuple[str, Aggregation, int]] = []
        for name, feature in view.features.items():
            if feature.kind == "last":
                self._add_last(name, feature)
                continue
            measure = self._measure(feature, known)
            windowed.append((name, feature, measure))
            if feature.kind == "newest":
                depths[measure] = max(depths.get(measure, 1), feature.nth or 1)
        for name, feature, measure in windowed:
            parts = PARTS[feature.kind]
            if feature.kind == "newest" and depths[measure] > 1:
                parts = (f"newest_{depths[measure]}",)
            width, share = feature.window or 0, 0.5 if feature.share is None else feature.share
            self.windows.append(
                WindowFeature(name, feature.kind, measure, width, feature.default, parts, feature.nth or 1, share)
            )

    def _add_last(self, name: str, feature: Aggregation) -> None:
        if feature.of is not None:
            self.lasts.append(LastFeature(name, len(self.last_exprs), feature.ttl))
            self.last_exprs.append(feature.of)

    def _measure(self, feature: Aggregation, known: dict[bytes, int]) -> int:
        index = known.setdefault(msgspec.json.encode((feature.of, feature.where)), len(self.measures))
        if index == len(self.measures):
            self.measures.append(Measure(feature.of, feature.where))
        return index

    def dtype(self, feature: str) -> DType:
        """Return the type of a feature; a derived one has its expression's.

        Raises:
            Invalid: An expression names an unknown column, or its type does not match the aggregation.
        """
        if feature not in self._dtypes:
            derived = self.view.derived.get(feature)
            self._dtypes[feature] = (
                stored_dtype(self.view, feature) if derived is None else dtype_of(derived, self.stored)
            )
        return self._dtypes[feature]

    @cached_property
    def stored(self) -> Schema:
        """The types of the stored features, from which derived ones are computed."""
        return {name: self.dtype(name) for name in self.view.features}

    def default(self, feature: str) -> float | int | None:
        """Return the value of a windowed feature for an empty window, in the feature's type."""
        aggregation = self.view.features[feature]
        if aggregation.kind in COUNTING:
            return 0
        if aggregation.default is None:
            return None
        dtype = self.dtype(feature)
        if dtype == DType.Float32:
            return single(aggregation.default)
        return float(aggregation.default) if dtype == DType.Float64 else int(aggregation.default)

    @cached_property
    def measured(self) -> list[DType]:
        """The type of each measure."""
        columns = self.view.source.columns
        return [DType.Boolean if each.of is None else dtype_of(each.of, columns) for each in self.measures]

    @cached_property
    def hops(self) -> dict[int, int]:
        """Hop -> the widest window that uses it, both in microseconds, ascending."""
        widest: dict[int, int] = {}
        for feature in self.windows:
            width = hop(feature.window)
            widest[width] = max(widest.get(width, 0), feature.window)
        return dict(sorted(widest.items()))

    def parts(self, windows: Sequence[WindowFeature]) -> list[tuple[int, str]]:
        """Return the (measure, part) pairs that `windows` need, sorted."""
        return sorted({(feature.measure, part) for feature in windows for part in feature.parts})

    @cached_property
    def ranked(self) -> bool:
        """True if the order of arrival of single rows matters."""
        return any(part.startswith(RANKED) for feature in self.windows for part in feature.parts)

    def of_hop(self, width: int) -> list[WindowFeature]:
        return [feature for feature in self.windows if hop(feature.window) == width]

    @cached_property
    def slot(self) -> str:
        """The name of the view's states in an online store."""
        return slot(self.view)


@lru_cache(_MOST_LAYOUTS)
def layout_of(view: FeatureView) -> Layout:
    """Return the cached layout of a view."""
    return Layout(view)


def feature_dtype(group: FeatureGroup, feature: str, schema: Schema | None = None) -> DType:
    """Return the type of one feature of a group, used by training, a bundle's schema and serving.

    Args:
        schema: The fields of the request, needed for request features only.

    Raises:
        Invalid: As `Layout.dtype`.
    """
    if isinstance(group, RequestFeatures):
        return dtype_of(group.features[feature], request_schema(group, schema or {}))
    return layout_of(group).dtype(feature)


def request_schema(group: RequestFeatures, fields: Schema) -> Schema:
    """Return name -> type of the inputs of request features: fields, and features by their full names."""
    used = set().union(*(columns_of(expression) for expression in group.features.values()))
    schema = dict(fields)
    if isinstance(group, RequestFunction):
        schema.update((placeholder(name), dtype) for name, dtype in group.function.outputs.items())
    for view in group.views:
        layout = layout_of(view)
        for name, full_name in zip(view.names, view.columns, strict=True):
            if full_name in used:
                schema[full_name] = layout.dtype(name)
    return schema


def slot(view: FeatureView) -> str:
    """Return the name under which a view's states are stored: its name and a digest of the stored definitions.

    A changed view gets its own slot, so the states that a live bundle reads are unchanged while the new ones are built.
    Descriptions, owners and defaults (which are applied on read) are not part of the digest.
    """
    source = view.source
    content: Any = (
        1,  # the format of a state
        view.entity.name,
        [(key, dtype.value) for key, dtype in view.entity.keys.items()],
        source.name,
        [source.event_time, source.recorded_time, source.lag_us],
        # The number of newest values is part of the stored state; the choice of quantile or rank is not.
        [
            (name, f.kind, f.of, f.where, f.window, f.ttl, *([f.nth] if f.kind == "newest" else []))
            for name, f in view.features.items()
        ],
    )
    return f"{view.name}@{hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]}"
