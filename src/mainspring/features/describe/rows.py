"""A feature view's definition as rows for display."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import MainspringError
from mainspring.core.time import format_duration
from mainspring.features.describe.wording import definition, wording
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureView


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """One feature. `over` is its window, or how long a last value holds; `default` what an empty window gives."""

    name: str
    type: str
    definition: str
    where: str = ""
    over: str = ""
    default: float | None = None
    description: str = ""


def definition_rows(view: FeatureView) -> list[DefinitionRow]:
    """Return the view's features, in the order of declaration."""
    return [_stored(view, name) if name in view.features else _derived(view, name) for name in view.names]


def _stored(view: FeatureView, name: str) -> DefinitionRow:
    feature = view.features[name]
    over = format_duration(feature.window) if feature.window is not None else ""
    if feature.ttl is not None:
        over = f"at most {format_duration(feature.ttl)} old"
    return DefinitionRow(
        name,
        _type(view, name),
        definition(view, name),
        "" if feature.where is None else wording(feature.where),
        over,
        0 if feature.kind == "count" else feature.default,
        feature.description,
    )


def _derived(view: FeatureView, name: str) -> DefinitionRow:
    return DefinitionRow(name, _type(view, name), definition(view, name))


def _type(view: FeatureView, name: str) -> str:
    try:
        return feature_dtype(view, name).name
    except MainspringError:  # a view that was declared in a notebook, and never checked
        return "?"
