"""Checks of monitors against what a project declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mainspring.core.definition_registry import Declared
from mainspring.features.model import FeatureView
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.llm.answers.declaring import Answers
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.incidents.actions import START
from mainspring.monitoring.notify.declaring import Target
from mainspring.serving.model import Endpoint
from mainspring.training.model import Model
from mainspring.vectors.declaring import Collection as DocumentCollection

Problem = tuple[object, str, str]  # the declaration, what is wrong, the fix


def check_monitors(declared: Declared, models: Iterable[Model]) -> Iterable[Problem]:
    """Yield the problems of the declared monitors: a monitor, what is wrong, the fix."""
    chains = {item.name for item in declared.of(Answers)}
    endpoints = {item.name: item for item in declared.of(Endpoint)}
    collections = {item.name for item in declared.of(DocumentCollection)}
    named = {model.name: model for model in models}
    receivers: dict[str, Target] = {}
    pipelines = {item.name for item in declared.of(Pipeline)}
    for monitor in declared.of(Monitor):
        yield from _reactions(monitor, receivers, pipelines)
        if monitor.collection:
            yield from _of_collection(monitor, collections, {*endpoints, *chains})
            continue
        yield from _of_endpoint(monitor, endpoints, chains, named)
        views = sorted(view.name for view in declared.of(FeatureView))
        for objective in monitor.objectives:
            if objective.view and objective.view not in views:
                yield (
                    monitor,
                    f"The monitor of {monitor.endpoint!r} promises the freshness of {objective.view!r}, which is no "
                    "feature view",
                    f"use one of {views}.",
                )


def _of_endpoint(
    monitor: Monitor, endpoints: Mapping[str, Endpoint], chains: Collection[str], named: Mapping[str, Model]
) -> Iterable[Problem]:
    endpoint = endpoints.get(monitor.endpoint)
    if unfitting := monitor.for_collections:
        yield (
            monitor,
            f"The monitor of {monitor.endpoint!r} has {unfitting[0]}, which only a collection has",
            "leave it out.",
        )
    if monitor.endpoint in chains:
        if unfitting := monitor.for_endpoints:
            yield (
                monitor,
                f"The monitor of {monitor.endpoint!r} has {unfitting[0]}, which a chain of answers has not",
                "leave it out; what holds is alarms_per_week, notify, actions, clean_windows and cool_down.",
            )
        return
    if endpoint is None:
        yield (
            monitor,
            f"The monitor is of the endpoint {monitor.endpoint!r}, which is not declared",
            f"the project's endpoints and chains of answers are {sorted({*endpoints, *chains})}.",
        )
        return
    model = named.get(endpoint.model_name)
    named_columns = {"ranking": monitor.ranking and monitor.ranking.group}
    if monitor.forecast is not None:
        named_columns |= {"horizon": monitor.forecast.horizon, "naive forecast": monitor.forecast.naive}
    for what, column in named_columns.items():
        if model is not None and column and column not in {*model.columns, *model.keys}:
            yield (
                monitor,
                f"The monitor of {monitor.endpoint!r} has the {what} {column!r}, which is no key or input of its model",
                f"use one of {sorted({*model.columns, *model.keys})}.",
            )
    for segment in () if model is None else monitor.segments:
        if model is not None and segment not in model.columns:
            yield (
                monitor,
                f"The monitor of {monitor.endpoint!r} has the segment {segment!r}, which is no input of its model",
                f"use one of {sorted(model.columns)}.",
            )


def _of_collection(monitor: Monitor, collections: Collection[str], others: Collection[str]) -> Iterable[Problem]:
    name = monitor.collection
    if name not in collections:
        what = f"The monitor is of the collection {name!r}, which is not declared"
        yield monitor, what, f"the project's collections are {sorted(collections)}."
    if name in others:
        what = f"The collection {name!r} that is watched has the name of an endpoint or a chain of answers"
        yield monitor, what, "rename one of them: incidents go by these names."
    if unfitting := monitor.for_endpoints:
        holds = "alarms_per_week, recall, freshness, least_similarity, notify, actions, clean_windows and cool_down"
        what = f"The monitor of {name!r} has {unfitting[0]}, which a collection has not"
        yield monitor, what, f"leave it out; what holds is {holds}."
    if wrong := [each.kind for each in monitor.actions if each.kind != START]:
        what = f"The monitor of {name!r} has the action {wrong[0]!r}, which is one on an endpoint"
        yield monitor, what, 'start a pipeline: ms.actions.start("rebuild").'


def _reactions(monitor: Monitor, receivers: dict[str, Target], pipelines: Collection[str]) -> Iterable[Problem]:
    """Yield problems of a monitor's receivers and actions; `receivers` are those of the monitors before."""
    for action in monitor.actions:
        if action.name and action.name not in pipelines:
            yield (
                monitor,
                f"The monitor of {monitor.name!r} starts the pipeline {action.name!r}, which is not declared",
                f"the project's pipelines are {sorted(pipelines)}.",
            )
    for target in monitor.notify:
        known = receivers.setdefault(target.name, target)
        if known.kind != target.kind:
            yield (
                monitor,
                f"The receiver {target.name!r} is declared as {target.kind} and as {known.kind}",
                "give them different names.",
            )
