"""Source columns of a feature, and the columns, keys and features that identify a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.expr.types import columns_of
from mainspring.features.model import FeatureGroup, FeatureView, Observations, views_of
from mainspring.features.types import COUNTING


def columns_read(view: FeatureView, feature: str) -> tuple[str, ...]:
    """Return the columns of the source that a feature is made from, its filter's included, sorted."""
    if feature in view.derived:
        return _together(columns_read(view, column) for column in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    return _together(
        columns_of(expression) for expression in (aggregation.of, aggregation.where) if expression is not None
    )


def personal_columns(view: FeatureView, feature: str) -> tuple[str, ...]:
    """Return the columns with a PII mark whose values a feature's value may tell; a count tells none."""
    if feature in view.derived:
        return _together(personal_columns(view, each) for each in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    if aggregation.of is None or aggregation.kind in COUNTING:
        return ()
    return tuple(sorted(columns_of(aggregation.of) & set(view.source.pii)))


def personal_names(groups: Sequence[FeatureGroup], observations: Observations) -> frozenset[str]:
    """Return the names as the log has them: of keys and fields their own, of features the full one.

    A key is marked if any source that is read by it says so. A feature is if its value may tell a marked value: one
    that counts tells none.
    """
    views = views_of(groups)
    marked = set(observations.source.pii)
    for view in views:
        marked.update(set(view.source.pii) & set(view.entity.keys))
    stored = {f"{view.name}.{name}" for view in views for name in view.names if personal_columns(view, name)}
    computed = {
        f"{group.name}.{name}"
        for group in groups
        if not isinstance(group, FeatureView)
        for name, expression in group.features.items()
        if columns_of(expression) & (marked | stored)
    }
    return frozenset(marked | stored | computed)


def _together(columns: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for each in columns for name in each}))
