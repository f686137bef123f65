"""View model of one endpoint in the overview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console.charts import Chart, spark
from mainspring.console.endpoints import series
from mainspring.console.endpoints.capacity import Capacity, capacity
from mainspring.console.endpoints.freshness import Freshness, freshness
from mainspring.console.endpoints.live import Live, live
from mainspring.console.endpoints.period import Period, windows_in
from mainspring.core.errors import MainspringError, NotFound
from mainspring.delivery.promote import previous_version
from mainspring.delivery.rollout.model import RolloutState
from mainspring.delivery.routing import CHAMPION
from mainspring.ledger.model import Prediction
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.monitoring.service.burning import ObjectiveReport
from mainspring.operations.endpoint_health import endpoints
from mainspring.operations.incidents import importance
from mainspring.operations.service.objectives import objectives
from mainspring.operations.stream_endpoints.showing import StreamStatus, status
from mainspring.project import Project

SHOWN_PREDICTIONS = 12
SHOWN_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class DriftRow:
    """One column in the newest window with a drift test, and its distance in all windows."""

    drift: ColumnDrift
    history: tuple[float | None, ...]
    scale: float  # the same for all rows, so that their lines can be compared
    is_score: bool = False

    @property
    def state(self) -> str:
        return "alert" if self.drift.alert else "drifted" if self.drift.drifted else "steady"

    @property
    def spark(self) -> Markup:
        return spark(self.history, self.scale)


@dataclass(frozen=True, slots=True)
class PredictorQuality:
    """Value of the main metric over the labelled predictions that one version made."""

    version: str
    value: float | None
    labels: int
    held_out: float | None  # on that version's held-out rows


@dataclass(frozen=True, slots=True)
class Overview:
    """One endpoint at a glance. `judged` is the newest window with drift, `labelled` the newest with labels."""

    endpoint: str
    others: tuple[str, ...]  # all endpoints, to choose from
    now: int
    live: Live
    windows: tuple[Window, ...]
    metric: str | None  # the main metric
    quality: tuple[PredictorQuality, ...]  # in the newest window with labels; the version with most labels first
    judged: Window | None
    labelled: Window | None
    charts: tuple[Chart, ...]
    drift: tuple[DriftRow, ...]
    freshness: tuple[Freshness, ...]
    capacity: Capacity
    recent: tuple[Prediction, ...]
    rollout: RolloutState | None  # the newest
    incidents: tuple[Incident, ...]  # open ones, the most important first
    objectives: tuple[ObjectiveReport, ...]
    previous: str | None  # the version to which a rollback would return
    stream: StreamStatus | None  # of a stream endpoint

    @property
    def total(self) -> int:
        return sum(window.predictions for window in self.windows)

    @property
    def last(self) -> Window | None:
        return self.windows[-1] if self.windows else None

    @property
    def served(self) -> Window | None:
        """The newest window with predictions."""
        return next((window for window in reversed(self.windows) if window.predictions), None)

    @property
    def alerts(self) -> int:
        return sum(row.drift.alert for row in self.drift)

    @property
    def drifted(self) -> int:
        return sum(row.drift.drifted for row in self.drift)

    @property
    def stale(self) -> tuple[Freshness, ...]:
        return tuple(row for row in self.freshness if row.late)

    @property
    def unchecked(self) -> Freshness | None:
        """The source with the oldest data among those without a freshness check."""
        rows = [row for row in self.freshness if row.state == "unchecked"]
        return min(rows, key=lambda row: row.newest or 0, default=None)


def known_endpoints(project: Project, endpoint: str) -> tuple[str, ...]:
    """Return the names of all endpoints, of which the given one is one.

    Raises:
        NotFound: No such endpoint is declared or routed.
    """
    names = endpoints(project)
    if endpoint not in names:
        raise NotFound(f"There is no endpoint {endpoint!r}.", fix=f"the project has {list(names)}.")
    return names


def objectives_of(project: Project, endpoint: str) -> tuple[ObjectiveReport, ...]:
    """Return the objectives as they stand; none for an endpoint that is only routed."""
    return tuple(objectives(project, endpoint)) if endpoint in project.definitions.endpoints else ()


def overview(project: Project, endpoint: str, period: Period) -> Overview:
    """Return the overview of one endpoint.

    Raises:
        NotFound: No such endpoint is declared or routed.
    """
    names = known_endpoints(project, endpoint)
    windows = windows_in(project, endpoint, period)
    now = project.clock.now()
    state = live(project, endpoint, project.routes.current().get(endpoint))
    metric = main_metric(project, state, windows)
    labelled = next((window for window in reversed(windows) if window.quality), None)
    quality = predictor_quality(project, state.model, labelled, metric)
    judged = next((window for window in reversed(windows) if window.columns), None)
    return Overview(
        endpoint=endpoint,
        others=names,
        now=now,
        live=state,
        windows=tuple(windows),
        metric=metric,
        quality=quality,
        judged=judged,
        labelled=labelled,
        charts=series.charts(windows, metric, held_out_level(quality), promotions(project, state, windows)),
        drift=drift_rows(windows, judged),
        freshness=freshness(project, state.model, now),
        capacity=capacity(project, endpoint, {arm.digest: arm.weight for arm in state.arms}),
        recent=tuple(project.predictions.recent(endpoint, SHOWN_PREDICTIONS)),
        rollout=next(iter(project.rollouts.find(endpoints=[endpoint], limit=1)), None),
        incidents=tuple(sorted((i for i in project.incidents.open() if endpoint in i.endpoints), key=importance)),
        objectives=objectives_of(project, endpoint),
        previous=previous_version(project.versions, state.model) if state.alias == CHAMPION else None,
        stream=status(project, endpoint) if endpoint in project.definitions.stream_endpoints else None,
    )


def main_metric(project: Project, state: Live, windows: Sequence[Window]) -> str | None:
    """Return the metric of the first gate if live quality has it, else the first metric of live quality."""
    known = list(dict.fromkeys(name for window in windows for name in window.quality))
    definition = project.definitions.models.get(state.model)
    gated = [gate.metric for gate in (definition.gates if definition else ())]
    wanted = [*gated, "auc", "accuracy", "rmse"]
    return next((name for name in wanted if name in known), known[0] if known else None)


def predictor_quality(
    project: Project, model: str, window: Window | None, metric: str | None
) -> tuple[PredictorQuality, ...]:
    """Return the metric of each version in a window, that with most labels first."""
    if window is None or metric is None:
        return ()
    return tuple(
        PredictorQuality(version, made.quality.get(metric), made.labels, held_out(project, model, version, metric))
        for version, made in window.by_predictor.items()
    )


def held_out(project: Project, model: str, version: str, metric: str) -> float | None:
    """Return a metric on a version's held-out rows; `None` if the version or its bundle is gone."""
    try:
        return project.bundles.load(project.versions.get(model, version).digest).manifest.metrics.get(metric)
    except MainspringError:
        return None


def held_out_level(quality: Sequence[PredictorQuality]) -> tuple[float, str] | None:
    """Return the reference line of the chart: the held-out value of the version with most labels."""
    if not quality or quality[0].held_out is None:
        return None
    return quality[0].held_out, f"version {quality[0].version} held out {quality[0].held_out:.3f}"


def promotions(project: Project, state: Live, windows: Sequence[Window]) -> tuple[tuple[int, str], ...]:
    """Return the promotions in the time of the windows, to mark them in charts: (instant, version)."""
    if not windows or not state.alias:
        return ()
    moves = project.versions.moves(state.model, state.alias)
    # By the clock of the predictions. A move that was recorded without it is placed by the machine's clock.
    dated = [(move.at if move.domain_at is None else move.domain_at, f"version {move.new}") for move in reversed(moves)]
    return tuple((at, text) for at, text in dated if windows[0].start <= at < windows[-1].end)


def drift_rows(windows: Sequence[Window], judged: Window | None) -> tuple[DriftRow, ...]:
    """Return all columns of the tested window, the worst first."""
    if judged is None:
        return ()
    judged_columns = [column for window in windows for column in (*window.columns, window.score) if column]
    scale = max(0.1, *(column.ks for column in judged_columns))
    past = [{column.column: column.ks for column in window.columns} for window in windows]
    rows = [DriftRow(column, tuple(ks.get(column.column) for ks in past), scale) for column in judged.columns]
    if judged.score is not None:
        scores = tuple(window.score.ks if window.score else None for window in windows)
        rows.append(DriftRow(judged.score, scores, scale, is_score=True))
    return tuple(sorted(rows, key=_severity, reverse=True))


def _severity(row: DriftRow) -> tuple[bool, bool, float]:
    return row.drift.alert, row.drift.drifted, max(row.drift.ks, abs(row.drift.shift_sd or 0.0) / 4)
