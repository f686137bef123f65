"""Lineage from sources to features, models and endpoints, computed from definitions, versions and routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mainspring.features.functions.model import DerivedSource
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, views_of
from mainspring.registry.model import ModelVersion
from mainspring.serving.model import Endpoint, Route
from mainspring.training.model import Model

SOURCE, VIEW, REQUEST, MODEL, ENDPOINT = "source", "view", "request", "model", "endpoint"


@dataclass(frozen=True, slots=True)
class Node:
    """One part of a project. `note` is one line about its current state; `live` is true if requests reach it."""

    kind: str
    name: str
    note: str = ""
    live: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """Flow from `start` to `end`, by their ids: `rows`, `features`, `labels`, `observations`,
    `consent`, `versions`."""

    start: str
    end: str
    gives: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """An acyclic graph, ordered by kind and name."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def around(self, kind: str, name: str) -> Lineage:
        """Return the ancestors and descendants of one node; empty if there is no such node."""
        centre = f"{kind}:{name}"
        before, after = self._reach(centre, forward=False), self._reach(centre, forward=True)
        kept = {node.id for node in self.nodes} & {centre, *before, *after}
        return Lineage(
            tuple(node for node in self.nodes if node.id in kept),
            tuple(
                edge
                for edge in self.edges
                if {edge.start, edge.end} <= {centre, *before} or {edge.start, edge.end} <= {centre, *after}
            ),
        )

    def _reach(self, start: str, *, forward: bool) -> set[str]:
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            current = waiting.pop()
            for edge in self.edges:
                near, far = (edge.start, edge.end) if forward else (edge.end, edge.start)
                if near == current and far not in reached:
                    reached.add(far)
                    waiting.append(far)
        return reached


def lineage(
    sources: Iterable[str],
    groups: Sequence[FeatureGroup],
    models: Mapping[str, Model],
    endpoints: Mapping[str, Endpoint],
    versions: Sequence[ModelVersion],
    routes: Mapping[str, Route],
) -> Lineage:
    """Return the lineage of a project.

    Args:
        sources: Names of the declared sources; others that views or observations read are added.
        groups: Feature views and request features; those that models use are added.
        endpoints: Declared endpoints; endpoints that are only routed are added.
    """
    used = [group for model in models.values() for group in model.features]
    every: list[FeatureGroup] = [*groups, *used, *views_of(used)]
    known = {group.name: group for group in every}
    edges = list(dict.fromkeys((*_of_groups(known), *_of_models(models), *_of_endpoints(endpoints, routes))))
    read = (edge.start.partition(":")[2] for edge in edges if edge.start.startswith(f"{SOURCE}:"))
    named = {edge.start.partition(":")[2] for edge in edges if edge.start.startswith(f"{MODEL}:")}
    nodes = [
        *(Node(SOURCE, name) for name in sorted({*sources, *read})),
        *(_group(known[name]) for name in sorted(known)),
        *(
            _model(name, [version for version in versions if version.model == name])
            for name in sorted({*models, *named})
        ),
        *(_endpoint(name, routes.get(name)) for name in sorted({*endpoints, *routes})),
    ]
    return Lineage(tuple(nodes), tuple(edges))


def models_using(models: Mapping[str, Model], view: str) -> tuple[str, ...]:
    """Return the names of the models that use a view's features, directly or through request features."""
    return tuple(
        name
        for name, model in sorted(models.items())
        if view in {group.name for group in (*model.features, *views_of(list(model.features)))}
    )


def _of_groups(groups: Mapping[str, FeatureGroup]) -> Iterator[Edge]:
    for group in groups.values():
        if isinstance(group, FeatureView):
            yield Edge(f"{SOURCE}:{group.source.name}", f"{VIEW}:{group.name}", "rows")
            source = group.source
            while isinstance(source, DerivedSource):
                yield Edge(f"{SOURCE}:{source.parent.name}", f"{SOURCE}:{source.name}", "rows")
                source = source.parent
        else:
            for view in group.views:
                yield Edge(f"{VIEW}:{view.name}", f"{REQUEST}:{group.name}", "features")


def _of_models(models: Mapping[str, Model]) -> Iterator[Edge]:
    for model in models.values():
        end = f"{MODEL}:{model.name}"
        for group in model.features:
            yield Edge(f"{VIEW if isinstance(group, FeatureView) else REQUEST}:{group.name}", end, "features")
            if isinstance(group, RequestFeatures) and group.fields:
                yield Edge(f"{SOURCE}:{model.observations.source.name}", f"{REQUEST}:{group.name}", "observations")
        yield Edge(f"{SOURCE}:{model.observations.source.name}", end, "observations")
        if model.observations.consent is not None:
            yield Edge(f"{SOURCE}:{model.observations.consent.source.name}", end, "consent")
        for source in dict.fromkeys(label.source.name for label in model.labels):
            yield Edge(f"{SOURCE}:{source}", end, "labels")


def _of_endpoints(endpoints: Mapping[str, Endpoint], routes: Mapping[str, Route]) -> Iterator[Edge]:
    for name in sorted({*endpoints, *routes}):
        model = routes[name].model if name in routes else endpoints[name].model_name
        yield Edge(f"{MODEL}:{model}", f"{ENDPOINT}:{name}", "versions")


def _group(group: FeatureGroup) -> Node:
    count = f"{len(group.columns)} {'feature' if len(group.columns) == 1 else 'features'}"
    if isinstance(group, FeatureView):
        return Node(VIEW, group.name, f"{count} of {group.entity.name}")
    return Node(REQUEST, group.name, f"{count}, computed on demand")


def _model(name: str, versions: Sequence[ModelVersion]) -> Node:
    if not versions:
        return Node(MODEL, name, "no version yet")
    aliases = sorted((alias, each.version) for each in versions for alias in each.aliases)
    count = f"{len(versions)} {'version' if len(versions) == 1 else 'versions'}"
    return Node(MODEL, name, ", ".join([count, *(f"{alias} is {version}" for alias, version in aliases)]))


def _endpoint(name: str, route: Route | None) -> Node:
    if route is None or not route.arms:
        return Node(ENDPOINT, name, "not live")
    if len(route.arms) == 1:
        return Node(ENDPOINT, name, f"version {route.arms[0].version} is live", live=True)
    total = sum(arm.weight for arm in route.arms) or 1.0
    shares = ", ".join(f"{arm.version} ({100 * arm.weight / total:.0f}%)" for arm in route.arms)
    return Node(ENDPOINT, name, f"versions {shares} are live", live=True)
