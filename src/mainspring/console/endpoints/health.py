"""All endpoints at a glance, those that are not well first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console.charts import spark
from mainspring.console.endpoints.live import endpoints
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.model import Window
from mainspring.operations.incidents import importance
from mainspring.project import Project

STATES = {
    "page": ("Broken", "alert"),
    "ticket": ("Suspicious", "drifted"),
    "idle": ("Not live", "idle"),
    "silent": ("No traffic", "plain"),
    "well": ("Well", "fresh"),
}
_WINDOWS = 14


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """One endpoint. `state` is a key of `STATES`; the figures are of the newest window that has them.

    Attributes:
        versions: Version that serves -> its share of the requests.
        incidents: Open ones, the most important first.
        drifted: Number of drifted columns, of `columns` that were tested; `None` without a test.
        metric: Name and value of the quality, of the version with most labels.
    """

    name: str
    model: str
    state: str
    versions: dict[str, float]
    incidents: tuple[Incident, ...]
    predictions: tuple[int, ...]  # of the newest windows, oldest first
    p99_ms: float | None
    deadline_us: int | None
    metric: tuple[str, float] | None
    coverage: float | None
    drifted: int | None
    columns: int

    @property
    def spark(self) -> Markup:
        return spark(self.predictions, max(self.predictions, default=0) or 1)


def health(project: Project) -> tuple[EndpointHealth, ...]:
    """Return all endpoints, those with the most important incidents first, then by name."""
    opened = sorted(project.incidents.open(), key=importance)
    now, length = project.clock.now(), project.settings.monitor_window_us
    routes = project.routes.current()
    rows = []
    for name in endpoints(project):
        windows = project.monitors.windows(name, now - _WINDOWS * length)
        windows = [each for each in windows if each.end - each.start == length]
        route, declared = routes.get(name), project.definitions.endpoints.get(name)
        incidents = tuple(each for each in opened if name in each.endpoints)
        judged = next((each for each in reversed(windows) if each.judged), None)
        served = next((each for each in reversed(windows) if each.predictions), None)
        rows.append(
            EndpointHealth(
                name=name,
                model=route.model if route else declared.model_name if declared else "",
                state=_state(incidents, bool(route and route.arms), served is not None),
                versions={arm.version: arm.weight for arm in route.arms} if route else {},
                incidents=incidents,
                predictions=tuple(each.predictions for each in windows),
                p99_ms=served.p99_ms if served else None,
                deadline_us=route.deadline_us if route else None,
                metric=_quality(project, route.model if route else "", windows),
                coverage=next((each.coverage for each in reversed(windows) if each.labels), None),
                drifted=None if judged is None else len(judged.drifted),
                columns=0 if judged is None else len(judged.judged),
            )
        )
    order = list(STATES)
    return tuple(sorted(rows, key=lambda row: (order.index(row.state), -len(row.incidents), row.name)))


def _state(incidents: Sequence[Incident], live: bool, served: bool) -> str:
    if incidents:
        return "page" if any(each.page for each in incidents) else "ticket"
    return "idle" if not live else "well" if served else "silent"


def _quality(project: Project, model: str, windows: Sequence[Window]) -> tuple[str, float] | None:
    """Return the metric of the model's first gate, or the first that there is, in the newest window with labels."""
    newest = next((each for each in reversed(windows) if each.quality), None)
    if newest is None:
        return None
    declared = project.definitions.models.get(model)
    gated = [gate.metric for gate in (declared.gates if declared else ())]
    name = next((each for each in gated if each in newest.quality), next(iter(newest.quality)))
    made = next(iter(newest.by_predictor.values()), None)
    return name, newest.quality[name] if made is None else made.quality.get(name, newest.quality[name])
