"""Loading, collection and checks of a project's own modules. All problems are reported at once, with file, line and
fix.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mainspring.core.definition_registry import Declared, Place, collecting
from mainspring.core.errors import Invalid, InvalidDefinition, MainspringError, NotFound
from mainspring.core.expr.render import render
from mainspring.core.module_files import sources
from mainspring.core.nearest import meant
from mainspring.core.settings import Settings
from mainspring.data.model import Source
from mainspring.data.streams.declaring import Stream
from mainspring.delivery.approving import APPROVED
from mainspring.delivery.retrieval import gate_metrics
from mainspring.delivery.rollout.plan import ANSWERS, Rollout, unfit
from mainspring.features.check import check_groups
from mainspring.features.functions.model import DerivedSource, FeatureFunction, RequestFunction
from mainspring.features.model import Entity, FeatureGroup, FeatureView, Observations, RequestFeatures
from mainspring.jobs.declaring import OwnJob
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.jobs.pipelines.graph import JOB, Graph
from mainspring.jobs.pipelines.values import Constant, Several
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.prompts import Prompt
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.notify.declaring import Target
from mainspring.project.built_in_jobs import BUILT_IN as BUILT_IN_JOBS
from mainspring.project.definitions.importing import importing, outdated, turn
from mainspring.project.schedules import check_scheduled
from mainspring.serving.model import REFUSE, Endpoint
from mainspring.serving.quota import LABELS, Price, Quota
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.training.gate_kinds import Gate
from mainspring.training.inputs import check_declared
from mainspring.training.label import label_keys
from mainspring.training.model import Model, named_features
from mainspring.vectors.declaring import Collection as DocumentCollection
from mainspring.vectors.declaring import Encoder, Reranker
from mainspring.vectors.evaluation.declaring import EvaluationSet

T = TypeVar("T")

_known: dict[tuple[Path, tuple[str, ...]], tuple[int, Declared]] = {}  # with the `turn` of the import

_KINDS: Mapping[type, str] = {
    Source: "source",
    Stream: "stream",
    Entity: "entity",
    FeatureView: "feature view",
    RequestFeatures: "request features",
    Model: "model",
    Endpoint: "endpoint",
    OwnJob: "job",
    Pipeline: "pipeline",
    Rollout: "rollout",
    Monitor: "monitor",
    StreamEndpoint: "stream endpoint",
    Encoder: "encoder",
    Reranker: "reranker",
    DocumentCollection: "collection",
    EvaluationSet: "evaluation set",
    Retriever: "retriever",
    Answers: "answers",
    LanguageModel: "language model",
    Prompt: "prompt",
}

_FOR_THE_GATEWAY = (Retriever, Answers, DocumentCollection)  # which has none of the project's modules


@dataclass(frozen=True)
class Definitions:
    """Definitions of the project, by name."""

    sources: Mapping[str, Source]
    entities: Mapping[str, Entity]
    views: Mapping[str, FeatureView]
    request_features: Mapping[str, RequestFeatures]
    observations: tuple[Observations, ...]
    models: Mapping[str, Model]
    endpoints: Mapping[str, Endpoint]
    jobs: Mapping[str, OwnJob]
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)  # by endpoint
    monitors: Mapping[str, Monitor] = field(default_factory=dict)  # by endpoint
    stream_endpoints: Mapping[str, StreamEndpoint] = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)  # by source
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    rerankers: Mapping[str, Reranker] = field(default_factory=dict)
    collections: Mapping[str, DocumentCollection] = field(default_factory=dict)
    evaluation_sets: Mapping[str, EvaluationSet] = field(default_factory=dict)
    retrievers: Mapping[str, Retriever] = field(default_factory=dict)
    answers: Mapping[str, Answers] = field(default_factory=dict)
    language_models: Mapping[str, LanguageModel] = field(default_factory=dict)
    prompts: Mapping[str, Prompt] = field(default_factory=dict)

    def source(self, name: str) -> Source:
        return _named(self.sources, name, "source")

    def stream(self, source: str) -> Stream:
        return _named(self.streams, source, "stream of source")

    def view(self, name: str) -> FeatureView:
        return _named(self.views, name, "feature view")

    def model(self, name: str) -> Model:
        return _named(self.models, name, "model")

    def gates_of(self, name: str) -> Sequence[Gate]:
        """Return the gates of a model or of a chain of answers; none if neither of that name is declared."""
        declared: Model | Answers | None = self.models.get(name) or self.answers.get(name)
        return () if declared is None else tuple(declared.gates)

    def pipeline(self, name: str) -> Graph:
        """Return the graph of a pipeline."""
        return _named(self.pipelines, name, "pipeline").graph

    def endpoint(self, name: str) -> Endpoint:
        if name in self.answers:
            raise NotFound(f"{name!r} is a chain of answers, no endpoint.", fix="see `mainspring answers --help`.")
        return _named(self.endpoints, name, "endpoint")

    def served(self, name: str) -> Endpoint:
        """Return an endpoint; of a chain of answers one that serves the chain's champion."""
        if name not in self.answers:
            return self.endpoint(name)
        with collecting():  # it is no endpoint of the project
            return Endpoint(name, model=f"{name}@champion")

    def stream_endpoint(self, name: str) -> StreamEndpoint:
        return _named(self.stream_endpoints, name, "stream endpoint")

    def collection(self, name: str) -> DocumentCollection:
        return _named(self.collections, name, "collection")

    def answer_chain(self, name: str) -> Answers:
        return _named(self.answers, name, "chain of answers")

    def evaluation_set(self, name: str) -> EvaluationSet:
        return _named(self.evaluation_sets, name, "evaluation set")

    def keyings(self, source: str) -> dict[str, tuple[str, ...]]:
        """Return the entities by which last values of the source are read, with their key columns."""
        return {view.entity.name: tuple(view.entity.keys) for view in self.views.values() if view.source.name == source}

    def contents(self) -> dict[tuple[str, str], str]:
        """Return (kind, name) -> content as JSON, one field per line, for storage and comparison."""
        return {
            (kind, name): _content(item)
            for kind, items in (
                ("source", self.sources),
                ("entity", self.entities),
                ("feature view", self.views),
                ("request features", self.request_features),
                ("model", self.models),
                ("endpoint", self.endpoints),
                ("job", self.jobs),
                ("pipeline", self.pipelines),
                ("rollout", self.rollouts),
                ("monitor", self.monitors),
                ("stream endpoint", self.stream_endpoints),
                ("stream", self.streams),
                ("encoder", self.encoders),
                ("reranker", self.rerankers),
                ("collection", self.collections),
                ("evaluation set", self.evaluation_sets),
                ("retriever", self.retrievers),
                ("answers", self.answers),
                ("language model", self.language_models),
                ("prompt", self.prompts),
            )
            for name, item in items.items()
        }


def _named(items: Mapping[str, T], name: str, kind: str) -> T:
    if name not in items:
        raise NotFound(f"The project has no {kind} {name!r}.", fix=meant(name, items))
    return items[name]


def load_definitions(settings: Settings, known: Callable[[str], bool] = lambda _: False) -> Definitions:
    """Import the project's modules and return their definitions.

    A repeated call returns the same objects while no file has changed, else new ones.

    Args:
        known: Returns whether a model is registered; called if an endpoint serves a model that is not declared.

    Raises:
        InvalidDefinition: A module cannot be imported, or the definitions are inconsistent.
        Invalid: `mainspring.toml` names no modules.
    """
    if not settings.modules:
        raise Invalid(
            f"{settings.root / 'mainspring.toml'} names no modules.", fix='add modules = ["PACKAGE.features"].'
        )
    declared = _declared(settings.root, settings.modules)
    problems = sorted(set(_problems(declared, known)))
    if problems:
        raise InvalidDefinition([line for _, _, line in problems])
    check_scheduled(settings, {str(getattr(item, "name", "")) for item in declared.of(OwnJob)})

    def named(kind: type) -> dict[str, Any]:
        return {item.name: item for item in declared.of(kind)}  # type: ignore[attr-defined]

    return Definitions(
        named(Source),
        named(Entity),
        named(FeatureView),
        named(RequestFeatures),
        tuple(item for item in declared.of(Observations) if isinstance(item, Observations)),
        named(Model),
        named(Endpoint),
        named(OwnJob),
        named(Pipeline),
        named(Rollout),
        named(Monitor),
        named(StreamEndpoint),
        named(Stream),
        named(Encoder),
        named(Reranker),
        named(DocumentCollection),
        named(EvaluationSet),
        named(Retriever),
        named(Answers),
        named(LanguageModel),
        named(Prompt),
    )


def load_function(settings: Settings, reference: str) -> Callable[[], Any]:
    """Return the function that `module:function` names in the project.

    Raises:
        Invalid: There is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    try:
        files = sources(settings.root, [module_name], strict=False)
        with importing(settings.root, files, [module_name]):
            module = _import(module_name, settings.root)
    except InvalidDefinition as error:
        what, _, fix = error.problems[0].partition(" Fix: ")
        raise Invalid(f"Cannot import {module_name!r}: {what}", fix=fix or None) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise Invalid(f"Module {module_name!r} has no function {name!r}.", fix="write module:function.")
    found: Callable[[], Any] = function
    return found


def _declared(root: Path, modules: tuple[str, ...]) -> Declared:
    """Return the declarations of the modules; those of imported modules come from a cache."""
    current = sources(root, modules, strict=False)
    cached = _known.get((root, modules))
    if cached is not None and cached[0] == turn(root) and current.keys() >= set(modules) and not outdated(current):
        return cached[1]
    with importing(root, current, modules, afresh=True), collecting() as declared:
        for module in modules:
            _import(module, root)
    _known[root, modules] = turn(root), declared
    return declared


def _import(name: str, root: Path) -> Any:
    try:
        return importlib.import_module(name)
    except MainspringError as error:
        raise InvalidDefinition([f"{place_of(error, root)}: {error}"]) from error
    except Exception as error:
        said = f"{place_of(error, root)}: {type(error).__name__}: {error}".rstrip(".")
        raise InvalidDefinition([f"{said}. Fix: {_remedy(error, name)}"]) from error


def _remedy(error: Exception, module: str) -> str:
    if isinstance(error, ModuleNotFoundError):
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return "write that module, or correct modules in mainspring.toml."
        return f"install the package that provides {error.name!r}, or correct the import."
    if isinstance(error, ImportError) and "circular" in str(error):
        return "let modules import each other in one direction: move shared code into a third module."
    return "correct that line."


def place_of(error: Exception, root: Path) -> Place:
    """Return the innermost line of the project's own code that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename:
        return Place(error.filename, error.lineno or 0)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    return Place(own[-1].filename, own[-1].lineno or 0) if own else Place(str(root / "mainspring.toml"), 1)


def _problems(declared: Declared, known: Callable[[str], bool]) -> Iterable[tuple[str, int, str]]:
    def line(item: object, what: str, fix: str) -> tuple[str, int, str]:
        place = declared.place(item)
        return place.file, place.line, f"{place}: {what.rstrip('.')}. Fix: {fix}"

    for kind, word in _KINDS.items():
        first_of: dict[str, object] = {}
        for item in declared.of(kind):
            name = str(getattr(item, "name", ""))
            if name in first_of:
                first = declared.place(first_of[name])
                yield line(
                    item, f"There are two {word}s named {name!r}; the first is at {first}", "rename one of them."
                )
            first_of.setdefault(name, item)
    models = [item for item in declared.of(Model) if isinstance(item, Model)]
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
        if isinstance(job, OwnJob) and job.name in BUILT_IN_JOBS:
            yield line(job, f"The job {job.name!r} has the name of a built-in job", "give it another name.")
    names = {model.name for model in models}
    for endpoint in declared.of(Endpoint):
        if isinstance(endpoint, Endpoint) and endpoint.model_name not in names and not known(endpoint.model_name):
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
    yield from (line(*problem) for problem in _rollouts(declared, models))
    yield from (line(*problem) for problem in _monitors(declared, models))


def _built(declared: Declared) -> Iterable[tuple[object, str, str]]:
    """Yield steps of pipelines that build a collection which is not declared."""
    names = {item.name for item in declared.of(DocumentCollection) if isinstance(item, DocumentCollection)}
    for pipeline in declared.of(Pipeline):
        assert isinstance(pipeline, Pipeline)
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
        assert isinstance(item, DocumentCollection)
        try:
            gate_metrics(item.gates, f"Collection {item.name!r}")
        except MainspringError as error:
            yield item, error.what, error.fix or "correct its gates."
    endpoints = {str(getattr(item, "name", "")) for kind in (Endpoint, StreamEndpoint) for item in declared.of(kind)}
    models = {item.name for item in declared.of(Model) if isinstance(item, Model)}
    asked = {item.name for item in declared.of(LanguageModel) if isinstance(item, LanguageModel)}
    for chain in declared.of(Answers):
        assert isinstance(chain, Answers)
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
        assert isinstance(view, FeatureView)
        removed = {name for each in view.source.retentions for name in each.columns} & view.entity.keys.keys()
        if removed:
            what = f"Source {view.source.name!r} cannot lose {min(removed)!r} alone: {view.name!r} has it as key"
            yield view.source, what, "name other columns, or let the rows be deleted."


def _quotas(declared: Declared) -> Iterable[tuple[object, str, str]]:
    known: dict[str, Quota] = {}
    models = {item.name: item for item in declared.of(Model) if isinstance(item, Model)}
    for endpoint in declared.of(Endpoint):
        assert isinstance(endpoint, Endpoint)
        for quota in endpoint.quotas:
            if known.setdefault(quota.name, quota) != quota:
                yield endpoint, f"There are two quotas named {quota.name!r}, which differ", "rename one of them."
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
        assert isinstance(stream, Stream)
        if isinstance(stream.source, DerivedSource):
            what = f"The stream is of the source {stream.name!r}, which is computed from {stream.source.parent.name!r}"
            yield stream, what, "declare a stream of that source."
    sources = {stream.name for stream in declared.of(Stream) if isinstance(stream, Stream)}
    for endpoint in declared.of(StreamEndpoint):  # commands, tables of dead letters and locks have a stream's name
        if isinstance(endpoint, StreamEndpoint) and endpoint.name in sources:
            what = f"The stream endpoint {endpoint.name!r} has the name of a source with a stream"
            yield endpoint, what, "give it another name."


def _language_models(declared: Declared) -> Iterable[tuple[object, str, str]]:
    endpoints = {endpoint.name for endpoint in declared.of(Endpoint) if isinstance(endpoint, Endpoint)}
    known = {quota.name: quota for item in declared.of(Endpoint) if isinstance(item, Endpoint) for quota in item.quotas}
    for model in declared.of(LanguageModel):  # policies and roles name both as endpoints
        assert isinstance(model, LanguageModel)
        if model.name in endpoints:
            yield model, f"The language model {model.name!r} has the name of an endpoint", "give it another name."
        for quota in model.quotas:
            if known.setdefault(quota.name, quota) != quota:
                yield model, f"There are two quotas named {quota.name!r}, which differ", "rename one of them."


def _rollouts(declared: Declared, models: Iterable[Model]) -> Iterable[tuple[object, str, str]]:
    chains = {item.name: item for item in declared.of(Answers) if isinstance(item, Answers)}
    endpoints = {item.name: item for item in declared.of(Endpoint) if isinstance(item, Endpoint)}
    named = {model.name: model for model in models}
    for rollout in declared.of(Rollout):
        assert isinstance(rollout, Rollout)
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


def _monitors(declared: Declared, models: Iterable[Model]) -> Iterable[tuple[object, str, str]]:
    chains = {item.name for item in declared.of(Answers) if isinstance(item, Answers)}
    endpoints = {item.name: item for item in declared.of(Endpoint) if isinstance(item, Endpoint)}
    named = {model.name: model for model in models}
    receivers: dict[str, Target] = {}
    pipelines = {item.name for item in declared.of(Pipeline) if isinstance(item, Pipeline)}
    for monitor in declared.of(Monitor):
        assert isinstance(monitor, Monitor)
        yield from _reactions(monitor, receivers, pipelines)
        endpoint = endpoints.get(monitor.endpoint)
        if monitor.endpoint in chains:
            if unfitting := monitor.for_endpoints:
                yield (
                    monitor,
                    f"The monitor of {monitor.endpoint!r} has {unfitting[0]}, which a chain of answers has not",
                    "leave it out; what holds is alarms_per_week, notify, actions, clean_windows and cool_down.",
                )
            continue
        if endpoint is None:
            yield (
                monitor,
                f"The monitor is of the endpoint {monitor.endpoint!r}, which is not declared",
                f"the project's endpoints and chains of answers are {sorted({*endpoints, *chains})}.",
            )
            continue
        model = named.get(endpoint.model_name)
        named_columns = {"ranking": monitor.ranking and monitor.ranking.group}
        if monitor.forecast is not None:
            named_columns |= {"horizon": monitor.forecast.horizon, "naive forecast": monitor.forecast.naive}
        for what, column in named_columns.items():
            if model is not None and column and column not in {*model.columns, *model.keys}:
                yield (
                    monitor,
                    f"The monitor of {monitor.endpoint!r} has the {what} {column!r}, which is no key or input of its "
                    "model",
                    f"use one of {sorted({*model.columns, *model.keys})}.",
                )
        for segment in () if model is None else monitor.segments:
            if model is not None and segment not in model.columns:
                yield (
                    monitor,
                    f"The monitor of {monitor.endpoint!r} has the segment {segment!r}, which is no input of its model",
                    f"use one of {sorted(model.columns)}.",
                )
        views = sorted(view.name for view in declared.of(FeatureView) if isinstance(view, FeatureView))
        for objective in monitor.objectives:
            if objective.view and objective.view not in views:
                yield (
                    monitor,
                    f"The monitor of {monitor.endpoint!r} promises the freshness of {objective.view!r}, which is no "
                    "feature view",
                    f"use one of {views}.",
                )


def _reactions(
    monitor: Monitor, receivers: dict[str, Target], pipelines: Collection[str]
) -> Iterable[tuple[object, str, str]]:
    """Yield problems of a monitor's receivers and actions; `receivers` are those of the monitors before."""
    for action in monitor.actions:
        if action.name and action.name not in pipelines:
            yield (
                monitor,
                f"The monitor of {monitor.endpoint!r} starts the pipeline {action.name!r}, which is not declared",
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


def _gates(model: Model) -> Iterable[tuple[str, str]]:
    known = model.metric_names
    for gate in model.gates:
        if gate.names_metric and gate.metric not in known:
            yield (
                f"Model {model.name!r} has a gate on {gate.metric!r}, which is not a metric of a {model.task} model",
                f"use one of {', '.join(known)}, or declare it: metrics=[...].",
            )


def _content(item: Any) -> str:
    if isinstance(item, Model):
        body = {
            "observations": item.observations.source.name,
            **({} if item.observations.where is None else {"where": render(item.observations.where)}),
            **({} if item.observations.consent is None else {"consent": item.observations.consent.purpose}),
            "features": item.inputs,
            "baseline": named_features(item.baseline, item.baseline_columns),
            "label": item.truth,
            **({"label_rule": rules} if (rules := _rules(item)) else {}),
            **({"label_entity": item.label.entity.name} if item.label.entity else {}),
            "task": item.task,
            "gates": [str(gate) for gate in item.gates],
            "holdout": item.holdout,
            "seed": item.seed,
            **_options(item),
            "owner": item.owner,
            "description": item.description,
        }
        return _pretty(body)
    if isinstance(item, Pipeline):
        return _pretty(item.graph.document())
    if isinstance(item, OwnJob):
        return _pretty({"function": item.reference, "about": item.about})
    if isinstance(item, FeatureView):
        named = {"entity": item.entity.name, "source": item.source.name, "order": item.order if item.derived else ()}
        return _pretty(_without_empty({**msgspec.to_builtins(item), **named}, "derived", "order", "tags"))
    if isinstance(item, RequestFunction):
        about = {"description": item.description, "owner": item.owner, "tags": dict(item.tags)}
        return _pretty(_without_empty({"name": item.name, **_function(item.function), **about}, "tags"))
    if isinstance(item, RequestFeatures):
        named = {"views": [view.name for view in item.views]}
        return _pretty(_without_empty({**msgspec.to_builtins(replace(item, views=())), **named}, "views", "tags"))
    if isinstance(item, (StreamEndpoint, EvaluationSet, Prompt, Retriever, Reranker, Answers, DocumentCollection)):
        return _pretty(item.stored() if isinstance(item, _FOR_THE_GATEWAY) else item.document())
    if isinstance(item, Stream):
        return _pretty({**_without_empty(msgspec.to_builtins(item), "schema", "message"), "source": item.name})
    if isinstance(item, Rollout):
        return _pretty(item.plan)
    body = msgspec.to_builtins(item)
    if isinstance(item, DerivedSource):
        body |= {"parent": item.parent.name, "function": _function(item.function)}
    if isinstance(item, Source):
        body = _without_empty(body, "id", "retracted", "retention", "privacy", "signed_by")
    if isinstance(item, Endpoint):
        body = _endpoint(item, body)
    return _pretty(body)


def _endpoint(item: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """Leave out rare options that are not used, so that other endpoints keep their content."""
    stored = {} if item.without_store == REFUSE else {"without_store": item.without_store}
    price = {} if item.price == Price() else {"price": body["price"]}
    unusual = _without_empty(body["unusual"] or {}, "answer")
    unused = {**body, "without_store": "", "price": "", "unusual": unusual}
    return _without_empty(unused, "without_store", "unusual", "quotas", "price", "outputs") | stored | price


def _function(function: FeatureFunction) -> dict[str, Any]:
    """Return a feature function as it is compared: its code by digest."""
    body: dict[str, Any] = msgspec.to_builtins(function)
    return _without_empty({**body, "code": str(function.code), "digest": function.digest}, "vectors", "version")


def _rules(model: Model) -> str:
    if len(model.labels) == 1:
        return model.label.rule
    return "; ".join(f"{each.column} {each.rule}" for each in model.labels if each.rule)


def _options(model: Model) -> dict[str, Any]:
    """Return a model's rare options if declared, so that the content of other models is the same in all versions."""
    custom = [
        f"{metric.name}, {'higher' if metric.higher_is_better else 'lower'} is better" for metric in model.metrics
    ]
    costs = model.threshold
    rare: dict[str, Any] = {"metrics": custom} if custom else {}
    if model.embargo:
        rare["embargo"] = model.embargo
    if model.accept_findings:
        rare["accept_findings"] = list(model.accept_findings)
    if model.search is not None:
        chosen = model.search
        rare["search"] = f"by {chosen.metric}, {chosen.trials} trials, pruner {chosen.pruner} by {chosen.watched}"
        rare["search_space"] = {name: repr(dimension) for name, dimension in sorted(chosen.space.items())}
    if costs is not None:
        rare["threshold"] = (
            f"costs {costs.false_positive:g} a false positive, {costs.false_negative:g} a false negative"
        )
    if model.mutable:
        rare["mutable"] = dict(model.mutable)
    return rare


def _without_empty(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out unused rare options, so that the content of a definition is the same in all versions."""
    return {name: value for name, value in body.items() if value or name not in names}


def _pretty(body: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(body, order="deterministic"), indent=1).decode()
