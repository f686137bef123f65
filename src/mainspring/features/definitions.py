"""A model's feature definitions as JSON for its bundle, so that serving needs none of the project's code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.expr import Node
from mainspring.core.expr.types import columns_of
from mainspring.core.json_content import decoded
from mainspring.core.schema import DType
from mainspring.data.model import Check, Source
from mainspring.features.functions.model import DerivedSource, FeatureFunction, RequestFunction
from mainspring.features.model import (
    Aggregation,
    Consent,
    Entity,
    FeatureGroup,
    FeatureView,
    Observations,
    RequestFeatures,
    views_of,
)

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
    id: tuple[str, ...] = ()
    retracted: str | None = None
    parent: str | None = None  # of a derived source: the source that it was computed from, and by which function
    function: FeatureFunction | None = None


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
    derived: dict[str, Node] = {}
    order: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class _Request(msgspec.Struct, tag="request", omit_defaults=True):
    name: str
    features: dict[str, Node]
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class _Function(msgspec.Struct, tag="function", omit_defaults=True):
    name: str
    function: FeatureFunction
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class _Consent(msgspec.Struct, omit_defaults=True):
    source: str
    entity: str
    purpose: str
    given: str
    by: str


class _Observations(msgspec.Struct, omit_defaults=True):
    source: str
    keys: list[str]
    at: Node
    where: Node | None = None
    consent: _Consent | None = None


class _Document(msgspec.Struct, omit_defaults=True):
    format: int
    sources: dict[str, _Source]
    entities: dict[str, _Entity]
    groups: list[_View | _Request | _Function]
    observations: _Observations
    used: list[_View] = []  # views that groups read without containing them


def dump(groups: Sequence[FeatureGroup], observations: Observations) -> bytes:
    """Return the groups, in order, and the observations, with the sources and entities they need."""
    views = views_of(groups)
    consent = observations.consent
    used = [observations.source, *(view.source for view in views), *([consent.source] if consent else [])]
    sources = {source.name: source for source in [*(each for view in used for each in _parents(view)), *used]}
    declared = [*observations.keys, *(view.entity for view in views), *([consent.entity] if consent else [])]
    entities = {entity.name: entity for entity in declared}
    document = _Document(
        FORMAT,
        {name: _dump_source(source) for name, source in sorted(sources.items())},
        {name: _Entity(entity.keys, entity.description) for name, entity in sorted(entities.items())},
        [_dump_group(group) for group in groups],
        _dump_observations(observations),
        [_dump_view(view) for view in views if view not in groups],
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def load(content: bytes) -> tuple[list[FeatureGroup], Observations]:
    """Return the definitions from a document of `dump`.

    Raises:
        Corrupt: `content` is not such a document.
    """
    try:
        document = decoded(content, _Document)
        if document.format != FORMAT:
            raise Corrupt(f"Feature definitions have format {document.format}; this version reads {FORMAT}.")
        sources = _load_sources(document.sources)
        entities = {
            name: Entity(name, keys=entity.keys, description=entity.description)
            for name, entity in document.entities.items()
        }
        at = document.observations
        described = [group for group in (*document.groups, *document.used) if isinstance(group, _View)]
        views = {view.name: _load_view(view, sources, entities) for view in described}
        return (
            [
                views[group.name] if isinstance(group, _View) else _load_request(group, views)
                for group in document.groups
            ],
            Observations(
                sources[at.source],
                keys=[entities[name] for name in at.keys],
                at=at.at,
                where=at.where,
                consent=_load_consent(at.consent, sources, entities),
            ),
        )
    except (msgspec.MsgspecError, KeyError) as error:
        raise Corrupt(f"Feature definitions cannot be read: {error}.") from error


def _dump_observations(observations: Observations) -> _Observations:
    keys = [entity.name for entity in observations.keys]
    found = observations.consent
    consent = None
    if found is not None:
        consent = _Consent(found.source.name, found.entity.name, found.purpose, found.given, found.by)
    return _Observations(observations.source.name, keys, observations.at, observations.where, consent)


def _load_consent(
    consent: _Consent | None, sources: Mapping[str, Source], entities: Mapping[str, Entity]
) -> Consent | None:
    if consent is None:
        return None
    source, entity = sources[consent.source], entities[consent.entity]
    return Consent(source, entity=entity, purpose=consent.purpose, given=consent.given, by=consent.by)


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
        tuple(source.id),
        source.retracted,
        *((source.parent.name, source.function) if isinstance(source, DerivedSource) else ()),
    )


def _parents(source: Source) -> Iterator[Source]:
    while isinstance(source, DerivedSource):
        source = source.parent
        yield source


def _load_sources(described: Mapping[str, _Source]) -> dict[str, Source]:
    found: dict[str, Source] = {}

    def load_one(name: str, depth: int = 0) -> Source:
        if depth > len(described):
            raise Corrupt(f"Feature definitions cannot be read: source {name!r} is computed from itself.")
        if name not in found:
            parent = described[name].parent
            found[name] = _load_source(name, described[name], None if parent is None else load_one(parent, depth + 1))
        return found[name]

    for name in described:
        load_one(name)
    return found


def _load_source(name: str, source: _Source, parent: Source | None) -> Source:
    kind: Callable[..., Source] = Source
    if parent is not None and source.function is not None:
        kind = partial(DerivedSource, parent=parent, function=source.function)
    return kind(
        name,
        schema=source.columns,
        event_time=source.event_time,
        recorded_time=source.recorded_time,
        lag=source.lag,
        checks=source.checks,
        description=source.description,
        owner=source.owner,
        pii=source.pii,
        id=source.id,
        retracted=source.retracted,
    )


def _dump_group(group: FeatureGroup) -> _View | _Request | _Function:
    if isinstance(group, FeatureView):
        return _dump_view(group)
    if isinstance(group, RequestFunction):
        return _Function(group.name, group.function, group.description, group.owner, dict(group.tags))
    return _Request(group.name, dict(group.features), group.description, group.owner, dict(group.tags))


def _dump_view(view: FeatureView) -> _View:
    return _View(
        view.name,
        view.entity.name,
        view.source.name,
        dict(view.features),
        view.description,
        view.owner,
        dict(view.derived),
        view.order if view.derived else (),
        dict(view.tags),
    )


def _load_view(view: _View, sources: Mapping[str, Source], entities: Mapping[str, Entity]) -> FeatureView:
    return FeatureView(
        view.name,
        entities[view.entity],
        sources[view.source],
        view.features,
        view.description,
        view.owner,
        view.derived,
        view.order,
        view.tags,
    )


def _load_request(group: _Request | _Function, views: Mapping[str, FeatureView]) -> RequestFeatures:
    if isinstance(group, _Function):
        return RequestFunction(
            group.name, description=group.description, owner=group.owner, tags=group.tags, function=group.function
        )
    used = {
        name.partition(".")[0]
        for expression in group.features.values()
        for name in columns_of(expression)
        if "." in name
    }
    return RequestFeatures(
        group.name,
        group.features,
        group.description,
        group.owner,
        tuple(views[name] for name in sorted(used)),
        group.tags,
    )
