"""The monitor's pass: windows, channels, incidents. Each part fails alone, and its failure is an incident itself.

A pass is a function of the stored evidence: repeated, or done by two workers at once, it changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec

import msgspec

from mainspring.core.errors import Conflict, MainspringError
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.cost.budgets.judging import Standing
from mainspring.features.model import FeatureView
from mainspring.monitoring.channels.concept import concept_signals
from mainspring.monitoring.channels.harm import signals as harm_signals
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.incidents.causes import LABELS, MONITOR, PREDICTIONS, Lineage, Origin, grouped
from mainspring.monitoring.incidents.feedback import confirmed, dismissed
from mainspring.monitoring.incidents.model import OPENED, REOPENED, WEEKS, Incident, Judged, Part, Policy, scope
from mainspring.monitoring.incidents.silences import Traffic, missing_labels, missing_predictions, monitor_silences
from mainspring.monitoring.incidents.updating import Change, Evidence, Pair, updated
from mainspring.monitoring.model import Window
from mainspring.monitoring.signals import BUDGET, CALLERS, HARM, SILENCE
from mainspring.monitoring.signals import CHANNELS as CHANNEL_NAMES
from mainspring.operations.acting import MONITOR as WORKER
from mainspring.operations.acting import act
from mainspring.operations.anchoring import judged as anchors_judged
from mainspring.operations.answer_monitoring import answers_judged
from mainspring.operations.attributions import attributions_judged
from mainspring.operations.auditing import audit
from mainspring.operations.budgets.acting import act as act_on_budgets
from mainspring.operations.budgets.standing import standings
from mainspring.operations.budgets.watching import judged as budgets_judged
from mainspring.operations.callers import judged as callers_judged
from mainspring.operations.collection_monitoring import (
    freshness_judged,
    recall_judged,
    searches_judged,
    watched_collections,
)
from mainspring.operations.distributions import Kept, judged, traffic
from mainspring.operations.edge.watching import judged as fleet_judged
from mainspring.operations.notifying import outgoing
from mainspring.operations.quality import drifts_of, harm_of
from mainspring.operations.ranking import effect
from mainspring.operations.separating import separations_judged
from mainspring.operations.service.objectives import judged as service_judged
from mainspring.operations.service.skew import judged as skew_judged
from mainspring.operations.streams.reports import names as streams
from mainspring.operations.streams.watching import judged as streams_judged
from mainspring.project import Project

WINDOWS, STREAMS, FLEET, ANCHORS, BUDGETS = "windows", "streams", "fleet", "anchors", "budgets"
INCIDENTS, RANKING, ACTIONS = "incidents", "ranking", "actions"
OLDEST_US = 30 * DAY  # of signals that may open an incident; labels are joined as long
_TRIES = 5
_BUDGETS_US = 5 * MINUTE
_RANKED = 5  # incidents of a pass
_HISTORY = 1_000  # incidents whose verdicts are heard

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """An endpoint as a channel looks at it.

    Attributes:
        now: By the domain's clock.
        since: Signals of older windows open no incident.
        kept: Sketches that this process keeps between passes, by endpoint.
    """

    project: Project
    endpoint: str
    now: int
    since: int
    kept: dict[str, Kept] = field(default_factory=dict)


Channel = Callable[[Watch], Sequence[Judged]]


def _silence(watch: Watch) -> list[Judged]:
    windows = watch.project.monitors.windows(watch.endpoint, watch.now - 2 * OLDEST_US, watch.now)
    length = watch.project.settings.monitor_window_us
    windows = [each for each in windows if each.end - each.start == length]
    found = [missing_predictions(watch.endpoint, _traffic(watch, windows))]
    model = watch.project.definitions.models.get(watch.project.definitions.served(watch.endpoint).model_name)
    if model is not None:
        matures_us = max((each.matures_us or 0 for each in model.labels), default=0)
        found.append(missing_labels(watch.endpoint, windows, watch.now, matures_us))
    return found


def _silence_of_searches(watch: Watch) -> list[Judged]:
    return [missing_predictions(watch.endpoint, _traffic(watch))]


def _traffic(watch: Watch, windows: Sequence[Window] = ()) -> list[Traffic]:
    hours = traffic(watch.project, watch.endpoint, watch.kept.setdefault(watch.endpoint, Kept()), now=watch.now)
    # A log from before there were sketches, or one that began lately, has windows alone.
    whole = [Traffic(each.start, each.end, each.predictions) for each in windows if _is_complete(each, watch.now)]
    return hours if hours and (not whole or hours[0].start <= watch.now - 8 * DAY) else whole


def _is_complete(window: Window, now: int) -> bool:
    return window.end <= min(now, window.computed_at)


def _harm(watch: Watch) -> list[Judged]:
    watch.project.quality_updates.run_if_due(watch.endpoint)
    found = harm_of(watch.project, watch.endpoint, watch.now)
    hints = concept_signals(watch.endpoint, drifts_of(watch.project, watch.endpoint, watch.now), watch.since)
    days = {(each.end - DAY, each.end) for each in found} | {(each.start, each.end) for each in hints}
    pages = harm_signals(watch.endpoint, found)
    return [Judged(watch.endpoint, HARM, tuple(sorted(days)), (*pages, *hints))]


def _distributions(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    incidents = watch.project.incidents.find(endpoint=watch.endpoint, limit=_HISTORY)
    heard = confirmed(incidents, watch.endpoint), dismissed(incidents, watch.endpoint)
    return judged(watch.project, watch.endpoint, kept, now=watch.now, verdicts=heard)


def _attributions(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    monitor = watch.project.definitions.monitors.get(watch.endpoint)
    budget = ALARMS_PER_WEEK if monitor is None else monitor.alarms_per_week
    return attributions_judged(watch.project, watch.endpoint, watch.now, kept.attributions, budget)


def _separations(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    incidents = confirmed(watch.project.incidents.find(endpoint=watch.endpoint, limit=_HISTORY), watch.endpoint)
    return separations_judged(watch.project, watch.endpoint, watch.now, kept.separations, incidents)


def _callers(watch: Watch) -> Sequence[Judged]:
    kept, end = watch.kept.setdefault(watch.endpoint, Kept()), watch.now // HOUR * HOUR
    if kept.callers is None or kept.callers[0] != end:  # it reads the whole window's log
        kept.callers = end, callers_judged(watch.project, watch.endpoint, end)
    return kept.callers[1]


def _answers(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    incidents = watch.project.incidents.find(endpoint=watch.endpoint, limit=_HISTORY)
    heard = confirmed(incidents, watch.endpoint), dismissed(incidents, watch.endpoint)
    return answers_judged(watch.project, watch.endpoint, kept.answers, watch.now, heard)


def _searches(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    incidents = watch.project.incidents.find(endpoint=watch.endpoint, limit=_HISTORY)
    heard = confirmed(incidents, watch.endpoint), dismissed(incidents, watch.endpoint)
    return searches_judged(watch.project, watch.endpoint, kept.collection, watch.now, heard)


def _recall(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    return recall_judged(watch.project, watch.endpoint, kept.collection, watch.now)


def _freshness(watch: Watch) -> list[Judged]:
    kept = watch.kept.setdefault(watch.endpoint, Kept())
    return freshness_judged(watch.project, watch.endpoint, kept.collection, watch.now)


CHANNELS: Mapping[str, Channel] = {  # by name of the part; a new channel adds one line
    "harm": _harm,
    "silence": _silence,
    "distributions": _distributions,
    "attributions": _attributions,
    "separations": _separations,
    "service": lambda watch: service_judged(watch.project, watch.endpoint),
    "skew": lambda watch: skew_judged(watch.project, watch.endpoint),
    "callers": _callers,
}
OF_ANSWERS: Mapping[str, Channel] = {"silence": _silence, "answers": _answers}  # likewise, of chains of answers
OF_COLLECTIONS: Mapping[str, Channel] = {  # likewise, of collections that have a monitor
    "silence": _silence_of_searches,
    "searches": _searches,
    "recall": _recall,
    "freshness": _freshness,
}


def watch(
    project: Project,
    endpoints: Sequence[str] | None = None,
    *,
    windows: bool = True,
    channels: Mapping[str, Channel] = CHANNELS,
    kept: dict[str, Kept] | None = None,
) -> list[Change]:
    """Look at endpoints, chains of answers and collections once; return the incidents that changed.

    Args:
        endpoints: Their names; by default all of the project's.
        windows: Whether the windows are updated too.
        channels: Channels by the name of their part.
        kept: Given to each pass of a process that makes many, so that it reads only new sketches.
    """
    names = watched_names(project) if endpoints is None else list(endpoints)
    now = project.clock.now()
    before = project.incidents.parts()
    parts = _Parts(project, before)
    found: list[Judged] = []
    for endpoint in names:
        theirs = channels_of(project, endpoint)
        if windows and theirs is CHANNELS:
            with parts.part(endpoint, WINDOWS):
                project.monitor.run(endpoint)
        for name, channel in (channels if theirs is CHANNELS else theirs).items():
            with parts.part(endpoint, name):
                found += channel(Watch(project, endpoint, now, now - OLDEST_US, {} if kept is None else kept))
    if streams(project):
        with parts.part("", STREAMS):
            found += streams_judged(project)
    if project.settings.fleet is not None:
        with parts.part("", FLEET):
            found.append(fleet_judged(project))
    if project.settings.audit_anchors or project.settings.audit_anchored:
        with parts.part("", ANCHORS):
            found.append(anchors_judged(project))
    budgets: list[Standing] | None = None
    if project.definitions.budgets or any(each.cause.kind == BUDGET for each in project.incidents.open()):
        with parts.part("", BUDGETS):
            budgets = _budgets(project, {} if kept is None else kept)
            found.append(budgets_judged(project, budgets))
    changes: list[Change] = []
    found += monitor_silences(before, parts.ran, project.settings.monitor_window_us)
    with parts.part("", INCIDENTS):
        changes = settle(project, found, now)
    with parts.part("", RANKING):
        rank(project, [change.incident for change in changes])
    with parts.part("", ACTIONS):
        act(project, project.incidents.open())
        if budgets is not None:  # while they cannot be judged, what holds goes on
            act_on_budgets(project, budgets)
    project.incidents.record(parts.ran)
    return changes


def _budgets(project: Project, kept: dict[str, Kept]) -> list[Standing]:
    """Return where budgets stand. That reads weeks of usage, so it is done every five minutes."""
    of, turn = kept.setdefault("", Kept()), project.wall.now() // _BUDGETS_US
    if of.budgets is None or of.budgets[0] != turn:
        of.budgets = turn, standings(project)
    return of.budgets[1]


def watched_names(project: Project) -> list[str]:
    """Return the names of the endpoints, chains of answers and collections that are watched."""
    return [*project.definitions.endpoints, *project.definitions.answers, *watched_collections(project)]


def channels_of(project: Project, name: str) -> Mapping[str, Channel]:
    """Return the channels that look at an endpoint, a chain of answers or a collection."""
    if name in project.definitions.answers:
        return OF_ANSWERS
    return OF_COLLECTIONS if name in watched_collections(project) else CHANNELS


class _Parts:
    """Runs the parts of a pass, so that one that fails stops no other."""

    def __init__(self, project: Project, before: Sequence[Part]) -> None:
        self._project = project
        self._before = {(each.endpoint, each.part): each for each in before}
        self.ran: list[Part] = []

    @contextmanager
    def part(self, endpoint: str, name: str) -> Iterator[None]:
        error = ""
        try:
            yield
        except MainspringError as failure:
            error = str(failure)
            _log.warning("%s of %s: %s", name, endpoint or "all endpoints", error)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            _log.exception("%s of %s failed", name, endpoint or "all endpoints")
        now, old = self._project.wall.now(), self._before.get((endpoint, name))
        since = None if error else now
        if not error and old is not None and old.since is not None and old.since <= now:
            since = old.since
        self.ran.append(Part(endpoint=endpoint, part=name, ran_at=now, since=since, error=error[:1_000]))


def settle(project: Project, judged: Sequence[Judged], now: int) -> list[Change]:
    """Store the incidents that follow from judgements, and the messages about them; return those that changed.

    Raises:
        Conflict: Other processes kept changing the same incidents.
    """
    store = project.incidents
    lineage = lineage_of(project)
    policies = {name: policy(project, name) for name in watched_names(project)}
    signals = [each for one in judged for each in one.signals if each.end >= now - OLDEST_US]
    evidence = Evidence.of(judged, grouped(signals, lineage), _watched(project, judged), policies)
    oldest = now - OLDEST_US - max((each.cool_down_us for each in policies.values()), default=0)
    for _ in range(_TRIES):
        changes = updated([*store.open(), *store.closed(oldest)], evidence, now)
        if not changes:
            return []
        try:
            with project.audit.together():
                made = store.save([change.incident for change in changes], outgoing(project, changes))
                for incident in [each.incident for each in changes if each.event in (OPENED, REOPENED)]:
                    if CALLERS in incident.channels:
                        detail = incident.symptoms[0].detail
                        audit(project, "incident.open", f"incident/{incident.id}", detail, who=WORKER)
        except Conflict as error:  # another worker, or a person, was faster
            _log.info("%s", error)
            continue
        for change, incident in zip(changes, made, strict=True):
            if change.event:
                _log.info("incident %s %s: %s", incident.id, change.event, incident.cause)
        return [Change(incident, change.event) for change, incident in zip(changes, made, strict=True)]
    raise Conflict("Incidents kept changing.", fix="they are looked at again in the next pass.")


def rank(project: Project, incidents: Sequence[Incident]) -> None:
    """Store the expected effect of the first open incidents on the score. Where it is unknown, severity ranks alone."""
    waiting = [each for each in incidents if each.is_open and each.columns]
    for incident in sorted(waiting, key=lambda each: (not each.page, -each.severity))[:_RANKED]:
        try:
            found = effect(project, incident)
        except MainspringError as error:
            _log.warning("the effect of incident %s is unknown: %s", incident.id, error)
            continue
        if found is not None and found != incident.rank:
            with suppress(Conflict):  # it changed meanwhile, and is ranked again with its next change
                project.incidents.save([msgspec.structs.replace(incident, rank=found)])


def _watched(project: Project, judged: Sequence[Judged]) -> Collection[Pair]:
    """Return the pairs of endpoint and scope that exist, whether this pass judged them or not."""
    names = [*watched_names(project), ""]
    scopes = {each for each in CHANNEL_NAMES if each != SILENCE}
    own = {
        scope(SILENCE, MONITOR, part)
        for part in (
            "",
            WINDOWS,
            STREAMS,
            FLEET,
            ANCHORS,
            INCIDENTS,
            RANKING,
            ACTIONS,
            *CHANNELS,
            *OF_ANSWERS,
            *OF_COLLECTIONS,
        )
    }
    silences = {scope(SILENCE, each, "") for each in (PREDICTIONS, LABELS)}
    found = {(name, each) for name in names for each in scopes | silences | own}
    if find_spec("sklearn") is not None:  # without it no week will be judged
        found |= {(name, WEEKS) for name in names}
    return found | {(each.endpoint, each.scope) for each in judged}


def policy(project: Project, endpoint: str) -> Policy:
    """Return how an endpoint's incidents end, as its monitor declares."""
    monitor = project.definitions.monitors.get(endpoint)
    return Policy() if monitor is None else Policy(monitor.clean_windows, monitor.cool_down_us)


def lineage_of(project: Project) -> Lineage:
    """Return where the columns and labels of the project's endpoints come from."""
    definitions = project.definitions
    columns: dict[str, dict[str, Origin]] = {name: {} for name in (*definitions.answers, *watched_collections(project))}
    labels: dict[str, str] = {}
    for name, endpoint in definitions.endpoints.items():
        model = definitions.models.get(endpoint.model_name)
        if model is None:  # registered only: its columns are their own causes
            columns[name] = {}
            continue
        columns[name] = {column: _origin(column, definitions.views) for column in model.columns}
        labels[name] = model.label.source.name
    return Lineage(columns, labels)


def _origin(column: str, views: Mapping[str, FeatureView]) -> Origin:
    group = column.partition(".")[0]
    view = views.get(group)
    return Origin(group, "" if view is None else view.source.name)
