"""Definitions of a project by kind and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mainspring.core.definition_registry import collecting
from mainspring.core.errors import NotFound
from mainspring.core.nearest import meant
from mainspring.cost.budgets.declaring import Budget
from mainspring.cost.teams import Team
from mainspring.data.model import Source
from mainspring.data.streams.declaring import Stream
from mainspring.delivery.rollout.plan import Rollout
from mainspring.features.model import Entity, FeatureView, Observations, RequestFeatures
from mainspring.jobs.declaring import OwnJob
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.jobs.pipelines.graph import Graph
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.prompts import Prompt
from mainspring.monitoring.declaring import Monitor
from mainspring.project.definitions.contents import content
from mainspring.serving.model import Endpoint
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.training.gate_kinds import Gate
from mainspring.training.model import Model
from mainspring.vectors.declaring import Collection as DocumentCollection
from mainspring.vectors.declaring import Encoder, Reranker
from mainspring.vectors.evaluation.declaring import EvaluationSet

T = TypeVar("T")

# Fields of `Definitions`, with their class and the word for one, in the order in which they are stored.
KINDS: tuple[tuple[str, type[Any], str], ...] = (
    ("sources", Source, "source"),
    ("entities", Entity, "entity"),
    ("views", FeatureView, "feature view"),
    ("request_features", RequestFeatures, "request features"),
    ("models", Model, "model"),
    ("endpoints", Endpoint, "endpoint"),
    ("jobs", OwnJob, "job"),
    ("pipelines", Pipeline, "pipeline"),
    ("rollouts", Rollout, "rollout"),
    ("monitors", Monitor, "monitor"),
    ("stream_endpoints", StreamEndpoint, "stream endpoint"),
    ("streams", Stream, "stream"),
    ("encoders", Encoder, "encoder"),
    ("rerankers", Reranker, "reranker"),
    ("collections", DocumentCollection, "collection"),
    ("evaluation_sets", EvaluationSet, "evaluation set"),
    ("retrievers", Retriever, "retriever"),
    ("answers", Answers, "answers"),
    ("language_models", LanguageModel, "language model"),
    ("prompts", Prompt, "prompt"),
    ("budgets", Budget, "budget"),
    ("teams", Team, "team"),
)


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
    monitors: Mapping[str, Monitor] = field(default_factory=dict)  # by endpoint or collection
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
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)

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

    def encoder(self, name: str) -> Encoder:
        return _named(self.encoders, name, "encoder")

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
        return {(word, name): content(item) for items, _, word in KINDS for name, item in getattr(self, items).items()}


def _named(items: Mapping[str, T], name: str, kind: str) -> T:
    if name not in items:
        raise NotFound(f"The project has no {kind} {name!r}.", fix=meant(name, items))
    return items[name]
