"""Checks of what a project declares: of one definition, and of those that name each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from mainspring.core.definition_registry import Declared
from mainspring.core.errors import MainspringError
from mainspring.core.nearest import meant
from mainspring.cost.budgets.declaring import SCALE_DOWN, Budget
from mainspring.cost.teams import KINDS as PAID_FOR
from mainspring.cost.teams import Team
from mainspring.data.streams.declaring import Stream
from mainspring.delivery.approving import APPROVED
from mainspring.delivery.retrieval import gate_metrics
from mainspring.delivery.rollout.plan import ANSWERS, Rollout, unfit
from mainspring.features.check import check_groups
from mainspring.features.functions.model import DerivedSource
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures
from mainspring.jobs.declaring import OwnJob
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.jobs.pipelines.graph import APPROVAL, JOB, STEP
from mainspring.jobs.pipelines.values import Constant, Several
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.declaring import LanguageModel
from mainspring.project.built_in_jobs import BUILT_IN as BUILT_IN_JOBS
from mainspring.project.definitions.checking_monitors import check_monitors
from mainspring.project.definitions.model import KINDS
from mainspring.security.quota import LABELS, Quota
from mainspring.serving.model import Endpoint
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.training.gate_kinds import Gate
from mainspring.training.inputs import check_declared
from mainspring.training.label import label_keys
from mainspring.training.model import Model, named_features
from mainspring.vectors.declaring import Collection as DocumentCollection


def problems(declared: Declared, known: Callable[[str], bool]) -> Iterable[tuple[str, int, str]]:
    """Yield the problems of declarations: file, line, and what is wrong with the fix.

    Args:
        known: Returns whether a model is registered; called if an endpoint serves a model that is not declared.
    """

    def line(item: object, what: str, fix: str) -> tuple[str, int, str]:
        place = declared.place(item)
        return place.file, place.line, f"{place}: {what.rstrip('.')}. Fix: {fix}"

    for _, kind, word in KINDS:
        first_of: dict[str, object] = {}
        for item in declared.of(kind):
            name = str(getattr(item, "name", ""))
            if name in first_of:
                first = declared.place(first_of[name])
                yield line(
                    item, f"There are two {word}s named {name!r}; the first is at {first}", "rename one of them."
                )
            first_of.setdefault(name, item)
    models = declared.of(Model)
    groups: list[FeatureGroup] = [
        item for item, _ in declared.items if isinstance(item, (FeatureView, RequestFeatures))
    ]
    used = {id(group) for model in models for group in (*model.features, *model.baseline, *model.slice_views)}
    for item, what, fix in check_groups([group for group in groups if id(group) not in used], None):
        yield line(item, what, fix)
    for model in models:
        others = [view for view in model.slice_views if all(view is not group for group in model.features)]
        wrong = check_groups([*model.features, *others], model.observations)
        yield from (line(*problem) for problem in wrong)
        yield from (line(model, *problem) for problem in _gates(model))
        stray = named_features(
            model.baseline, [column for column in model.baseline_columns if column not in model.columns]
        )
        if stray:
            yield line(
                model,
                f"The baseline of {model.name!r} has {stray}, which the model does not have",
                "add them to features.",
            )
        try:
            label_keys(model.observations, model.label)
            if not wrong:  # else a feature's type may be unknown
                check_declared(model)
        except MainspringError as error:
            yield line(model, error.what, error.fix or "check the label's source.")
    for job in declared.of(OwnJob):
        if job.name in (*BUILT_IN_JOBS, STEP, APPROVAL):
            yield line(job, f"The job {job.name!r} has the name of a built-in job", "give it another name.")
    names = {model.name for model in models}
    for endpoint in declared.of(Endpoint):
        if endpoint.model_name not in names and not known(endpoint.model_name):
            yield line(
                endpoint,
                f"Endpoint {endpoint.name!r} serves the model {endpoint.model_name!r}, which is not declared",
                f"the project's models are {sorted(names)}; to register a file as a version, run `mainspring "
                f"models add {endpoint.model_name} FILE`.",
            )
    yield from (line(*problem) for problem in _collections(declared))
    yield from (line(*problem) for problem in _built(declared))
    yield from (line(*problem) for problem in _retentions(declared))
    yield from (line(*problem) for problem in _quotas(declared))
    yield from (line(*problem) for problem in _streams(declared))
    yield from (line(*problem) for problem in _language_models(declared))
    yield from (line(*problem) for problem in _budgets(declared, names))
    yield from (line(*problem) for problem in _teams(declared, names))
    yield from (line(*problem) for problem in _rollouts(declared, models))
    yield from (line(*problem) for problem in check_monitors(declared, models))


def _budgets(declared: Declared, models: Collection[str]) -> Iterable[tuple[object, str, str]]:
    """Yield budgets of what is not declared. Teams are groups of accounts, which no definition names."""
    endpoints = {item.name for item in declared.of(Endpoint)}
    asked = {each.name for each in declared.of(LanguageModel)} | {each.name for each in declared.of(Answers)}
    for budget in declared.of(Budget):
        owner = f"The budget {budget.name!r} is of the"
        for scope, name, known in (
            ("endpoint", budget.endpoint, endpoints | asked),
            ("model", budget.model, {*models, *(item.model_name for item in declared.of(Endpoint))}),
        ):
            if name and name not in known:
                yield budget, f"{owner} {scope} {name!r}, which is not declared", meant(name, known)
        if budget.team and SCALE_DOWN in budget.act and not any(item.models for item in _of(declared, budget.team)):
            what = f"{owner} team {budget.team!r}, which has no models whose endpoints could be scaled down"
            yield budget, what, f'declare them, ms.Team("{budget.team}", models=[...]), or leave the action out.'
        if budget.endpoint in asked and budget.act:
            what = f"{owner} endpoint {budget.endpoint!r}, which has no executors and sheds nothing"
            yield budget, what, "leave act out; ms.Quota(..., tokens=) limits its callers."


def _of(declared: Declared, team: str) -> list[Team]:
    return [item for item in declared.of(Team) if item.name == team]


def _teams(declared: Declared, models: Collection[str]) -> Iterable[tuple[object, str, str]]:
    """Yield what a team is to pay for and is not declared, or another team pays for."""
    there = {
        "models": {*models, *(item.model_name for item in declared.of(Endpoint)), *_names(declared, Answers)},
        "pipelines": _names(declared, Pipeline), "views": _names(declared, FeatureView),
        "jobs": _names(declared, OwnJob),
    }  # fmt: skip
    taken: dict[tuple[str, str], str] = {}
    for team in declared.of(Team):
        for kind in PAID_FOR:
            for name in getattr(team, kind):
                what = f"The team {team.name!r} pays for the {kind.removesuffix('s')} {name!r}"
                if name not in there[kind]:
                    yield team, f"{what}, which is not declared", meant(name, there[kind])
                elif taken.setdefault((kind, name), team.name) != team.name:
                    other = taken[kind, name]
                    yield team, f"{what}, as the team {other!r} does", "let one of them pay for it."


def _names(declared: Declared, kind: type[Any]) -> set[str]:
    return {str(item.name) for item in declared.of(kind)}


def _built(declared: Declared) -> Iterable[tuple[object, str, str]]:
    """Yield steps of pipelines that build a collection which is not declared."""
    names = {item.name for item in declared.of(DocumentCollection)}
    for pipeline in declared.of(Pipeline):
        for node in pipeline.graph.nodes:
            value = dict(node.inputs).get("collections") if node.function == f"{JOB}collections" else None
            several = value.items if isinstance(value, Several) else (value,)
            given = [each.value for each in several if isinstance(each, Constant)]
            for name in given if isinstance(value, Several) else given[0] if given and given[0] else ():
                if isinstance(name, str) and name not in names:
                    what = f"Step {node.name!r} of the pipeline {pipeline.name!r} builds the collection {name!r}"
                    yield pipeline, f"{what}, which is not declared", meant(name, names)


def _collections(declared: Declared) -> Iterable[tuple[object, str, str]]:
    for item in declared.of(DocumentCollection):
        try:
            gate_metrics(item.gates, f"Collection {item.name!r}")
        except MainspringError as error:
            yield item, error.what, error.fix or "correct its gates."
    endpoints = {str(getattr(item, "name", "")) for kind in (Endpoint, StreamEndpoint) for item in declared.of(kind)}
    models = {item.name for item in declared.of(Model)}
    asked = {item.name for item in declared.of(LanguageModel)}
    for chain in declared.of(Answers):
        # The log, the registry and callers have both by name.
        for kind, names in (("an endpoint", endpoints), ("a model", models), ("a language model", asked)):
            if chain.name in names:
                yield chain, f"The answers {chain.name!r} have the name of {kind}", "give them another name."
        try:
            measured = [gate for gate in chain.gates if not (isinstance(gate, Gate) and gate.kind == APPROVED)]
            gate_metrics(measured, f"The answers {chain.name!r}", chain.judgements)
        except MainspringError as error:
            yield chain, error.what, error.fix or "correct its gates."


def _retentions(declared: Declared) -> Iterable[tuple[object, str, str]]:
    for view in declared.of(FeatureView):
        removed = {name for each in view.source.retentions for name in each.columns} & view.entity.keys.keys()
        if removed:
            what = f"Source {view.source.name!r} cannot lose {min(removed)!r} alone: {view.name!r} has it as key"
            yield view.source, what, "name other columns, or let the rows be deleted."


def _quotas(declared: Declared) -> Iterable[tuple[object, str, str]]:
    known: dict[str, Quota] = {}
    limits: list[Endpoint | LanguageModel | Answers | DocumentCollection] = [
        *declared.of(Endpoint), *declared.of(LanguageModel), *declared.of(Answers), *declared.of(DocumentCollection)
    ]  # fmt: skip
    for limited in limits:
        for quota in limited.quotas:
            if known.setdefault(quota.name, quota) != quota:
                yield limited, f"There are two quotas named {quota.name!r}, which differ", "rename one of them."
    models = {item.name: item for item in declared.of(Model)}
    for endpoint in declared.of(Endpoint):
        model = models.get(endpoint.model_name)
        labels = any(each.labels for each in endpoint.outputs) or any(each.spent == LABELS for each in endpoint.quotas)
        if labels and model is not None and model.task == "regression":
            yield (
                endpoint,
                f"Endpoint {endpoint.name!r} answers labels, which a regression has not",
                "write digits=2.",
            )
        top = any(each.top is not None for each in endpoint.outputs)
        if top and model is not None and model.task in ("binary", "regression"):
            what = f"Endpoint {endpoint.name!r} answers the largest classes, but its model has one output"
            yield endpoint, what, "write digits=2."


def _streams(declared: Declared) -> Iterable[tuple[object, str, str]]:
    for stream in declared.of(Stream):
        if isinstance(stream.source, DerivedSource):
            what = f"The stream is of the source {stream.name!r}, which is computed from {stream.source.parent.name!r}"
            yield stream, what, "declare a stream of that source."
    sources = {stream.name for stream in declared.of(Stream)}
    for endpoint in declared.of(StreamEndpoint):  # commands, tables of dead letters and locks have a stream's name
        if endpoint.name in sources:
            what = f"The stream endpoint {endpoint.name!r} has the name of a source with a stream"
            yield endpoint, what, "give it another name."


def _language_models(declared: Declared) -> Iterable[tuple[object, str, str]]:
    endpoints = {endpoint.name for endpoint in declared.of(Endpoint)}
    for model in declared.of(LanguageModel):  # policies and roles name both as endpoints
        if model.name in endpoints:
            yield model, f"The language model {model.name!r} has the name of an endpoint", "give it another name."


def _rollouts(declared: Declared, models: Iterable[Model]) -> Iterable[tuple[object, str, str]]:
    chains = {item.name: item for item in declared.of(Answers)}
    endpoints = {item.name: item for item in declared.of(Endpoint)}
    named = {model.name: model for model in models}
    for rollout in declared.of(Rollout):
        endpoint, chain = endpoints.get(rollout.endpoint), chains.get(rollout.endpoint)
        if chain is not None:
            wrong = unfit(rollout.plan, ANSWERS, chain.labels, chain.keys)
            if wrong is not None:
                yield rollout, f"The rollout of {rollout.endpoint!r} {wrong[0]}", wrong[1]
            continue
        if endpoint is None:
            yield (
                rollout,
                f"The rollout is of the endpoint {rollout.endpoint!r}, which is not declared",
                f"the project's endpoints and chains of answers are {sorted({*endpoints, *chains})}.",
            )
            continue
        model = named.get(endpoint.model_name)
        # Of a model that is registered only, neither the task nor labels are declared.
        wrong = (
            unfit(rollout.plan, "", ()) if model is None else unfit(rollout.plan, model.task, model.labels, model.keys)
        )
        if wrong is not None:
            yield rollout, f"The rollout of {rollout.endpoint!r} {wrong[0]}", wrong[1]


def _gates(model: Model) -> Iterable[tuple[str, str]]:
    known = model.metric_names
    for gate in model.gates:
        if gate.names_metric and gate.metric not in known:
            yield (
                f"Model {model.name!r} has a gate on {gate.metric!r}, which is not a metric of a {model.task} model",
                f"use one of {', '.join(known)}, or declare it: metrics=[...].",
            )
