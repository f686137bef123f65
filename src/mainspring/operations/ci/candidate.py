"""Stages of a candidate that is trained on a subset: training, evaluation, validation. Nothing is registered."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.ids import new_id
from mainspring.core.time import format_duration
from mainspring.data.model import DatasetCommit
from mainspring.delivery.gates import baseline_of
from mainspring.delivery.model import GateResult
from mainspring.delivery.routing import CHAMPION
from mainspring.delivery.verdicts import verdicts
from mainspring.operations.ci.model import Check, failed, passed, skipped, warned
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.project.scratch import scratch_bundles, scratch_trainer
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.stats.metrics import higher_is_better
from mainspring.training import gates as make
from mainspring.training.gate_kinds import FairnessGate, Gate
from mainspring.training.model import Model

_NOT_HERE = ("approved", "card")  # decided by people, when a version is promoted
_SLOWER, _WORSE = 1.5, 0.05  # of undeclared checks; each is a warning
Told = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates by model, in a folder that is removed afterwards."""

    folder: Path
    bundles: dict[str, Bundle] = field(default_factory=dict)
    data: dict[str, DatasetCommit] = field(default_factory=dict)


@contextmanager
def candidates() -> Iterator[Candidates]:
    """Give a place for candidates inside the block."""
    with tempfile.TemporaryDirectory(prefix="mainspring-ci-") as folder:
        yield Candidates(Path(folder))


def training_checks(
    project: Project, models: Sequence[Model], share: float, made: Candidates, told: Told
) -> Iterator[Check]:
    """Train each model on a share of its observations, spread evenly over time, as `train` does."""
    for model in models:
        scratch, bundles = scratch_trainer(project, made.folder), scratch_bundles(made.folder, project)
        try:
            chosen, data = _searched(project, model), _as_now(project)
            report = scratch.train(chosen, until=project.clock.now(), commit=data, share=share, progress=told)
        except MainspringError as error:
            yield failed("training", error.what, error.fix or "", model=model.name)
            continue
        made.bundles[model.name], made.data[model.name] = bundles.load(report.digest), data
        rows = f"{report.training_rows:,} rows, {report.holdout_rows:,} held out, {report.seconds:.1f} s"
        yield passed("training", f"{rows}; the bundle answers as the estimator does", model=model.name)
        for finding in report.findings:
            yield warned("leakage", finding, model=model.name)


def _searched(project: Project, model: Model) -> Model:
    """Return the model with the parameters of its last search, if it declares one."""
    if model.search is None:
        return model
    from mainspring.operations.search.searching import with_best

    return with_best(project, model)[0]


def _as_now(project: Project) -> DatasetCommit:
    """Return the tables as they are, without a commit that would keep these versions for ever."""
    versions = {
        name: version for name in project.definitions.sources if (version := project.lake.version(name)) is not None
    }
    return DatasetCommit(new_id(), versions, None, "ci", project.wall.now())


def evaluation_checks(project: Project, models: Sequence[Model], share: float, made: Candidates) -> Iterator[Check]:
    """Compare each candidate with its baseline and the champion, by the model's gates on metrics.

    A candidate that was trained on less than the champion may be worse for that alone, which is a warning: the version
    that is trained on all data is judged again.
    """
    for model in models:
        bundle = made.bundles[model.name]
        yield _against_baseline(model, bundle)
        gates = [gate for gate in model.gates if gate.on_metric]
        if not gates:
            yield warned("gates", "no gate on a metric", 'declare one: gates=[ms.beats("auc")]', model=model.name)
        for check in judged(project, model, made, gates):
            if check.state == "failed" and share < 1 and " against champion " in check.name:
                why = f"{check.detail}; trained on {share:.0%} of the observations"
                yield warned(check.name, why, "judge all of them: `mainspring ci --share 1`", model=model.name)
            else:
                yield check


def _against_baseline(model: Model, bundle: Bundle) -> Check:
    metrics, baseline = bundle.manifest.metrics, baseline_of(bundle.manifest)
    metric = next((gate.metric for gate in model.gates if gate.kind == "beats"), None) or next(iter(baseline), "")
    higher = higher_is_better(metric, model.measured) if metric else None
    if metric not in metrics or metric not in baseline or higher is None:
        return skipped("baseline", "there is no metric to compare", model=model.name)
    better = metrics[metric] > baseline[metric] if higher else metrics[metric] < baseline[metric]
    detail = f"{metric} {metrics[metric]:.4f}, baseline {baseline[metric]:.4f}"
    if better:
        return passed("baseline", detail, model=model.name)
    return failed("baseline", detail, "improve the features; a model has to beat its baseline", model=model.name)


def validation_checks(project: Project, models: Sequence[Model], made: Candidates) -> Iterator[Check]:
    """Validate each candidate: bias, robustness, compatibility, latency on the serving engine, size, drift.

    Declared gates decide; what the model does not declare is measured too, and warns.
    """
    for model in models:
        bundle = made.bundles[model.name]
        declared = [gate for gate in model.gates if not gate.on_metric and gate.kind not in _NOT_HERE]
        yield from judged(project, model, made, declared)
        more = _undeclared(project, model, {gate.kind for gate in declared})
        yield from judged(project, model, made, more, undeclared=True)
        if not any(isinstance(gate, FairnessGate) for gate in declared):
            yield skipped("bias", "no group is declared: ms.gates.fair(GROUP)", model=model.name)
        yield passed("size", f"{sum(map(len, bundle.files.values())):,} bytes", model=model.name)
        yield from _drift(project, model)


def _undeclared(project: Project, model: Model, declared: Collection[str]) -> list[Gate]:
    """Return checks of what the model declares no gate for."""
    metric = next((gate.metric for gate in model.gates if gate.on_metric), "")
    deadlines = [each.deadline_us for each in project.definitions.endpoints.values() if each.model_name == model.name]
    more: list[Gate] = [make.compatible(), make.slower_at_most(_SLOWER)]
    if deadlines:
        more.append(make.latency(format_duration(min(deadlines))))
    if metric:
        more.append(make.robust_to_missing(metric, _WORSE))
    return [gate for gate in more if gate.kind not in declared]


def _drift(project: Project, model: Model) -> Iterator[Check]:
    for endpoint in project.definitions.endpoints.values():
        if endpoint.model_name != model.name:
            continue
        windows = [window for window in project.monitors.windows(endpoint.name) if window.judged]
        if not windows:
            yield skipped("drift", f"{endpoint.name} has no window with enough predictions", model=model.name)
            continue
        alerts, drifted = windows[-1].alerts, windows[-1].drifted
        detail = (
            f"{len(drifted)} of {len(windows[-1].judged)} columns of {endpoint.name} drifted, "
            f"{len(alerts)} of them in two windows in a row"
        )
        yield (
            warned("drift", f"{detail}: {', '.join(alerts[:5])}", "train on newer data", model=model.name)
            if alerts
            else passed("drift", detail, model=model.name)
        )


def judged(
    project: Project, model: Model, made: Candidates, gates: Sequence[Gate], *, undeclared: bool = False
) -> Iterator[Check]:
    """Judge gates on a candidate's bundle, against the champion if there is one.

    Args:
        undeclared: Whether the model does not declare them, so that they warn instead of fail.
    """
    from mainspring.operations.models.cards import personal
    from mainspring.operations.models.serving_memory import serving_memory
    from mainspring.operations.promote import read_again

    bundle, champion = made.bundles[model.name], champion_of(project, model.name)

    def results(asked: Sequence[Gate]) -> tuple[GateResult, ...]:
        return verdicts(
            asked,
            bundle,
            champion,
            project.bundles.load,
            lambda champion, _: read_again(project, bundle, champion, made.data[model.name]),
            model.measured,
            model.threshold,
            personal,
            executors(project),
            partial(serving_memory, project),
        )

    try:
        found = results(gates)  # together: the rows are scored, and the champion's features read, once
    except MainspringError:
        for gate in gates:  # to tell which one it is, and judge the others
            try:
                found = results([gate])
            except MainspringError as error:
                yield failed(str(gate), error.what, error.fix or "", model=model.name)
            else:
                yield from (_as_check(result, model.name, undeclared=undeclared) for result in found)
        return
    yield from (_as_check(result, model.name, undeclared=undeclared) for result in found)


def _as_check(result: GateResult, model: str, *, undeclared: bool) -> Check:
    name = f"{result.gate} against {result.against}"
    detail = str(result).partition(": ")[2]
    if result.passed:
        return passed(name, detail, model=model)
    return (
        warned(name, f"{detail} (not a gate of the model)", model=model)
        if undeclared
        else failed(name, detail, model=model)
    )


def champion_of(project: Project, model: str) -> ModelVersion | None:
    """Return a model's champion, `None` if there is none."""
    try:
        return project.versions.get(model, CHAMPION)
    except NotFound:
        return None
