"""Stages of a version: staging on recorded traffic, and production."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import MainspringError
from mainspring.delivery.model import Promotion
from mainspring.ledger.model import Prediction
from mainspring.operations.ci.candidate import Told, champion_of
from mainspring.operations.ci.model import Check, failed, passed, skipped, warned
from mainspring.operations.promote import promote
from mainspring.operations.rollout.interventions import start
from mainspring.operations.train import train
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.model import Endpoint
from mainspring.serving.plane import runtime
from mainspring.serving.plane.shadow import Pairs, ShadowScorer
from mainspring.training.model import Model

APPROVALS = "approvals"  # what the gate of approvals is against
_REPLAYED = 1_000  # newest predictions of an endpoint


def staging_checks(project: Project, models: Sequence[Model], versions: dict[str, str], told: Told) -> Iterator[Check]:
    """Train each model on all of its data, register the version, and let it answer recorded traffic in the shadow.

    Args:
        versions: Gets model -> the version that was registered.
    """
    for model in models:
        try:
            report = train(project, model.name, progress=told)
        except MainspringError as error:
            yield failed("training on all data", error.what, error.fix or "", model=model.name)
            continue
        versions[model.name] = report.version
        yield passed(
            "training on all data", f"version {report.version}, {report.training_rows:,} rows", model=model.name
        )
        endpoints = [each for each in project.definitions.endpoints.values() if each.model_name == model.name]
        if not endpoints:
            yield skipped("shadow traffic", "no endpoint serves the model", model=model.name)
        for endpoint in endpoints:
            yield _shadow(project, endpoint, report.digest, model.name)


def _shadow(project: Project, endpoint: Endpoint, digest: str, model: str) -> Check:
    name = f"shadow traffic of {endpoint.name}"
    if champion_of(project, model) is None:
        return skipped(name, "there is no champion to compare with", model=model)
    project.predictions.compact()
    recorded = project.predictions.recent(endpoint.name, _REPLAYED)
    if not recorded:
        return skipped(name, "no prediction is logged", model=model)
    loaded = runtime.load(project.bundles.load(digest), project.online, executors(project))
    try:
        pairs = ShadowScorer(loaded, project.clock).score(_columns(project, recorded))
    except MainspringError as error:
        return failed(name, error.what, error.fix or "", model=model)
    finally:
        loaded.executor.close()
    return _compared(name, model, pairs, endpoint.deadline_us)


def _columns(project: Project, recorded: Sequence[Prediction]) -> dict[str, list[Any]]:
    """Return predictions in columns as the store has them, with sealed values in their places."""

    def text(value: Any) -> str:
        return msgspec.json.encode(value).decode()

    rows = [project.predictions.revealed(each) if each.sealed else each for each in recorded]
    columns: dict[str, list[Any]] = {"id": [row.id for row in rows]}
    for name in ("keys", "request", "features", "outputs"):
        columns[name] = [text(getattr(row, name)) for row in rows]
    columns["personal"] = [text([] if row.sealed else row.personal) for row in rows]
    return columns


def _compared(name: str, model: str, pairs: Pairs, deadline_us: int) -> Check:
    both = [
        (ours, theirs)
        for ours, theirs in zip(pairs.candidate, pairs.champion, strict=True)
        if ours is not None and theirs is not None
    ]
    errors = sum(error is not None for error in pairs.errors)
    left_out = ", ".join(f"{count} without {why}" for why, count in sorted(pairs.skipped.items()))
    if not pairs.ids:
        return skipped(name, f"no recorded prediction can be answered again: {left_out}", model=model)
    slowest = float(np.quantile(pairs.compute_us, 0.99)) if pairs.compute_us else 0.0
    told = [f"{len(pairs.ids):,} predictions answered again", f"{errors} errors", f"p99 {slowest / 1000:.2f} ms"]
    if both:
        difference = np.abs(np.subtract(*np.array(both).T))
        told.append(f"mean difference {difference.mean():.4f}, largest {difference.max():.4f}")
    detail = ", ".join(filter(None, [*told, left_out]))
    if errors:
        kind = next(error for error in pairs.errors if error is not None)
        return failed(name, f"{detail}; the first error is {kind}", model=model)
    if slowest > deadline_us:
        return failed(name, f"{detail}, with a deadline of {deadline_us / 1000:g} ms", model=model)
    return passed(name, detail, model=model)


def production_checks(project: Project, models: Sequence[Model], versions: dict[str, str]) -> Iterator[Check]:
    """Promote each version by the model's gates, or start the rollout that the project declares for its endpoint."""
    for model in models:
        served = [each.name for each in project.definitions.endpoints.values() if each.model_name == model.name]
        declared = [name for name in served if name in project.definitions.rollouts]
        if declared and champion_of(project, model.name) is not None:
            yield from (_rolled_out(project, name, versions[model.name], model.name) for name in declared)
            continue
        try:
            found = promote(project, model.name, versions[model.name], reason="ci")
        except MainspringError as error:
            yield failed("promotion", error.what, error.fix or "", model=model.name)
            continue
        if found.promoted:
            before = f" instead of version {found.previous}" if found.previous else ""
            yield passed("promotion", f"version {found.version} is champion{before}", model=model.name)
        else:
            yield _refused("promotion", found, f"mainspring promote {model.name} {found.version}")


def _rolled_out(project: Project, endpoint: str, version: str, model: str) -> Check:
    name = f"rollout on {endpoint}"
    try:
        begun = start(project, endpoint, version, reason="ci")
    except MainspringError as error:
        return failed(name, error.what, error.fix or "", model=model)
    if isinstance(begun, Promotion):
        return _refused(name, begun, f"mainspring rollout start {endpoint} --candidate {version}")
    steps = ", ".join(f"{share:.0%}" for share in begun.plan.steps)
    detail = (
        f"version {version} began beside champion {begun.champion}: {begun.plan.kind}{f', {steps}' if steps else ''}"
    )
    return passed(name, f"{detail}; see `mainspring rollout status {endpoint}`", model=model)


def _refused(name: str, found: Promotion, command: str) -> Check:
    """Return the check of a version whose gates were not passed; a warning if only approvals are missing."""
    short = [result for result in found.results if not result.allows]
    told = "; ".join(map(str, short))
    if all(result.against == APPROVALS for result in short):
        return warned(name, f"version {found.version} waits: {told}", f"then run `{command}`", model=found.model)
    return failed(name, told, model=found.model)
