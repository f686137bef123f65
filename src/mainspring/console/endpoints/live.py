"""Live version of an endpoint: its promotion (instant and actor) and its gate results."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import MainspringError, NotFound
from mainspring.delivery.gates import BASELINE, baseline_of
from mainspring.project import Project
from mainspring.registry.model import AliasMove, Bundle, ModelVersion
from mainspring.serving.model import Arm, Route


@dataclass(frozen=True, slots=True)
class GateMetric:
    """One metric on the held-out rows. `gate` is its condition, empty for a metric without a gate."""

    metric: str
    value: float
    baseline: float | None
    gate: str


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """One version that answers requests. Parts that could not be read are None; `problem` gives the reason."""

    number: str
    digest: str
    weight: float
    version: ModelVersion | None
    since: int | None
    by: str | None
    reason: str | None
    metrics: tuple[GateMetric, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Live:
    """An endpoint's route, resolved."""

    endpoint: str
    model: str
    alias: str
    task: str | None
    deadline_us: int | None
    arms: tuple[LiveVersion, ...]


def live(project: Project, endpoint: str, route: Route | None) -> Live:
    """Return the endpoint's live versions; without a route, `arms` is empty."""
    declared = project.definitions.endpoints.get(endpoint)
    model = route.model if route else declared.model_name if declared else ""
    alias = declared.reference if declared else ""
    definition = project.definitions.models.get(model)
    arms = tuple(_arm(project, model, alias, arm) for arm in route.arms) if route else ()
    deadline = route.deadline_us if route else None
    return Live(endpoint, model, alias, definition.task if definition else None, deadline, arms)


def _arm(project: Project, model: str, alias: str, arm: Arm) -> LiveVersion:
    version = bundle = problem = None
    try:
        version = project.versions.get(model, arm.version)
        bundle = project.bundles.load(arm.digest)
    except MainspringError as error:
        problem = str(error)
    move = put_live(project, model, alias, arm.version)
    return LiveVersion(
        number=arm.version,
        digest=arm.digest,
        weight=arm.weight,
        version=version,
        since=move.at if move else version.created_at if version else None,
        by=move.actor if move else None,
        reason=move.reason if move else None,
        metrics=_metrics(project, model, bundle),
        problem=problem,
    )


def put_live(project: Project, model: str, alias: str, number: str) -> AliasMove | None:
    """Return the newest move of the alias to this version."""
    try:
        moves = project.versions.moves(model, alias or None)
    except NotFound:
        return None
    return next((move for move in moves if move.new == number), None)


def _metrics(project: Project, model: str, bundle: Bundle | None) -> tuple[GateMetric, ...]:
    if bundle is None:
        return ()
    definition = project.definitions.models.get(model)
    baseline = baseline_of(bundle.manifest)
    gates = {
        gate.metric: str(gate).removeprefix(f"{gate.metric} ") for gate in (definition.gates if definition else ())
    }
    found = [
        GateMetric(name, value, baseline.get(name), gates.get(name, ""))
        for name, value in bundle.manifest.metrics.items()
        if not name.startswith(BASELINE)
    ]
    return tuple(sorted(found, key=lambda metric: (not metric.gate, metric.metric)))
