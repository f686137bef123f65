"""Features that others are computed from: the part of some groups that a read of chosen features needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mainspring.core.expr.types import columns_of
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, views_of


def needed_for(groups: Sequence[FeatureGroup], wanted: Iterable[str]) -> frozenset[str]:
    """Return the full names of the wanted features, and of all features that they are computed from."""
    named = {group.name: group for group in (*groups, *views_of(groups))}
    left = list(wanted)
    seen = set(left)
    while left:
        group_name, _, feature = left.pop().partition(".")
        group = named[group_name]
        if isinstance(group, RequestFeatures):
            used = {name for name in columns_of(group.features[feature]) if "." in name}
        else:
            of = group.derived.get(feature)
            used = set() if of is None else {f"{group_name}.{name}" for name in columns_of(of)}
        left += used - seen
        seen |= used
    return frozenset(seen)


def stored_part(views: Iterable[FeatureView], needed: Collection[str]) -> list[FeatureView]:
    """Return the views with only their stored features that are needed; a view without any is left out."""
    trimmed = (
        FeatureView(
            view.name,
            view.entity,
            view.source,
            {name: each for name, each in view.features.items() if f"{view.name}.{name}" in needed},
        )
        for view in views
    )
    return [view for view in trimmed if view.features]
