"""Incidents as they are shown, and the interventions of people: own, silence, judge, close."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import DAY, format_instant, parse_duration, parse_instant
from mainspring.monitoring.incidents.model import CLOSED, REAL, VERDICTS, Incident, Outgoing, Symptom
from mainspring.monitoring.incidents.updating import Change, closed
from mainspring.operations.auditing import audit
from mainspring.operations.defending import ended, live, publish_defences
from mainspring.operations.models.curating import storable
from mainspring.operations.notifying import outgoing
from mainspring.project import Project
from mainspring.registry.processes import local_user

LONGEST_SILENCE_US = 30 * DAY
_TRIES = 20


class SymptomReport(msgspec.Struct, frozen=True, kw_only=True):
    """A statistic that left its expectation, in `windows` windows from `first` to `last`."""

    channel: str
    endpoint: str
    statistic: str
    column: str
    segment: str
    version: str
    first: str
    last: str
    windows: int
    severity: float
    value: float | None
    expected: float | None
    page: bool
    detail: str


class NoteReport(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an incident's history."""

    at: str
    by: str
    text: str


class ActionReport(msgspec.Struct, frozen=True, kw_only=True):
    """An action that an incident caused."""

    at: str
    action: str
    state: str
    detail: str
    until: str | None = None  # of a shed or a restriction that is on: its end at the latest


class MessageReport(msgspec.Struct, frozen=True, kw_only=True):
    """A message about an incident to a receiver: waiting, sent, or failed for good."""

    target: str
    event: str
    state: str
    attempts: int
    made_at: str
    sent_at: str | None
    error: str  # of the last try that failed


class IncidentReport(msgspec.Struct, frozen=True, kw_only=True):
    """An incident. Instants are RFC 3339 texts.

    Attributes:
        cause: The thing that probably went wrong, such as `source weather`; `kind` is its kind.
        level: `page` or `ticket`.
        status: `open`, `silenced` or `closed`.
        severity: The largest of its symptoms, in units of the threshold.
        rank: Mean movement of the score that the symptoms make; null if it is unknown.
        more: Number of symptoms beyond the hundred that are kept.
    """

    id: str
    cause: str
    kind: str
    status: str
    level: str
    endpoints: tuple[str, ...]
    channels: tuple[str, ...]
    columns: tuple[str, ...]
    severity: float
    rank: float | None
    started: str
    opened_at: str
    updated_at: str
    closed_at: str | None
    owner: str
    silenced_until: str | None
    verdict: str
    reopened: int
    symptoms: tuple[SymptomReport, ...]
    more: int
    notes: tuple[NoteReport, ...]
    actions: tuple[ActionReport, ...]
    messages: tuple[MessageReport, ...]

    @property
    def headline(self) -> str:
        """The cause, and the worst symptom in a sentence."""
        return f"{self.cause}: {self.symptoms[0].detail}" if self.symptoms else self.cause


def report(project: Project, incident: Incident, messages: Sequence[Outgoing] | None = None) -> IncidentReport:
    """Return the report of an incident, its worst symptoms first.

    Args:
        messages: Those about it; by default read from the store.
    """
    sent = project.incidents.outgoing(incidents=[incident.id]) if messages is None else messages
    silenced = incident.silenced(project.clock.now())
    holding = live(incident, project.wall.now())
    return IncidentReport(
        id=incident.id,
        cause=str(incident.cause),
        kind=incident.cause.kind,
        status="closed" if not incident.is_open else "silenced" if silenced else "open",
        level=incident.level,
        endpoints=incident.endpoints,
        channels=incident.channels,
        columns=incident.columns,
        severity=incident.severity,
        rank=incident.rank,
        started=format_instant(incident.started),
        opened_at=format_instant(incident.opened_at),
        updated_at=format_instant(incident.updated_at),
        closed_at=_instant(incident.closed_at),
        owner=incident.owner,
        silenced_until=_instant(incident.silenced_until) if silenced else None,
        verdict=incident.verdict,
        reopened=incident.reopened,
        symptoms=tuple(map(_symptom, sorted(incident.symptoms, key=lambda each: (-each.severity, each.key)))),
        more=incident.more,
        notes=tuple(NoteReport(at=format_instant(each.at), by=each.by, text=each.text) for each in incident.notes),
        actions=tuple(
            ActionReport(
                at=format_instant(each.at),
                action=each.action,
                state=each.state,
                detail=each.detail,
                until=format_instant(each.until) if each in holding else None,
            )
            for each in incident.actions
        ),
        messages=tuple(map(_message, sent)),
    )


def listed(
    project: Project, endpoint: str | None = None, *, ended: bool = False, limit: int = 100
) -> list[IncidentReport]:
    """Return the open incidents, the most important first; with `ended` the closed ones too, after them.

    Pages come before tickets; then the larger expected effect on the score, then the larger severity.

    Raises:
        NotFound: There is no such endpoint.
    """
    if endpoint is not None:
        project.definitions.served(endpoint)
    found = [each for each in project.incidents.open() if endpoint is None or endpoint in each.endpoints]
    found = sorted(found, key=importance)[:limit]
    if ended:
        every = project.incidents.find(endpoint=endpoint or "", limit=limit + len(found))
        found += [each for each in every if not each.is_open][: limit - len(found)]
    messages: dict[str, list[Outgoing]] = {}
    for message in project.incidents.outgoing(incidents=[each.id for each in found]) if found else ():
        messages.setdefault(message.incident, []).append(message)
    return [report(project, each, messages.get(each.id, ())) for each in found]


def importance(incident: Incident) -> tuple[bool, float, float, int]:
    """Return the order of incidents, the most important first."""
    return not incident.page, -(incident.rank or 0.0), -incident.severity, -incident.opened_at


def find(project: Project, id: str) -> Incident:
    """Return an incident.

    Raises:
        NotFound: There is none with this id.
    """
    [found] = project.incidents.get([id])
    if found is None:
        raise NotFound(f"There is no incident {id!r}.", fix="`mainspring incidents list --all` lists them.")
    return found


def own(project: Project, id: str, owner: str | None = None, *, by: str | None = None) -> Incident:
    """Set the person who takes care of an incident, by default the one who asks. See `find` for errors."""
    who = by or local_user()
    name = storable(who if owner is None else owner)[:200]
    text = f"owned by {name}" if name else "owned by nobody"
    return _changed(project, id, who, "own", text, lambda each, _: msgspec.structs.replace(each, owner=name))


def silence(project: Project, id: str, until: str, *, reason: str = "", by: str | None = None) -> Incident:
    """Tell nobody of changes of an incident, and take no action, until an instant or for a duration.

    Raises:
        NotFound: There is no such incident.
        Invalid: The end is not within 30 days, or the incident is closed.
    """
    now = project.clock.now()
    try:
        end = now + parse_duration(until)
    except Invalid:
        end = parse_instant(until)
    if not now < end <= now + LONGEST_SILENCE_US:
        raise Invalid(f"A silence until {until!r} does not end within 30 days.", fix='write a duration, such as "8h".')
    text = f"silenced until {format_instant(end)}{_because(reason)}"

    def changed(incident: Incident, _: int) -> Incident:
        _expect_open(incident)
        return msgspec.structs.replace(incident, silenced_until=end)

    return _changed(project, id, by or local_user(), "silence", text, changed)


def close(project: Project, id: str, *, reason: str = "", by: str | None = None) -> Incident:
    """Close an incident now. A signal after this instant reopens it within the cool-down.

    Raises:
        NotFound: There is no such incident.
        Invalid: It is closed already.
    """
    who = by or local_user()

    def changed(incident: Incident, now: int) -> Incident:
        _expect_open(incident)
        return closed(incident, now, now, who, storable(reason) or "by hand")

    return _changed(project, id, who, "close", storable(reason), changed, note=False)


def end_shed(project: Project, id: str, *, reason: str = "", by: str | None = None) -> Incident:
    """End the shed or the restriction of a caller that an incident caused.

    Raises:
        NotFound: There is no such incident.
        Invalid: It sheds no requests, restricts no caller and holds nothing back.
    """
    who, why = by or local_user(), storable(reason)
    return _changed(
        project, id, who, "end-shed", f"shed ended{_because(reason)}",
        lambda incident, _: ended(incident, project.wall.now(), who, why),
    )  # fmt: skip


def judge(project: Project, id: str, verdict: str, *, reason: str = "", by: str | None = None) -> Incident:
    """Set the verdict of a person on an incident; a false alarm and an expected change also close it.

    A confirmed incident leaves the history of what is usual; a false alarm widens it.

    Raises:
        NotFound: There is no such incident.
        Invalid: There is no such verdict.
    """
    if verdict not in VERDICTS:
        raise Invalid(f"There is no verdict {verdict!r}.", fix=f"use one of {', '.join(map(repr, VERDICTS))}.")
    who = by or local_user()

    def changed(incident: Incident, now: int) -> Incident:
        judged = msgspec.structs.replace(incident, verdict=verdict)
        return closed(judged, now, now, who, verdict) if judged.is_open and verdict != REAL else judged

    return _changed(project, id, who, "verdict", f"verdict: {verdict}{_because(reason)}", changed)


def _changed(
    project: Project,
    id: str,
    who: str,
    action: str,
    text: str,
    change: Callable[[Incident, int], Incident],
    *,
    note: bool = True,
) -> Incident:
    for _ in range(_TRIES):
        incident, now = find(project, id), project.clock.now()
        made = msgspec.structs.replace(change(incident, now), updated_at=now)
        if note:
            made = made.noted(now, who, text)
        try:
            with project.audit.together():
                [stored] = project.incidents.save([made], _messages(project, incident, made))
                audit(project, f"incident.{action}", f"incident/{id}", text, who=who)
        except Conflict:  # a pass was faster
            continue
        publish_defences(project)
        return stored
    raise Conflict(f"The incident {id} kept changing.", fix="run the command again.")


def _messages(project: Project, before: Incident, after: Incident) -> list[Outgoing]:
    """Return the messages about an incident that a person closed, to those who were told that it opened."""
    ended = before.is_open and not after.is_open and after.told
    return outgoing(project, [Change(after, CLOSED)]) if ended else []


def _expect_open(incident: Incident) -> None:
    if not incident.is_open:
        raise Invalid(f"The incident {incident.id} is closed.", fix="`mainspring incidents list` lists open ones.")


def _because(reason: str) -> str:
    return f": {storable(reason)}" if reason else ""


def _instant(at: int | None) -> str | None:
    return None if at is None else format_instant(at)


def _symptom(symptom: Symptom) -> SymptomReport:
    return SymptomReport(
        channel=symptom.channel,
        endpoint=symptom.endpoint,
        statistic=symptom.statistic,
        column=symptom.column,
        segment=symptom.segment,
        version=symptom.version,
        first=format_instant(symptom.first),
        last=format_instant(symptom.last),
        windows=symptom.windows,
        severity=symptom.severity,
        value=symptom.value,
        expected=symptom.expected,
        page=symptom.page,
        detail=symptom.detail,
    )


def _message(message: Outgoing) -> MessageReport:
    return MessageReport(
        target=message.target,
        event=message.event,
        state=message.state,
        attempts=message.attempts,
        made_at=format_instant(message.made_at),
        sent_at=_instant(message.sent_at),
        error=message.error,
    )
