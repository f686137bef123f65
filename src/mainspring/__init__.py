"""Mainspring: the production half of machine learning in one Python package.

`import mainspring as ms` gives the words a project is written in. Each is imported when it is first used, so the
import itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mainspring.core.environment import set_variable
from mainspring.core.version import __version__ as __version__

# ONNX Runtime reports to its makers, and writes into the user's home, unless it is told not to before its import.
set_variable("ORT_DISABLE_TELEMETRY", "1")

# Pandera sets it to "1" where nobody has set it, for Spark; pyarrow then takes the time of `datetime(..., tzinfo=zone)`
# for UTC, whatever the zone. An empty text means no.
set_variable("PYARROW_IGNORE_TIMEZONE", "")

_HOMES = {
    "mainspring.core.schema": ["Boolean", "Float32", "Float64", "Int32", "Int64", "String", "Timestamp"],
    "mainspring.core.expr": ["col", "days", "greatest", "hours", "least", "minutes", "seconds", "when"],
    "mainspring.core.errors": ["MainspringError"],
    "mainspring.cost.budgets.declaring": ["Budget"],
    "mainspring.cost.teams": ["Team"],
    "mainspring.data.checks": [
        "fresh", "in_range", "length", "matches", "none_of", "not_null", "one_of", "unique",
    ],
    "mainspring.data.model": ["Privacy", "Retention", "Source"],
    "mainspring.data.streams.declaring": ["Stream"],
    "mainspring.delivery.rollout.plan": ["Rollout"],
    "mainspring.features.aggregations": [
        "count", "distinct", "first", "last", "last_k", "max", "mean", "min", "quantile", "quantiles", "std", "sum",
        "top_k", "variance",
    ],
    "mainspring.features.declaring": ["feature_view", "on_demand_features", "request_features"],
    "mainspring.features.functions.declaring": ["python_features", "vector"],
    "mainspring.features.functions.embedding": ["cosine", "embedding"],
    "mainspring.features.model": ["Consent", "Entity", "FeatureView", "Observations"],
    "mainspring.jobs.declaring": ["job"],
    "mainspring.jobs.pipelines.declaring": [
        "approval", "drifted", "incident", "landed", "only_if", "pipeline", "webhook",
    ],
    "mainspring.jobs.pipelines.steps": ["step", "task"],
    "mainspring.ledger.model": ["Log"],
    "mainspring.llm.guarding.declaring": ["Argument", "Guard", "Tool"],
    "mainspring.llm.answers.declaring": ["Answers", "Retriever"],
    "mainspring.llm.answers.judges": ["Judge"],
    "mainspring.llm.declaring": ["LanguageModel", "TokenPrice", "UpstreamModel"],
    "mainspring.llm.prompts": ["Prompt", "Variable"],
    "mainspring.core.circuit_breaker": ["BreakerRule"],
    "mainspring.llm.limits": ["AnswerCache", "Fallback"],
    "mainspring.monitoring.declaring": ["Monitor"],
    "mainspring.monitoring.quality.declared": ["Forecast", "Ranking"],
    "mainspring.monitoring.quality.sql_metrics": ["sql_metric"],
    "mainspring.stats.metrics": ["metric", "precision_at_k", "recall_at_k", "recall_at_precision"],
    "mainspring.stats.thresholds": ["Costs"],
    "mainspring.training.distribution": ["Distributed"],
    "mainspring.training.flavours.calibration": ["calibrated"],
    "mainspring.training.gates": ["approved", "at_least", "at_most", "beats", "complete_card"],
    "mainspring.training.label": ["Label"],
    "mainspring.training.boosting.lightgbm": ["fit_lightgbm"],
    "mainspring.training.boosting.xgboost": ["fit_xgboost"],
    "mainspring.training.loading.loader": ["Loader"],
    "mainspring.training.loop.fit": ["fit_torch"],
    "mainspring.training.loop.lora": ["fit_lora"],
    "mainspring.training.optimise.distilling": ["distil"],
    "mainspring.training.optimise.pruning": ["prune"],
    "mainspring.training.model": ["Model", "model"],
    "mainspring.training.runs.run": ["Run"],
    "mainspring.training.sets.training_set": ["TrainingSet"],
    "mainspring.training.space": ["Search", "choice", "integer", "log_uniform", "space", "uniform"],
    "mainspring.training.loop.stopping": ["EarlyStopping"],
    "mainspring.serving.model": ["Cache", "Endpoint", "Unusual"],
    "mainspring.serving.outputs": ["Outputs"],
    "mainspring.security.quota": ["Price", "Quota"],
    "mainspring.serving.streaming.declaring": ["StreamEndpoint", "session", "to_table", "to_topic", "to_webhook"],
    "mainspring.serving.streaming.event": ["StreamEvent"],
    "mainspring.vectors.evaluation.declaring": ["EvaluationSet"],
    "mainspring.operations.opened": ["open"],
    "mainspring.vectors.declaring": ["Collection", "Encoder", "Reranker"],
    "mainspring.vectors.documents": ["read_documents"],
}  # fmt: skip
# A group is the module of its names: `ms.checks.not_null` is `ms.not_null`.
_GROUPS = {
    "actions": "mainspring.monitoring.incidents.actions",
    "checks": "mainspring.data.checks",
    "chunks": "mainspring.vectors.chunking.declaring",
    "gates": "mainspring.training.gates",
    "guards": "mainspring.delivery.rollout.guards",
    "notify": "mainspring.monitoring.notify.declaring",
    "objectives": "mainspring.monitoring.service.objectives",
    "search": "mainspring.training.space",
}
_RENAMED = {"sum": "sum_", "min": "min_", "max": "max_", "open": "open_folder"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names} | _GROUPS

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  (a type checker reads the imports below)

if TYPE_CHECKING:
    from mainspring.core.circuit_breaker import BreakerRule as BreakerRule
    from mainspring.core.errors import MainspringError as MainspringError
    from mainspring.core.expr import col as col
    from mainspring.core.expr import days as days
    from mainspring.core.expr import greatest as greatest
    from mainspring.core.expr import hours as hours
    from mainspring.core.expr import least as least
    from mainspring.core.expr import minutes as minutes
    from mainspring.core.expr import seconds as seconds
    from mainspring.core.expr import when as when
    from mainspring.core.schema import Boolean as Boolean
    from mainspring.core.schema import Float32 as Float32
    from mainspring.core.schema import Float64 as Float64
    from mainspring.core.schema import Int32 as Int32
    from mainspring.core.schema import Int64 as Int64
    from mainspring.core.schema import String as String
    from mainspring.core.schema import Timestamp as Timestamp
    from mainspring.cost.budgets.declaring import Budget as Budget
    from mainspring.cost.teams import Team as Team
    from mainspring.data import checks as checks
    from mainspring.data.checks import fresh as fresh
    from mainspring.data.checks import in_range as in_range
    from mainspring.data.checks import length as length
    from mainspring.data.checks import matches as matches
    from mainspring.data.checks import none_of as none_of
    from mainspring.data.checks import not_null as not_null
    from mainspring.data.checks import one_of as one_of
    from mainspring.data.checks import unique as unique
    from mainspring.data.model import Privacy as Privacy
    from mainspring.data.model import Retention as Retention
    from mainspring.data.model import Source as Source
    from mainspring.data.streams.declaring import Stream as Stream
    from mainspring.delivery.rollout import guards as guards
    from mainspring.delivery.rollout.plan import Rollout as Rollout
    from mainspring.features.aggregations import count as count
    from mainspring.features.aggregations import distinct as distinct
    from mainspring.features.aggregations import first as first
    from mainspring.features.aggregations import last as last
    from mainspring.features.aggregations import last_k as last_k
    from mainspring.features.aggregations import max_, min_, sum_
    from mainspring.features.aggregations import mean as mean
    from mainspring.features.aggregations import quantile as quantile
    from mainspring.features.aggregations import quantiles as quantiles
    from mainspring.features.aggregations import std as std
    from mainspring.features.aggregations import top_k as top_k
    from mainspring.features.aggregations import variance as variance
    from mainspring.features.declaring import feature_view as feature_view
    from mainspring.features.declaring import on_demand_features as on_demand_features
    from mainspring.features.declaring import request_features as request_features
    from mainspring.features.functions.declaring import python_features as python_features
    from mainspring.features.functions.declaring import vector as vector
    from mainspring.features.functions.embedding import cosine as cosine
    from mainspring.features.functions.embedding import embedding as embedding
    from mainspring.features.model import Consent as Consent
    from mainspring.features.model import Entity as Entity
    from mainspring.features.model import FeatureView as FeatureView
    from mainspring.features.model import Observations as Observations
    from mainspring.jobs.declaring import job as job
    from mainspring.jobs.pipelines.declaring import approval as approval
    from mainspring.jobs.pipelines.declaring import drifted as drifted
    from mainspring.jobs.pipelines.declaring import incident as incident
    from mainspring.jobs.pipelines.declaring import landed as landed
    from mainspring.jobs.pipelines.declaring import only_if as only_if
    from mainspring.jobs.pipelines.declaring import pipeline as pipeline
    from mainspring.jobs.pipelines.declaring import webhook as webhook
    from mainspring.jobs.pipelines.steps import step as step
    from mainspring.jobs.pipelines.steps import task as task
    from mainspring.ledger.model import Log as Log
    from mainspring.llm.answers.declaring import Answers as Answers
    from mainspring.llm.answers.declaring import Retriever as Retriever
    from mainspring.llm.answers.judges import Judge as Judge
    from mainspring.llm.declaring import LanguageModel as LanguageModel
    from mainspring.llm.declaring import TokenPrice as TokenPrice
    from mainspring.llm.declaring import UpstreamModel as UpstreamModel
    from mainspring.llm.guarding.declaring import Argument as Argument
    from mainspring.llm.guarding.declaring import Guard as Guard
    from mainspring.llm.guarding.declaring import Tool as Tool
    from mainspring.llm.limits import AnswerCache as AnswerCache
    from mainspring.llm.limits import Fallback as Fallback
    from mainspring.llm.prompts import Prompt as Prompt
    from mainspring.llm.prompts import Variable as Variable
    from mainspring.monitoring.declaring import Monitor as Monitor
    from mainspring.monitoring.incidents import actions as actions
    from mainspring.monitoring.notify import declaring as _notify
    from mainspring.monitoring.quality.declared import Forecast as Forecast
    from mainspring.monitoring.quality.declared import Ranking as Ranking
    from mainspring.monitoring.quality.sql_metrics import sql_metric as sql_metric
    from mainspring.monitoring.service import objectives as objectives
    from mainspring.operations.opened import open_folder
    from mainspring.security.quota import Price as Price
    from mainspring.security.quota import Quota as Quota
    from mainspring.serving.model import Cache as Cache
    from mainspring.serving.model import Endpoint as Endpoint
    from mainspring.serving.model import Unusual as Unusual
    from mainspring.serving.outputs import Outputs as Outputs
    from mainspring.serving.streaming.declaring import StreamEndpoint as StreamEndpoint
    from mainspring.serving.streaming.declaring import session as session
    from mainspring.serving.streaming.declaring import to_table as to_table
    from mainspring.serving.streaming.declaring import to_topic as to_topic
    from mainspring.serving.streaming.declaring import to_webhook as to_webhook
    from mainspring.serving.streaming.event import StreamEvent as StreamEvent
    from mainspring.stats.metrics import metric as metric
    from mainspring.stats.metrics import precision_at_k as precision_at_k
    from mainspring.stats.metrics import recall_at_k as recall_at_k
    from mainspring.stats.metrics import recall_at_precision as recall_at_precision
    from mainspring.stats.thresholds import Costs as Costs
    from mainspring.training import gates as gates
    from mainspring.training import space as _search
    from mainspring.training.boosting.lightgbm import fit_lightgbm as fit_lightgbm
    from mainspring.training.boosting.xgboost import fit_xgboost as fit_xgboost
    from mainspring.training.distribution import Distributed as Distributed
    from mainspring.training.flavours.calibration import calibrated as calibrated
    from mainspring.training.gates import approved as approved
    from mainspring.training.gates import at_least as at_least
    from mainspring.training.gates import at_most as at_most
    from mainspring.training.gates import beats as beats
    from mainspring.training.gates import complete_card as complete_card
    from mainspring.training.label import Label as Label
    from mainspring.training.loading.loader import Loader as Loader
    from mainspring.training.loop.fit import fit_torch as fit_torch
    from mainspring.training.loop.lora import fit_lora as fit_lora
    from mainspring.training.loop.stopping import EarlyStopping as EarlyStopping
    from mainspring.training.model import Model as Model
    from mainspring.training.model import model as model
    from mainspring.training.optimise.distilling import distil as distil
    from mainspring.training.optimise.pruning import prune as prune
    from mainspring.training.runs.run import Run as Run
    from mainspring.training.sets.training_set import TrainingSet as TrainingSet
    from mainspring.training.space import Search as Search
    from mainspring.training.space import choice as choice
    from mainspring.training.space import integer as integer
    from mainspring.training.space import log_uniform as log_uniform
    from mainspring.training.space import space as space
    from mainspring.training.space import uniform as uniform
    from mainspring.vectors.chunking import declaring as _chunks
    from mainspring.vectors.declaring import Collection as Collection
    from mainspring.vectors.declaring import Encoder as Encoder
    from mainspring.vectors.declaring import Reranker as Reranker
    from mainspring.vectors.documents import read_documents as read_documents
    from mainspring.vectors.evaluation.declaring import EvaluationSet as EvaluationSet

    # Type checkers export an import that is renamed only if it is assigned.
    max, min, chunks, notify, open, search, sum = max_, min_, _chunks, _notify, open_folder, _search, sum_


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'mainspring' has no attribute {name!r}")
    module = import_module(home)
    return module if name in _GROUPS else getattr(module, _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
