"""All endpoints at a glance, those that are not well first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.model import Window
from mainspring.operations.incidents import importance
from mainspring.project import Project

STATES = PAGED, TICKETED, IDLE, SILENT, WELL = ("page", "ticket", "idle", "silent", "well")  # the worst first
_WINDOWS = 14


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """One endpoint. `state` is one of `STATES`; the figures are of the newest window that has them.

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


class EndpointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint in a list.

    Attributes:
        state: `page` or `ticket` with an open incident of that level, `idle` if it serves nothing, `silent` without
            predictions in the last 14 windows, else `well`.
        versions: Version that serves -> its share of the requests.
        predictions: In the last 14 windows.
        metric: Name of the metric of the model's first gate; null without labels.
        value: Its value in the newest window with labels.
        coverage: Share of that window's predictions with a label.
        drifted: Number of columns that differ from training, of `columns`; null if none was compared.
        incidents: Ids of the open incidents, the most important first.
    """

    endpoint: str
    model: str
    state: str
    versions: dict[str, float]
    predictions: int
    p99_ms: float | None
    metric: str | None
    value: float | None
    coverage: float | None
    drifted: int | None
    columns: int
    incidents: tuple[str, ...]


def summary(row: EndpointHealth) -> EndpointSummary:
    """Return what a list shows of an endpoint."""
    metric, value = row.metric or (None, None)
    return EndpointSummary(
        endpoint=row.name,
        model=row.model,
        state=row.state,
        versions=row.versions,
        predictions=sum(row.predictions),
        p99_ms=row.p99_ms,
        metric=metric,
        value=value,
        coverage=row.coverage,
        drifted=row.drifted,
        columns=row.columns,
        incidents=tuple(each.id for each in row.incidents),
    )


def endpoints(project: Project) -> tuple[str, ...]:
    """Return the names of all endpoints, declared or routed, sorted."""
    return tuple(sorted({*project.definitions.endpoints, *project.routes.current()}))


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
    return tuple(sorted(rows, key=lambda row: (STATES.index(row.state), -len(row.incidents), row.name)))


def _state(incidents: Sequence[Incident], live: bool, served: bool) -> str:
    if incidents:
        return PAGED if any(each.page for each in incidents) else TICKETED
    return IDLE if not live else WELL if served else SILENT


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
