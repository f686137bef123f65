"""Selection of features: a model's, or views and features by object or by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.expr import Column
from mainspring.core.nearest import meant
from mainspring.core.schema import DType, Schema
from mainspring.features.model import FeatureColumn, FeatureGroup, FeatureView, RequestFeatures, views_of
from mainspring.project.definitions.model import Definitions
from mainspring.training.model import Model

Chosen = str | Model | FeatureView | RequestFeatures | Column


@dataclass(frozen=True)
class Choice:
    """Features to read.

    Attributes:
        title: Name for messages.
        groups: Their complete groups.
        columns: The requested full names, in order.
        keys: Key columns of the groups' entities, with types.
        fields: Request fields that the groups use; `None` for a type that no observations declare.
        model: The model, if they are a model's features.
    """

    title: str
    groups: tuple[FeatureGroup, ...]
    columns: tuple[str, ...]
    keys: Schema
    fields: Mapping[str, DType | None]
    model: Model | None = None

    @property
    def views(self) -> list[FeatureView]:
        """The views to read."""
        return views_of(self.groups)

    @property
    def needed(self) -> list[str]:
        """The columns that a row must have."""
        return list(dict.fromkeys((*self.keys, *self.fields)))


def choose(definitions: Definitions, what: Chosen | Sequence[Chosen]) -> Choice:
    """Return the features that `what` names.

    Args:
        what: A model (or its name), a view, a feature by its full name, or a list of views and features.

    Raises:
        NotFound: A name is not a model, view or feature of the project.
        Invalid: `what` has another type, or is empty.
    """
    if isinstance(what, str) and what in definitions.models:
        what = definitions.models[what]
    if isinstance(what, Model):
        return _choice(what.name, what.features, what.columns, definitions, what)
    items = list(what) if isinstance(what, (list, tuple)) else [what]
    if not items:
        raise Invalid("No features are named.", fix='name at least one: ["OriginTraffic", "Weather.temp"].')
    groups: dict[str, FeatureGroup] = {}
    columns: dict[str, None] = {}
    for item in items:
        group, features = _meant(definitions, item, alone=len(items) == 1)
        if groups.setdefault(group.name, group) is not group:
            raise Invalid(f"Two different feature groups are named {group.name!r}.", fix="rename one of them.")
        columns.update(dict.fromkeys(features))
    return _choice(_title(items), groups.values(), tuple(columns), definitions)


def _title(items: Sequence[Any]) -> str:
    names = [item if isinstance(item, str) else str(item.name) for item in items]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _meant(definitions: Definitions, item: Any, *, alone: bool) -> tuple[FeatureGroup, Sequence[str]]:
    """Return the group and the full names that one item of the list means."""
    if isinstance(item, (FeatureView, RequestFeatures)):
        return item, item.columns
    if isinstance(item, Model):
        raise Invalid(
            f"Model {item.name!r} cannot be combined with features.",
            fix="request the model alone, or name its features.",
        )
    if isinstance(item, FeatureColumn):
        return item.view, (item.name,)
    name = item.name if isinstance(item, Column) else item
    if not isinstance(name, str):
        raise Invalid(
            f"{item!r} of type {type(item).__name__} is not a feature.",
            fix='give a name ("OriginTraffic", "OriginTraffic.departures_1h") or a view.',
        )
    groups = groups_of(definitions)
    group = groups.get(name.partition(".")[0])
    if group is not None and name == group.name:
        return group, group.columns
    if group is not None and name in group.columns:
        return group, (name,)
    if group is not None:
        raise NotFound(f"{group.name} has no feature {name!r}.", fix=meant(name, group.columns))
    known = [*groups, *(full for each in groups.values() for full in each.columns)] if "." in name else [*groups]
    if name in definitions.models:
        raise Invalid(
            f"Model {name!r} cannot be combined with features.", fix="request the model alone, or name its features."
        )
    models = [*definitions.models] if alone else []
    kind = "model or feature view" if alone else "feature view"
    raise NotFound(f"The project has no {kind} {name!r}.", fix=meant(name, [*models, *known]))


def groups_of(definitions: Definitions) -> dict[str, FeatureGroup]:
    """Return all feature groups of the project by name."""
    return {**definitions.views, **definitions.request_features}


def _choice(
    title: str,
    chosen: Iterable[FeatureGroup],
    columns: tuple[str, ...],
    definitions: Definitions,
    model: Model | None = None,
) -> Choice:
    groups = tuple(chosen)
    keys = {key: dtype for view in views_of(groups) for key, dtype in view.entity.keys.items()}
    used = sorted({name for group in groups if isinstance(group, RequestFeatures) for name in group.fields})
    declared = [model.observations] if model is not None else definitions.observations
    types = {
        name: {observations.source.columns[name] for observations in declared if name in observations.source.columns}
        for name in used
        if name not in keys
    }
    return Choice(
        title, groups, columns, keys, {name: _only(column_types) for name, column_types in types.items()}, model
    )


def _only(dtypes: set[DType]) -> DType | None:
    return next(iter(dtypes)) if len(dtypes) == 1 else None
