"""Contents of definitions as JSON, as they are stored and compared: the same of one definition in all versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from mainspring.core.expr.render import render
from mainspring.data.model import Source
from mainspring.data.streams.declaring import Stream
from mainspring.delivery.rollout.plan import Rollout
from mainspring.features.functions.model import DerivedSource, FeatureFunction, RequestFunction
from mainspring.features.model import FeatureView, RequestFeatures
from mainspring.jobs.declaring import OwnJob
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.prompts import Prompt
from mainspring.monitoring.declaring import Monitor
from mainspring.security.quota import Price
from mainspring.serving.devices.device import CPU
from mainspring.serving.model import REFUSE, Endpoint
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.training.model import Model, named_features
from mainspring.vectors.declaring import Collection as DocumentCollection
from mainspring.vectors.declaring import Reranker
from mainspring.vectors.evaluation.declaring import EvaluationSet

_FOR_THE_GATEWAY = (Retriever, Answers, DocumentCollection)  # which has none of the project's modules


def content(item: Any) -> str:
    """Return a definition as JSON, one field per line."""
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
    if isinstance(item, (Endpoint, Monitor)):
        body = _endpoint(item, body) if isinstance(item, Endpoint) else _monitor(item, body)
    return _pretty(body)


def _monitor(item: Monitor, body: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only collections have, so that other monitors keep their content."""
    if item.least_similarity is None:
        body = {name: value for name, value in body.items() if name != "least_similarity"}
    return _without_empty(body, "collection", "recall", "freshness")


def _endpoint(item: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """Leave out rare options that are not used, so that other endpoints keep their content."""
    stored = {} if item.without_store == REFUSE else {"without_store": item.without_store}
    price = {} if item.price == Price() else {"price": body["price"]}
    unusual = _without_empty(body["unusual"] or {}, "answer")
    usual = {"executors": (1, 1), "idle": "5m", "device": CPU}
    scaling = {name: body[name] for name, value in usual.items() if getattr(item, name) != value}
    del body["replicas"]
    unused = {**body, "without_store": "", "price": "", "unusual": unusual} | dict.fromkeys(usual, "")
    rare = ("without_store", "unusual", "quotas", "price", "outputs", "cache", "resident", *usual)
    return _without_empty(unused, *rare) | stored | price | scaling


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
