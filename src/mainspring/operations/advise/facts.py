"""Collection of the facts that advice rests on, from definitions, stores and the project's folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import DAY, SECOND
from mainspring.delivery.gates import baseline_of
from mainspring.delivery.routing import CHAMPION
from mainspring.jobs.pipelines.graph import JOB
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.advise.model import EndpointFacts, Facts, ModelFacts
from mainspring.project import Project
from mainspring.registry.runs import PARENT
from mainspring.registry.searching import Column, Condition, Kind, RunQuery
from mainspring.serving.model import Endpoint
from mainspring.stats.metrics import higher_is_better, metrics_of
from mainspring.training.model import Model

_RUNS = 50  # newest runs of a model that are read
_RECENT = 1_000  # newest predictions that are read where no window has closed
_AT_ONCE = re.compile(r"promote(?!: rollout )")  # the reason of a move
_LOOKED_AT_US = 60 * DAY  # windows of monitoring that are read
_TEST = re.compile(r"(test_.*|.*_test)\.py")
_SKIPPED = {".git", ".mainspring", ".venv", "venv", "node_modules", "__pycache__", "site-packages", ".tox", ".nox"}


def collect(project: Project) -> Facts:
    """Return the facts of a project. Nothing is changed, and no store that is not there yet is made."""
    definitions = project.definitions
    trained = _has_tracking(project)
    registered = {version.model for version in project.versions.all()} if trained else set()
    names = [*definitions.models, *sorted(registered - set(definitions.models))]
    return Facts(
        project=project.settings.project,
        now=project.wall.now(),
        sources={name: _rows(project, name) for name in definitions.sources},
        models=tuple(_model(project, name, trained) for name in names),
        endpoints=tuple(_endpoint(project, endpoint) for endpoint in definitions.endpoints.values()),
        tests=len(test_files(project.settings.root)),
        kept=any((folder / ".git").exists() for folder in (project.settings.root, *project.settings.root.parents)),
        scheduled=_scheduled(project),
        gateway_workers=project.settings.gateway_workers,
        log_bytes=_log_bytes(project),
        expires=project.settings.keep_predictions_us is not None,
    )


def _scheduled(project: Project) -> tuple[str, ...]:
    """Return the jobs that run without a person."""
    graphs = [pipeline.graph for pipeline in project.definitions.pipelines.values()]
    started = [node.function for graph in graphs if graph.schedule or graph.triggers for node in graph.nodes]
    of_pipelines = {function.removeprefix(JOB) for function in started if function.startswith(JOB)}
    return tuple(sorted({schedule.job for schedule in project.settings.schedules} | of_pipelines))


def _has_tracking(project: Project) -> bool:
    store = project.settings.tracking
    return store.scheme != "sqlite" or Path(store.path).exists()


def _rows(project: Project, source: str) -> int | None:
    return None if project.lake.version(source) is None else project.lake.describe(source).rows


def _model(project: Project, name: str, trained: bool) -> ModelFacts:
    model = project.definitions.models.get(name)
    gates = () if model is None else tuple(gate.kind for gate in model.gates)
    if not trained:
        return ModelFacts(name=name, declared=model is not None, gates=gates)
    from mainspring.operations.search.searching import SEARCH

    own = tuple(Condition(Column(Kind.TAG, tag), "is null") for tag in (SEARCH, PARENT))  # no search, no trial
    query = RunQuery(own, limit=_RUNS).where(Column(Kind.ATTRIBUTE, "model"), name)
    versions = project.versions.all(name)
    moves = [move for move in project.versions.moves(name, CHAMPION) if _AT_ONCE.match(move.reason)]
    newest = max(versions, key=lambda version: version.created_at, default=None)
    metric, value, baseline, better = "", None, None, None
    if newest is not None and model is not None:
        metric, value, baseline, better = _against_baseline(project, model, newest.digest)
    return ModelFacts(
        name=name,
        declared=model is not None,
        gates=gates,
        trained_at=tuple(sorted(run.started_at for run in project.run_search.search(query).runs)),
        versions=len(versions),
        newest="" if newest is None else newest.version,
        metric=metric,
        value=value,
        baseline=baseline,
        better=better,
        promotions=len(moves),
        promoters=tuple(sorted({move.actor for move in moves})),
        champion=next((version.version for version in versions if CHAMPION in version.aliases), ""),
        champion_since=max((move.at for move in moves), default=None),
    )


def _against_baseline(
    project: Project, model: Model, digest: str
) -> tuple[str, float | None, float | None, bool | None]:
    """Return the metric that decides, and its value of the version and of its baseline."""
    metric = next((gate.metric for gate in model.gates if gate.kind == "beats"), metrics_of(model.task)[0])
    try:
        manifest = project.bundles.load(digest).manifest
    except MainspringError:  # `doctor` tells of a damaged bundle
        return metric, None, None, None
    value, baseline = manifest.metrics.get(metric), baseline_of(manifest).get(metric)
    higher = higher_is_better(metric, model.measured)
    if value is None or baseline is None or higher is None:
        return metric, value, baseline, None
    return metric, value, baseline, (value > baseline if higher else value < baseline)


def _endpoint(project: Project, endpoint: Endpoint) -> EndpointFacts:
    now = project.clock.now()
    windows = [window for window in project.monitors.windows(endpoint.name, now - _LOOKED_AT_US) if window.predictions]
    predictions = sum(window.predictions for window in windows)
    seconds = [(window.end - window.start) / SECOND for window in windows]
    recent = [] if windows else project.predictions.recent(endpoint.name, _RECENT)  # no window has closed yet
    recent = [each for each in recent if each.at > now - _LOOKED_AT_US]
    predictions = predictions or len(recent)
    first = windows[0].start if windows else min((each.at for each in recent), default=now)
    last = windows[-1].end if windows else max((each.at for each in recent), default=None)
    days = max(1.0, (now - first) / DAY)
    judged = next((window for window in reversed(windows) if window.judged), None)
    measured = next(iter(project.baselines.newest(endpoint.name)), None)
    return EndpointFacts(
        name=endpoint.name,
        model=endpoint.model_name,
        serves=endpoint.name in project.routes.current(),
        predictions=predictions,
        a_day=predictions / days,
        peak=max((window.predictions / length for window, length in zip(windows, seconds, strict=True)), default=0.0),
        labels=sum(window.labels for window in windows),
        drifted=() if judged is None else tuple(judged.drifted),
        alerts=() if judged is None else tuple(judged.alerts),
        idle_days=None if last is None else max(0.0, (now - last) / DAY),
        capacity=measured.capacity * measured.rows if measured is not None and measured.capacity else None,
        rollout=endpoint.name in project.definitions.rollouts,
    )


def _log_bytes(project: Project) -> int | None:
    at = project.settings.lake
    if at.scheme != "file":
        return None
    folder = Path(at.path) / PREDICTIONS
    try:
        return sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    except (FileNotFoundError, NotFound):  # a file that compaction replaced meanwhile
        return None


def test_files(root: Path) -> list[Path]:
    """Return the test files of a project, in order; those of installed packages are not its own."""
    found = []
    for folder, inside, files in os.walk(root):  # a folder that cannot be read has none
        here = Path(folder)
        inside[:] = [name for name in inside if not (name in _SKIPPED or (here / name / "pyvenv.cfg").exists())]
        found += [here / name for name in files if _TEST.fullmatch(name) and (here / name).is_file()]
    return sorted(found)
