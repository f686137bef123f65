"""A model's feature definitions as JSON, for its bundle: serving reads them without any of the project's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.expr import Node
from mainspring.core.schema import DType
from mainspring.data.model import Check, Source
from mainspring.features.model import Aggregation, Entity, FeatureGroup, FeatureView, Observations, RequestFeatures

FORMAT = 1


class _Source(msgspec.Struct, omit_defaults=True):
    columns: dict[str, DType]
    event_time: str
    recorded_time: str | None = None
    lag: int = 0
    checks: tuple[Check, ...] = ()
    description: str = ""
    owner: str = ""
    pii: tuple[str, ...] = ()


class _Entity(msgspec.Struct, omit_defaults=True):
    keys: dict[str, DType]
    description: str = ""


class _View(msgspec.Struct, tag="view", omit_defaults=True):
    name: str
    entity: str
    source: str
    features: dict[str, Aggregation]
    description: str = ""
    owner: str = ""


class _Request(msgspec.Struct, tag="request", omit_defaults=True):
    name: str
    features: dict[str, Node]
    description: str = ""
    owner: str = ""


class _Observations(msgspec.Struct):
    source: str
    keys: list[str]
    at: Node


class _Document(msgspec.Struct):
    format: int
    sources: dict[str, _Source]
    entities: dict[str, _Entity]
    groups: list[_View | _Request]
    observations: _Observations


def dump(groups: Sequence[FeatureGroup], observations: Observations) -> bytes:
    """Return the groups, in order, and the observations, with the sources and entities they need."""
    views = [group for group in groups if isinstance(group, FeatureView)]
    sources = {source.name: source for source in [observations.source, *(view.source for view in views)]}
    entities = {entity.name: entity for entity in [*observations.keys, *(view.entity for view in views)]}
    document = _Document(
        FORMAT,
        {name: _dump_source(source) for name, source in sorted(sources.items())},
        {name: _Entity(entity.keys, entity.description) for name, entity in sorted(entities.items())},
        [_dump_group(group) for group in groups],
        _Observations(observations.source.name, [entity.name for entity in observations.keys], observations.at),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def load(content: bytes) -> tuple[list[FeatureGroup], Observations]:
    """Return what `dump` was given.

    Raises:
        Corrupt: `content` is not such a document.
    """
    try:
        document = msgspec.json.decode(content, type=_Document)
        if document.format != FORMAT:
            raise Corrupt(f"Feature definitions have format {document.format}; this version reads {FORMAT}.")
        sources = {name: _load_source(name, source) for name, source in document.sources.items()}
        entities = {
            name: Entity(name, keys=entity.keys, description=entity.description)
            for name, entity in document.entities.items()
        }
        at = document.observations
        return (
            [_load_group(group, sources, entities) for group in document.groups],
            Observations(sources[at.source], keys=[entities[name] for name in at.keys], at=at.at),
        )
    except (msgspec.MsgspecError, KeyError) as error:
        raise Corrupt(f"Feature definitions cannot be read: {error}.") from error


def _dump_source(source: Source) -> _Source:
    return _Source(
        dict(source.schema),
        source.event_time,
        source.recorded_time,
        source.lag_us,
        tuple(source.checks),
        source.description,
        source.owner,
        tuple(source.pii),
    )


def _load_source(name: str, source: _Source) -> Source:
    return Source(
        name,
        schema=source.columns,
        event_time=source.event_time,
        recorded_time=source.recorded_time,
        lag=source.lag,
        checks=source.checks,
        description=source.description,
        owner=source.owner,
        pii=source.pii,
    )


def _dump_group(group: FeatureGroup) -> _View | _Request:
    if isinstance(group, RequestFeatures):
        return _Request(group.name, dict(group.features), group.description, group.owner)
    features = dict(group.features)
    return _View(group.name, group.entity.name, group.source.name, features, group.description, group.owner)


def _load_group(group: _View | _Request, sources: Mapping[str, Source], entities: Mapping[str, Entity]) -> FeatureGroup:
    if isinstance(group, _Request):
        return RequestFeatures(group.name, group.features, group.description, group.owner)
    entity, source = entities[group.entity], sources[group.source]
    return FeatureView(group.name, entity, source, group.features, group.description, group.owner)
