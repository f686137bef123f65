"""Personal data of a model: keys, request fields and features that identify a person, by the marks of its sources."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.expr.types import columns_of
from mainspring.features.model import FeatureGroup, FeatureView, Observations, views_of
from mainspring.features.types import COUNTING


def personal_names(groups: Sequence[FeatureGroup], observations: Observations) -> frozenset[str]:
    """Return the names as the log has them: of keys and fields their own, of features the full one.

    A key is marked if any source that is read by it says so. A feature is if its value may tell a marked value: one
    that counts tells none.
    """
    views = views_of(groups)
    found = set(observations.source.pii)
    for view in views:
        found.update(set(view.source.pii) & set(view.entity.keys))
    stored = {f"{view.name}.{name}" for view in views for name in view.names if _tells(view, name)}
    computed = {
        f"{group.name}.{name}"
        for group in groups
        if not isinstance(group, FeatureView)
        for name, expression in group.features.items()
        if columns_of(expression) & (found | stored)
    }
    return frozenset(found | stored | computed)


def _tells(view: FeatureView, feature: str) -> bool:
    if feature in view.derived:
        return any(_tells(view, each) for each in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    if aggregation.of is None or aggregation.kind in COUNTING:
        return False
    return bool(columns_of(aggregation.of) & set(view.source.pii))
