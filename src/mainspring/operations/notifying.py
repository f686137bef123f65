"""Messages about incidents: queued in the transaction of the change, delivered by a worker with retries.

A message is delivered at least once, with the same id in every try. All that wait for a receiver go as one digest, and
its deliveries an hour are bounded, so a storm is a few messages.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.monitoring.incidents.model import FAILED, PAGE, SENT, WAITING, Incident, Outgoing
from mainspring.monitoring.incidents.updating import Change
from mainspring.monitoring.notify.declaring import ALERTMANAGER, PAGERDUTY, Target
from mainspring.monitoring.notify.ports import Message, Notice, Notifier
from mainspring.project import Project
from mainspring.project.backends.monitoring import notifier

DEADLINE_S = 10.0  # of a try
GIVEN_UP_US = DAY  # after a message was made
_FIRST_WAIT_US, _LONGEST_WAIT_US = 30 * SECOND, HOUR
_LEASE_US = 2 * MINUTE
_AT_ONCE = 100  # notices of a delivery
_ALONE = 10  # notices of a delivery to a receiver that is told of each by itself
_REFRESH_US = 10 * MINUTE  # how often alerts are repeated to a receiver that forgets them

Build = Callable[[Target], Notifier]
_log = logging.getLogger(__name__)


def targets(project: Project, endpoints: Sequence[str] | None = None) -> list[Target]:
    """Return the receivers that the monitors of endpoints declare, by default of all."""
    monitors = project.definitions.monitors
    names = monitors if endpoints is None else endpoints
    found = {target.name: target for name in names if name in monitors for target in monitors[name].notify}
    return sorted(found.values(), key=lambda target: target.name)


def outgoing(project: Project, changes: Sequence[Change]) -> list[Outgoing]:
    """Return the messages about changes of incidents, to store in the same transaction."""
    now = project.wall.now()
    return [
        Outgoing(
            id=f"{incident.id}-{incident.revision + 1}-{target.name}",
            target=target.name,
            incident=incident.id,
            event=change.event,
            level=incident.level,
            made_at=now,
            due_at=now,
        )
        for change in changes
        if change.event
        for incident in [change.incident]
        for target in targets(project, incident.endpoints or None)
        if incident.page or target.level != PAGE
    ]


class Delivery:
    """Delivers waiting messages; one object of a process, which remembers when it last repeated alerts.

    Args:
        build: Returns the notifier of a receiver; by default that of the profile's settings.
    """

    def __init__(self, project: Project, build: Build | None = None) -> None:
        self._project = project
        self._build = build or (lambda target: notifier(target.kind, project.settings, target.name))
        self._repeated: dict[str, int] = {}

    def run(self) -> list[Outgoing]:
        """Try every message that is due once; return those that were tried, with the outcome."""
        declared = targets(self._project)
        tried = [outcome for target in declared for outcome in self._to(target)]
        for target in declared:
            if target.kind == ALERTMANAGER:
                self._repeat(target)
        self._give_up({target.name for target in declared})
        return tried

    def _to(self, target: Target) -> list[Outgoing]:
        now, store = self._project.wall.now(), self._project.incidents
        limit = _ALONE if target.kind == PAGERDUTY else _AT_ONCE
        claimed = store.claim(target.name, now, now + _LEASE_US, limit)
        if not claimed:
            return []
        room = target.most_an_hour - self._sent(target, now)
        allowed = [each for each in claimed if room + (target.most_an_hour if each.level == PAGE else 0) > 0]
        held = [each for each in claimed if each not in allowed]
        store.settle([msgspec.structs.replace(each, due_at=now + MINUTE, attempts=each.attempts - 1) for each in held])
        if not allowed:
            return []
        id = allowed[0].id if len(allowed) == 1 else _digest(allowed)
        try:
            self._build(target).send(self._message(id, self._notices(allowed)), within_s=DEADLINE_S)
        except MainspringError as error:
            _log.warning("message to %s: %s", target.name, error)
            outcome = [_failed(each, str(error), self._project.wall.now()) for each in allowed]
        except Exception as error:  # a fault of an adapter must not stop the others
            _log.exception("message to %s failed", target.name)
            text = f"{type(error).__name__}: {error}"
            outcome = [_failed(each, text, self._project.wall.now()) for each in allowed]
        else:
            alone = target.kind == PAGERDUTY
            outcome = [
                msgspec.structs.replace(each, state=SENT, sent_at=now, sent_as=each.id if alone else id, error="")
                for each in allowed
            ]
        store.settle(outcome)
        return outcome

    def _sent(self, target: Target, now: int) -> int:
        """Return the number of deliveries to a receiver in the last hour."""
        made = self._project.incidents.outgoing(states=[SENT], since=now - GIVEN_UP_US - HOUR, limit=10_000)
        recent = (each for each in made if each.target == target.name and (each.sent_at or 0) > now - HOUR)
        return len({each.sent_as for each in recent})

    def _notices(self, messages: Sequence[Outgoing]) -> list[Notice]:
        """Return the newest change of each incident, as the incident is now."""
        newest = {each.incident: each for each in sorted(messages, key=lambda each: (each.made_at, each.id))}
        found = self._project.incidents.get(list(newest))
        return [
            Notice(id=newest[each.id].id, event=newest[each.id].event, at=newest[each.id].made_at, incident=each)
            for each in found
            if each is not None
        ]

    def _message(self, id: str, notices: Sequence[Notice]) -> Message:
        settings = self._project.settings
        now = self._project.wall.now()
        return Message(
            id=id, project=settings.project, console=settings.control.url, now=now, notices=tuple(notices)
        )  # fmt: skip

    def _repeat(self, target: Target) -> None:
        """Send the open incidents once more to a receiver that forgets them."""
        now = self._project.wall.now()
        if 0 <= now - self._repeated.get(target.name, -_REFRESH_US) < _REFRESH_US:
            return
        self._repeated[target.name] = now
        open_ = [each for each in self._project.incidents.open() if each.told and self._tells(target, each)]
        notices = [Notice(id=each.id, event="open", at=_made(each, now), incident=each) for each in open_]
        if not notices:
            return
        try:
            self._build(target).send(self._message(f"repeated-{now}", notices), within_s=DEADLINE_S)
        except MainspringError as error:
            _log.warning("alerts to %s are not repeated: %s", target.name, error)

    def _tells(self, target: Target, incident: Incident) -> bool:
        mine = {each.name for each in targets(self._project, incident.endpoints or None)}
        return target.name in mine and (incident.page or target.level != PAGE)

    def _give_up(self, declared: set[str]) -> None:
        """Mark messages as failed whose receiver is not declared any more."""
        now = self._project.wall.now()
        waiting = self._project.incidents.outgoing(states=[WAITING])
        lost = [each for each in waiting if each.target not in declared and now - each.made_at > GIVEN_UP_US]
        if lost:
            self._project.incidents.settle(
                [_failed(each, "Its receiver is not declared any more.", now) for each in lost]
            )


def _failed(message: Outgoing, error: str, now: int) -> Outgoing:
    """Return a message after a try that failed: due again later, each time after twice as long, for a day."""
    if now - message.made_at > GIVEN_UP_US:
        return msgspec.structs.replace(message, state=FAILED, error=error[:1_000])
    wait = min(_LONGEST_WAIT_US, _FIRST_WAIT_US << min(message.attempts - 1, 16))
    return msgspec.structs.replace(message, due_at=now + wait, error=error[:1_000])


def _digest(messages: Sequence[Outgoing]) -> str:
    """Return the id of a delivery of several messages: the same for the same messages."""
    return hashlib.sha256("\n".join(sorted(each.id for each in messages)).encode()).hexdigest()[:32]


def _made(incident: Incident, now: int) -> int:
    return min(incident.opened_at, now)
