"""View models of the list of incidents and of one incident: its evidence over time, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints.period import Period, windows_in
from mainspring.console.features.values import rows_address
from mainspring.console.formats import fixed, share, span, whole
from mainspring.core.errors import NotFound
from mainspring.core.time import format_instant
from mainspring.delivery.promote import previous_version
from mainspring.delivery.routing import CHAMPION
from mainspring.monitoring.incidents.model import Incident, Outgoing, Symptom, Taken
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.monitoring.signals import BUDGET, STREAM
from mainspring.operations.defending import live
from mainspring.operations.incidents import find, importance
from mainspring.operations.watching import watched_names
from mainspring.project import Project

STATES = {"open": ("Open", "alert"), "silenced": ("Silenced", "drifted"), "closed": ("Closed", "plain")}
PAGE = 25
_PERHAPS_THE_VERSION = ("quality", "joint", "segment", "column", "service")  # causes that a rollback may end
_DRAWN, _BEFORE, _AFTER = 4, 21, 7  # columns, and windows around the incident


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident in the list. `state` is a key of `STATES`."""

    incident: Incident
    state: str
    sentence: str


@dataclass(frozen=True, slots=True)
class IncidentList:
    """Open incidents, the most important first, and a page of closed ones, newest first."""

    endpoint: str
    endpoints: tuple[str, ...]
    open: tuple[IncidentRow, ...]
    closed: tuple[IncidentRow, ...]
    next: tuple[int, str] | None  # opened at, and id, of the last one on this page if there are more
    before: bool


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to do: a sentence, with a command, the address of a page, or both."""

    text: str
    command: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """One incident."""

    incident: Incident
    state: str
    symptoms: tuple[Symptom, ...]  # the most severe first
    charts: tuple[Chart, ...]
    remedies: tuple[Remedy, ...]
    messages: tuple[Outgoing, ...]
    now: int
    sheds: tuple[Taken, ...] = ()  # those that are on


def incident_list(
    project: Project, endpoint: str = "", *, before: tuple[int, str] | None = None, limit: int = PAGE
) -> IncidentList:
    """Return the incidents of an endpoint, a chain of answers or a collection, by default of all.

    Raises:
        NotFound: There is none of this name that is watched.
    """
    watched = watched_names(project)
    if endpoint and endpoint not in watched:
        raise NotFound(f"There is no {endpoint!r} that is watched.", fix=f"choose one of {sorted(watched)}.")
    now = project.clock.now()
    live = [each for each in project.incidents.open() if not endpoint or endpoint in each.endpoints]
    closed: list[Incident] = []
    position, more = before, True
    while more and len(closed) <= limit:  # the store lists open ones among them
        found = project.incidents.find(endpoint=endpoint, before=position, limit=limit + 1)
        closed += [each for each in found if not each.is_open]
        more = len(found) > limit
        position = (found[-1].opened_at, found[-1].id) if found else position
    shown = closed[:limit]
    last = (shown[-1].opened_at, shown[-1].id) if len(closed) > limit else None
    return IncidentList(
        endpoint=endpoint,
        endpoints=tuple(sorted(watched)),
        open=() if before else tuple(_row(each, now) for each in sorted(live, key=importance)),
        closed=tuple(_row(each, now) for each in shown),
        next=last,
        before=before is not None,
    )


def _row(incident: Incident, now: int) -> IncidentRow:
    worst = max(incident.symptoms, key=lambda each: each.severity, default=None)
    return IncidentRow(incident, state_of(incident, now), "" if worst is None else worst.detail)


def state_of(incident: Incident, now: int) -> str:
    """Return a key of `STATES`."""
    return "closed" if not incident.is_open else "silenced" if incident.silenced(now) else "open"


def incident_page(project: Project, id: str) -> IncidentPage:
    """Return the page of an incident.

    Raises:
        NotFound: There is none with this id.
    """
    incident, now = find(project, id), project.clock.now()
    symptoms = tuple(sorted(incident.symptoms, key=lambda each: (-each.severity, each.key)))
    return IncidentPage(
        incident=incident,
        state=state_of(incident, now),
        symptoms=symptoms,
        charts=_charts(project, incident, symptoms),
        remedies=remedies(project, incident),
        messages=tuple(project.incidents.outgoing(incidents=[incident.id])),
        now=now,
        sheds=tuple(live(incident, project.wall.now())),
    )


def _charts(project: Project, incident: Incident, symptoms: Sequence[Symptom]) -> tuple[Chart, ...]:
    """Return the course of the worst columns, one chart for each; of traffic where no column is to blame."""
    charts: list[Chart] = []
    drawn: set[tuple[str, str]] = set()
    for symptom in symptoms:
        if len(charts) == _DRAWN or (symptom.endpoint, symptom.column) in drawn or not symptom.endpoint:
            continue
        drawn.add((symptom.endpoint, symptom.column))
        windows = _around(project, symptom.endpoint, incident)
        if windows:
            charts.append(_course(f"course-{len(charts)}", symptom, windows, incident))
    return tuple(charts)


def _around(project: Project, endpoint: str, incident: Incident) -> list[Window]:
    length = project.settings.monitor_window_us
    around = Period("", incident.started - _BEFORE * length, incident.last + _AFTER * length)
    return [each for each in windows_in(project, endpoint, around) if each.end - each.start == length]


def _course(id_: str, symptom: Symptom, windows: Sequence[Window], incident: Incident) -> Chart:
    title, unit, of = _statistic(symptom)
    values = tuple(of(each) for each in windows)
    write = {"share": share, "count": whole}.get(unit, fixed)
    rows = tuple((span(w.start, w.end), write(v)) for w, v in zip(reversed(windows), reversed(values), strict=True))  # type: ignore[operator]
    marks = [(incident.started, "begins")]
    if incident.closed_at is not None:
        marks.append((incident.closed_at, "closed"))
    shown = tuple((at, text) for at, text in marks if windows[0].start <= at < windows[-1].end)
    return Chart(
        id_,
        title,
        "lines" if unit != "count" else "bars",
        unit,
        tuple(each.start for each in windows),
        tuple(each.end for each in windows),
        (Line(title, values),),
        Table(("Window", title), rows),
        note=f"in the windows of {symptom.endpoint}",
        empty="The windows around the incident hold too few predictions.",
        marks=shown,
    )


def _statistic(symptom: Symptom) -> tuple[str, str, Callable[[Window], float | None]]:
    """Return the title, the unit and the values of the statistic that shows a symptom best."""
    name = symptom.column
    if not name:
        if "latency" in symptom.statistic:
            return "Latency, p99", "ms", lambda window: window.p99_ms
        if "label" in symptom.statistic or "coverage" in symptom.statistic:
            return "Label coverage", "share", lambda window: window.coverage
        return "Predictions", "count", lambda window: window.predictions
    if "null" in symptom.statistic:
        return f"{name}: null", "share", lambda window: _of(window, name, lambda each: each.null_share)
    return (
        f"{name}: distance from training (KS)",
        "score",
        lambda window: _of(window, name, lambda each: each.ks),
    )


def _of(window: Window, column: str, value: Callable[[ColumnDrift], float]) -> float | None:
    return next((value(each) for each in window.judged if each.column == column), None)


def remedies(project: Project, incident: Incident) -> tuple[Remedy, ...]:
    """Return what a person can do next about an incident, by its cause."""
    cause, found = incident.cause, []
    if cause.kind == "source":
        rows, quarantine = rows_address(cause.name), f"mainspring data quarantine {cause.name}"
        found.append(Remedy(f"Look at the newest rows of {cause.name}.", address=rows))
        found.append(Remedy("Look at the rows that failed its checks:", quarantine, f"{rows}?of=quarantine"))
    elif cause.kind in ("view", "feature", "request"):
        view = cause.name.partition(".")[0]
        found.append(Remedy(f"Look at {view} and the sources behind it.", address=f"/features/{quote(view)}"))
        if cause.kind != "request":
            found.append(Remedy("Compare what was served with what is stored:", f"mainspring features verify {view}"))
    elif cause.kind == "labels":
        found.append(Remedy("Ingest the labels that are due:", f"mainspring ingest {cause.name} FILE"))
    elif cause.kind == BUDGET:
        found.append(Remedy("See where budgets stand, and what is held back:", "mainspring budgets"))
        found.append(Remedy("See where the money goes:", "mainspring cost"))
    elif cause.kind in ("traffic", "service", "monitor"):
        found.append(Remedy("Ask the installation what is wrong:", "mainspring doctor"))
    for name in {each.endpoint or each.column for each in incident.symptoms if each.channel == STREAM}:
        command = f"mainspring streams show {name}"
        found.append(Remedy(f"Look at the stream {name}:", command, f"/streams/{quote(name)}"))
    time = {"since": format_instant(incident.started)}
    if not incident.is_open:
        time["until"] = format_instant(incident.last)
    for endpoint in incident.endpoints[:3]:
        query = urlencode({"endpoint": endpoint, **time})
        found.append(Remedy(f"Look at the predictions of {endpoint} in its time.", address=f"/predictions?{query}"))
        declared = project.definitions.endpoints.get(endpoint)
        if cause.kind in _PERHAPS_THE_VERSION and declared is not None and declared.reference == CHAMPION:
            before = previous_version(project.versions, declared.model_name)
            if before is not None:
                address = f"/models/{quote(declared.model_name)}/rollback?incident={quote(incident.id)}"
                command = f"mainspring rollback {declared.model_name}"
                found.append(Remedy(f"Roll back to version {before}", command, address))
        found.append(
            Remedy(f"Read predictions of {endpoint} again:", f"mainspring replay --sample 100 --endpoint {endpoint}")
        )
    return tuple(found)
