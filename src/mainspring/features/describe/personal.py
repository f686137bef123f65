"""Source columns of a feature, and the columns, keys and features that identify a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.expr.types import columns_of
from mainspring.features.model import FeatureGroup, FeatureView, Observations, views_of
from mainspring.features.types import COUNTING


def columns_read(view: FeatureView, feature: str) -> tuple[str, ...]:
    """Return the sorted columns of the source that a feature is computed from, including its filter's."""
    if feature in view.derived:
        return _together(columns_read(view, column) for column in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    return _together(
        columns_of(expression) for expression in (aggregation.of, aggregation.where) if expression is not None
    )


def personal_columns(view: FeatureView, feature: str) -> tuple[str, ...]:
    """Return the columns with a PII mark whose values a feature's value may reveal; a count reveals none."""
    if feature in view.derived:
        return _together(personal_columns(view, each) for each in columns_of(view.derived[feature]))
    aggregation = view.features[feature]
    if aggregation.of is None or aggregation.kind in COUNTING:
        return ()
    return tuple(sorted(columns_of(aggregation.of) & set(view.source.pii)))


def personal_names(groups: Sequence[FeatureGroup], observations: Observations) -> frozenset[str]:
    """Return the personal names in the log's form: keys and fields by name, features by full name.

    A key is personal if any source that is read by it marks it. A feature is personal if its value may reveal a marked
    value; a count reveals none.
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


def personal_inputs(groups: Sequence[FeatureGroup], observations: Observations) -> dict[str, tuple[str, ...]]:
    """Return the personal features of groups, by full name, with the marked columns that each comes from:
    `people.email`.
    """
    fields = {name: (f"{observations.source.name}.{name}",) for name in observations.source.pii}
    found = {
        f"{view.name}.{name}": tuple(f"{view.source.name}.{column}" for column in columns)
        for view in views_of(groups)
        for name in view.names
        if (columns := personal_columns(view, name))
    }
    for group in groups:
        if not isinstance(group, FeatureView):
            for name, expression in group.features.items():
                read = [known for each in columns_of(expression) if (known := (fields | found).get(each))]
                if read:
                    found[f"{group.name}.{name}"] = _together(read)
    return {name: columns for name, columns in found.items() if any(name in group.columns for group in groups)}


def _together(columns: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for each in columns for name in each}))
