"""Source columns of a feature, and those among them that identify a person."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.expr.types import columns_of
from mainspring.features.model import FeatureView
from mainspring.features.types import COUNTING


def columns_read(view: FeatureView, feature: str) -> tuple[str, ...]:
    """Return the columns of the source that a feature is made from, its filter's included, sorted."""
    if feature in view.derived:
        return _together(columns_read(view, each) for each in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    return _together(columns_of(each) for each in (aggregation.of, aggregation.where) if each is not None)


def personal_columns(view: FeatureView, feature: str) -> tuple[str, ...]:
    """Return the columns with a PII mark whose values a feature's value may tell; a count tells none."""
    if feature in view.derived:
        return _together(personal_columns(view, each) for each in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    if aggregation.of is None or aggregation.kind in COUNTING:
        return ()
    return tuple(sorted(columns_of(aggregation.of) & set(view.source.pii)))


def _together(columns: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for each in columns for name in each}))
