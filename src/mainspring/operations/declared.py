"""Definitions of a project, a mapping for each kind, for interactive use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.core.time import format_duration
from mainspring.operations.named import Named

if TYPE_CHECKING:
    from mainspring.data.model import Source
    from mainspring.features.model import FeatureGroup
    from mainspring.project.definitions.loading import Definitions
    from mainspring.serving.model import Endpoint
    from mainspring.training.model import Model


def features(definitions: Definitions) -> Named[FeatureGroup]:
    """Return the feature views and the request features."""
    groups: dict[str, FeatureGroup] = {**definitions.views, **definitions.request_features}
    return Named("feature view", groups, ("entity", "source", "features", "owner", "description"), _group)


def _group(group: FeatureGroup) -> Sequence[object]:
    from mainspring.features.model import FeatureView

    names = ", ".join(group.names)
    if isinstance(group, FeatureView):
        return group.entity.name, group.source.name, names, group.owner, group.description
    return "", "the request", names, group.owner, group.description


def sources(definitions: Definitions) -> Named[Source]:
    return Named("source", definitions.sources, ("event time", "columns", "lag", "owner", "description"), _source)


def _source(source: Source) -> Sequence[object]:
    lag = format_duration(source.lag_us) if source.lag_us else ""
    return source.event_time, ", ".join(source.schema), lag, source.owner, source.description


def models(definitions: Definitions) -> Named[Model]:
    return Named("model", definitions.models, ("task", "label", "features", "gates", "owner"), _model)


def _model(model: Model) -> Sequence[object]:
    return model.task, model.truth, ", ".join(model.inputs), ", ".join(map(str, model.gates)), model.owner


def endpoints(definitions: Definitions) -> Named[Endpoint]:
    return Named("endpoint", definitions.endpoints, ("model",), lambda endpoint: (endpoint.model,))
