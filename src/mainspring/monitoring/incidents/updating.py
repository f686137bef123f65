"""Next state of incidents from new signals. Pure: the same evidence gives the same incidents, whenever it is seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from mainspring.core.ids import new_id
from mainspring.monitoring.incidents.causes import Group
from mainspring.monitoring.incidents.model import (
    CLOSED,
    ESCALATED,
    EXPECTED,
    FALSE_ALARM,
    MOST_SYMPTOMS,
    OPENED,
    PAGE,
    REOPENED,
    WEEKS,
    Cause,
    Incident,
    Judged,
    Policy,
    Symptom,
    scope,
)
from mainspring.monitoring.signals import Signal

MONITOR = "monitor"  # author of notes that no person wrote
_WORSE = 2.0  # times the severity of a dismissed incident
_DOUBLINGS = 5  # of the clean windows of an incident that keeps coming back
Pair = tuple[str, str]  # endpoint, scope of a channel


@dataclass(frozen=True, slots=True)
class Change:
    """The next state of an incident, and the event that people should be told of; empty if there is none."""

    incident: Incident
    event: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a pass judged.

    Attributes:
        groups: Signals by cause.
        judged: (endpoint, scope) -> windows that were judged, oldest first.
        watched: The pairs that exist: an incident waits for no clean window of another one.
        policies: By endpoint; `Policy()` where there is none.
    """

    groups: Sequence[Group]
    judged: Mapping[Pair, Sequence[tuple[int, int]]]
    watched: Collection[Pair]
    policies: Mapping[str, Policy] = field(default_factory=dict)

    @classmethod
    def of(
        cls, judgements: Sequence[Judged], groups: Sequence[Group], watched: Collection[Pair],
        policies: Mapping[str, Policy] | None = None,
    ) -> Evidence:  # fmt: skip
        judged: dict[Pair, Sequence[tuple[int, int]]] = {}
        for each in judgements:
            pair = each.endpoint, each.scope
            judged[pair] = sorted({*judged.get(pair, ()), *each.windows})
        return cls(groups, judged, watched, policies or {})


def updated(
    known: Sequence[Incident], evidence: Evidence, now: int, *, name: Callable[[], str] = new_id
) -> list[Change]:
    """Return the incidents that change, those to close first.

    A group of signals joins the open incident of its cause, or of a wider cause. A wider cause takes over the oldest
    open incident that it explains, and closes the others. A cause that shows again within the cool-down reopens its
    incident, which then needs twice as many clean windows to be closed. If a person called it a false alarm or
    expected, it stays closed while it lasts and for the cool-down after, unless it becomes much worse. Signals that a
    closed incident had seen change nothing.

    Args:
        known: All open incidents, and closed ones as old as the oldest signal and the cool-down.
        now: By the domain's clock.
        name: Returns the id of a new incident.
    """
    before = {each.id: each for each in known}
    after = dict(before)
    for group in evidence.groups:
        _join(after, group, evidence, now, name)
    for each in list(after.values()):
        if each.is_open:
            through = _clean_through(each, evidence)
            if through is not None:
                after[each.id] = closed(each, now, through, MONITOR, "its windows are clean again")
    changed = [_told(each, before.get(each.id), now) for each in after.values()]
    found = [change for change in changed if change.incident != before.get(change.incident.id)]
    return sorted(found, key=lambda change: (change.incident.is_open, change.incident.opened_at, change.incident.id))


def closed(incident: Incident, now: int, through: int, by: str, why: str) -> Incident:
    """Return the incident closed; evidence until `through` does not reopen it."""
    ended = msgspec.structs.replace(incident, closed_at=now, closed_through=max(through, incident.last), updated_at=now)
    return ended.noted(now, by, f"closed: {why}")


def _join(incidents: dict[str, Incident], group: Group, evidence: Evidence, now: int, name: Callable[[], str]) -> None:
    """Let a group of signals change the incidents."""
    keys = (group.cause.key, *group.cause.within)
    open_ = sorted((each for each in incidents.values() if each.is_open), key=lambda each: (each.opened_at, each.id))
    there = next((each for key in keys for each in open_ if each.cause.key == key), None)
    if there is None:
        parts = [each for each in open_ if group.cause.key in each.cause.within]
        if parts:
            there, *others = parts
            for each in others:
                incidents[each.id] = closed(each, now, each.last, MONITOR, f"it is part of {there.id}")
            words = f"{there.cause} is part of {group.cause}"
            there = msgspec.structs.replace(there, cause=group.cause).noted(now, MONITOR, words)
            group = Group(group.cause, (*group.signals, *(_signal(each) for part in others for each in part.symptoms)))
    if there is not None:
        incidents[there.id] = _with(there, group.signals, now)
        return
    ended = [each for each in incidents.values() if not each.is_open and each.cause.key in keys]
    last = max(ended, key=lambda each: (each.closed_through or 0, each.id), default=None)
    news = list(group.signals)
    if last is not None:
        seen = last.closed_through or 0
        news = [each for each in news if each.end > seen]
        if not news:
            return
        if min(each.end for each in news) - seen <= _policy(last, evidence).cool_down_us:
            if last.verdict not in (FALSE_ALARM, EXPECTED):
                incidents[last.id] = _with(_reopened(last, now), news, now)
                return
            if not _is_worse(last, news):
                through = max(each.end for each in news)
                incidents[last.id] = msgspec.structs.replace(last, closed_through=through)
                return
    made = _new(name(), group.cause, news, now)
    incidents[made.id] = made


def _reopened(incident: Incident, now: int) -> Incident:
    again = msgspec.structs.replace(
        incident, closed_at=None, closed_through=None, reopened=incident.reopened + 1, told="", verdict=""
    )
    return again.noted(now, MONITOR, "reopened")


def _is_worse(dismissed: Incident, news: Sequence[Signal]) -> bool:
    """Return whether signals are of another order than those that a person dismissed."""
    woken = any(each.page for each in news) and not dismissed.page
    return woken or max(each.severity for each in news) > _WORSE * dismissed.severity


def _new(id: str, cause: Cause, signals: Sequence[Signal], now: int) -> Incident:
    empty = Incident(
        id=id, cause=cause, endpoints=(), channels=(), symptoms=(), severity=0.0, page=False, opened_at=now,
        updated_at=now,
    )  # fmt: skip
    return _with(empty, signals, now)


def _with(incident: Incident, signals: Sequence[Signal], now: int) -> Incident:
    """Return the incident with more signals; the same object if it has seen all of them."""
    symptoms = {each.key: each for each in incident.symptoms}
    more = 0
    for signal in sorted(signals, key=lambda each: (-each.severity, each.end)):
        new = Symptom(
            channel=signal.channel, endpoint=signal.endpoint, statistic=signal.statistic, column=signal.column,
            segment=signal.segment, version=signal.version, first=signal.start, last=signal.end,
            severity=signal.severity, value=signal.value, expected=signal.expected, page=signal.page,
            detail=signal.detail, caller=signal.caller,
        )  # fmt: skip
        old = symptoms.get(new.key)
        if old is not None:
            symptoms[new.key] = _newer(old, new)
        elif len(symptoms) < MOST_SYMPTOMS:
            symptoms[new.key] = new
        else:
            more += 1
    found = tuple(symptoms.values())
    if found == incident.symptoms and more <= incident.more:
        return incident
    return msgspec.structs.replace(
        incident,
        symptoms=found,
        more=max(more, incident.more),
        endpoints=tuple(sorted({*incident.endpoints, *(each.endpoint for each in found if each.endpoint)})),
        channels=tuple(sorted({*incident.channels, *(each.channel for each in found)})),
        severity=max(each.severity for each in found),
        page=any(each.page for each in found),
        updated_at=now,
    )


def _newer(old: Symptom, new: Symptom) -> Symptom:
    """Return a symptom with one more signal; a window that it has seen changes the severity alone."""
    first, severity = min(old.first, new.first), max(old.severity, new.severity)
    page = old.page or new.page
    if new.last <= old.last:
        return msgspec.structs.replace(old, first=first, severity=severity, page=page)
    return msgspec.structs.replace(new, first=first, severity=severity, page=page, windows=old.windows + 1)


def _signal(symptom: Symptom) -> Signal:
    return Signal(
        channel=symptom.channel, endpoint=symptom.endpoint, statistic=symptom.statistic, start=symptom.first,
        end=symptom.last, severity=symptom.severity, version=symptom.version, segment=symptom.segment,
        column=symptom.column, value=symptom.value, expected=symptom.expected, page=symptom.page,
        detail=symptom.detail, caller=symptom.caller,
    )  # fmt: skip


def _policy(incident: Incident, evidence: Evidence) -> Policy:
    """Return the slowest policy of the incident's endpoints."""
    found = [evidence.policies.get(endpoint, Policy()) for endpoint in incident.endpoints] or [Policy()]
    return Policy(max(each.clean_windows for each in found), max(each.cool_down_us for each in found))


def _clean_through(incident: Incident, evidence: Evidence) -> int | None:
    """Return the end of the clean windows that close the incident; `None` while some are missing."""
    last: dict[Pair, int] = {}
    for each in incident.symptoms:
        pair = each.endpoint, scope(each.channel, each.statistic, each.column)
        if pair in evidence.watched:
            last[pair] = max(last.get(pair, each.last), each.last)
    wanted, through = _policy(incident, evidence).clean_windows << min(incident.reopened, _DOUBLINGS), incident.last
    for pair, end in last.items():
        clean = [window for window in evidence.judged.get(pair, ()) if window[0] >= end]
        enough = -(-wanted // 7) if pair[1] == WEEKS else wanted
        if len(clean) < enough:
            return None
        through = max(through, clean[enough - 1][1])
    return through


def _told(incident: Incident, before: Incident | None, now: int) -> Change:
    """Return the incident with the event that people have not been told of yet."""
    if incident.is_open:
        if incident.silenced(now):
            return Change(incident)
        if not incident.told:
            event = REOPENED if incident.reopened else OPENED
            return Change(msgspec.structs.replace(incident, told=incident.level), event)
        if incident.page and incident.told != PAGE:
            return Change(msgspec.structs.replace(incident, told=PAGE), ESCALATED)
        return Change(incident)
    ended_now = before is not None and before.is_open
    return Change(incident, CLOSED if ended_now and incident.told else "")
