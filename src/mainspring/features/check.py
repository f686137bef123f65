"""Consistency check of feature definitions, done by `apply` before any data is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from mainspring.core.errors import Invalid
from mainspring.core.expr import Node
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import format_duration
from mainspring.features.keys import KEY_TYPES
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import (
    Aggregation,
    Entity,
    FeatureGroup,
    FeatureView,
    Observations,
    RequestFeatures,
    hop,
    views_of,
)
from mainspring.features.types import KINDS, stored_dtype

Problem = tuple[object, str, str]  # the invalid definition, the problem, and the fix


def check_groups(groups: Sequence[FeatureGroup], observations: Observations | None) -> list[Problem]:
    """Return all problems of `groups`, and of `observations` if given."""
    problems: list[Problem] = list(_duplicates(groups))
    entities: dict[int, Entity] = {}
    for group in groups:
        if isinstance(group, RequestFeatures):
            problems += _check_request(group, observations)
    for view in views_of(groups):
        problems += _check_view(view, observations)
        entities[id(view.entity)] = view.entity
    if observations is not None:
        problems += _check_observations(observations)
        entities.update({id(entity): entity for entity in observations.keys})
    for entity in entities.values():
        problems += _check_entity(entity)
    return problems


def shared_sources(views: Iterable[FeatureView], observations: Iterable[Observations]) -> list[str]:
    """Return a notice for each view that reads rows of the observations' own source without a recorded time."""
    observed = {each.source.name for each in observations}
    return [
        (
            f"{view.name} reads {view.source.name!r}, which is also the source of the observations and declares no "
            "recorded_time: a row counts from right after its event time, known or not. An observation sees the rows "
            "before it, but not its own. If rows arrive later than they happen, declare recorded_time, or a lag."
        )
        for view in views
        if view.source.name in observed and view.source.recorded_time is None and not view.source.lag_us
    ]


def _duplicates(groups: Sequence[FeatureGroup]) -> Iterator[Problem]:
    # DuckDB's names are case-insensitive, so a project's must be unique without case.
    names = Counter(group.name.lower() for group in groups)
    for group in groups:
        if names[group.name.lower()] > 1:
            yield group, f"There are several feature groups named {group.name!r}", "rename all but one."
        features = Counter(name.lower() for name in group.names)
        for name in (name for name in group.names if features[name.lower()] > 1):
            yield group, f"{group.name}.{name} differs from another feature by case only", "rename one of them."


def _check_entity(entity: Entity) -> Iterator[Problem]:
    for key, dtype in entity.keys.items():
        if dtype not in KEY_TYPES:
            yield (
                entity,
                (
                    f"Entity {entity.name!r} has the key {key!r} of type {dtype!r}, which cannot identify an entity "
                    "exactly"
                ),
                f"use one of {', '.join(map(repr, KEY_TYPES))}.",
            )


def _check_view(view: FeatureView, observations: Observations | None) -> Iterator[Problem]:
    columns = view.source.columns
    yield from _check_keys(view, view.entity, f"{view.name}'s source {view.source.name!r}", columns)
    if observations is not None:
        fields = observations.source.columns
        yield from _check_keys(view, view.entity, f"{view.name}: the observations' source", fields)
    before: list[Problem] = []
    for name, feature in view.features.items():
        before += _check_feature(view, f"{view.name}.{name}", name, feature, columns)
    yield from before
    if not before:  # features computed from invalid ones would only repeat the problem
        stored = layout_of(view).stored
        for name, expression in view.derived.items():
            yield from _check_computed(view, name, expression, stored, "view does not store")


def _check_computed(
    group: FeatureGroup, name: str, expression: Node, schema: Schema, lacking: str
) -> Iterator[Problem]:
    full_name = f"{group.name}.{name}"
    unknown = list(_unknown(group, full_name, [expression], schema, lacking))
    yield from unknown
    if not unknown:
        yield from _typed(group, full_name, partial(_computed_dtype, full_name, expression, schema))


def _check_keys(item: object, entity: Entity, owner: str, columns: Schema) -> Iterator[Problem]:
    for key, dtype in entity.keys.items():
        if key not in columns:
            yield (
                item,
                f"{owner} lacks the key column {key!r} of entity {entity.name!r}",
                f"add it, or use another entity; there are {sorted(columns)}.",
            )
        elif columns[key] != dtype:
            yield (
                item,
                f"{owner} has the key column {key!r} as {columns[key]!r}, entity {entity.name!r} as {dtype!r}",
                "give both the same type.",
            )


def _check_feature(
    view: FeatureView, full_name: str, name: str, feature: Aggregation, columns: Schema
) -> Iterator[Problem]:
    if feature.kind not in KINDS:
        yield view, f"{full_name} is a {feature.kind!r}", f"use one of {', '.join(KINDS)}."
        return
    unknown = list(_unknown(view, full_name, [feature.of, feature.where], columns, "source does not have"))
    yield from unknown
    if not unknown:
        yield from _typed(view, full_name, lambda: stored_dtype(view, name))
        if feature.where is not None:
            yield from _check_filter(view, full_name, feature.where, columns)
    if feature.kind == "last":
        if feature.ttl is not None and feature.ttl <= 0:
            yield view, f"{full_name} has a TTL of {format_duration(feature.ttl)}", "give it a positive one, or none."
        if feature.where is not None or feature.window is not None:
            yield view, f"{full_name} is a last value with a filter or a window", "leave them out."
        return
    if feature.window is None or feature.window < hop(feature.window):
        width = "none" if feature.window is None else format_duration(feature.window)
        shortest = format_duration(hop(feature.window or 0))
        yield (
            view,
            f"{full_name} has the window {width}, shorter than its slide interval {shortest}",
            f"make it at least {shortest}.",
        )
    if feature.kind in ("newest", "top") and (feature.nth is None or feature.nth < 1):
        yield view, f"{full_name} is number {feature.nth} of the {feature.kind}", "count from 1."
    if feature.kind == "quantile" and not 0 <= (feature.share if feature.share is not None else -1) <= 1:
        yield view, f"{full_name} is the quantile {feature.share}", "use a share from 0 to 1."
    if feature.default is not None and not math.isfinite(feature.default):
        yield view, f"{full_name} has the default {feature.default}", "use a finite number, or none."
    elif feature.default is not None and not unknown:
        yield from _typed(view, full_name, lambda: _check_default(view, name, full_name, feature.default or 0))


def _check_default(view: FeatureView, name: str, full_name: str, default: float) -> None:
    dtype = stored_dtype(view, name)
    if not dtype.numeric:
        raise Invalid(f"{full_name} is a {dtype!r} and has the default {default}.", fix="leave the default out.")
    if dtype in (DType.Int32, DType.Int64) and default != int(default):
        raise Invalid(f"{full_name} is an {dtype!r} and has the default {default}.", fix="use a whole number.")


def _check_filter(view: FeatureView, full_name: str, where: Node, columns: Schema) -> Iterator[Problem]:
    problems = list(_typed(view, full_name, lambda: dtype_of(where, columns)))
    yield from problems
    if not problems and dtype_of(where, columns) != DType.Boolean:
        dtype = dtype_of(where, columns)
        yield view, f"{full_name} is filtered by a {dtype!r}", "filter by a condition, such as ms.col('x') > 0."


def _check_request(group: RequestFeatures, observations: Observations | None) -> Iterator[Problem]:
    if observations is None or any(_wrong_features(view) for view in group.views):
        return
    schema = request_schema(group, observations.source.columns)
    for name, expression in group.features.items():
        yield from _check_computed(group, name, expression, schema, "request does not have")


def _wrong_features(view: FeatureView) -> bool:
    return any(True for _ in _check_view(view, None))


def _computed_dtype(full_name: str, expression: Node, schema: Schema) -> None:
    if dtype_of(expression, schema) == DType.Duration:
        raise Invalid(f"{full_name} is a Duration.", fix="divide it: (...) / ms.hours(1).")


def _check_observations(observations: Observations) -> Iterator[Problem]:
    columns = observations.source.columns
    for entity in observations.keys:
        yield from _check_keys(observations, entity, f"The observations' source {observations.source.name!r}", columns)
    name = "The observations' time"
    unknown = list(_unknown(observations, name, [observations.at], columns, "source does not have"))
    yield from unknown
    problems = [] if unknown else list(_typed(observations, name, lambda: dtype_of(observations.at, columns)))
    yield from problems
    if not unknown and not problems and (dtype := dtype_of(observations.at, columns)) != DType.Timestamp:
        yield observations, f"{name} is a {dtype!r}", "use a timestamp column, plus or minus a duration."


def _unknown(
    item: object, full_name: str, expressions: Sequence[Node | None], columns: Schema, lacking: str
) -> Iterator[Problem]:
    named = {name for expression in expressions if expression is not None for name in columns_of(expression)}
    for name in sorted(named - set(columns)):
        fix = "write it as View.feature." if "." in name else f"it has {sorted(columns)}."
        yield item, f"{full_name} uses {name!r}, which the {lacking}", fix


def _typed(item: object, full_name: str, ask: Callable[[], object]) -> Iterator[Problem]:
    try:
        ask()
    except Invalid as error:
        what = error.what if full_name in error.what else f"{full_name}: {error.what}"
        yield item, what.rstrip("."), error.fix or "change the expression."
