"""Values of incidents. Instants are UTC epoch microseconds by the domain's clock, of messages by the machine's."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mainspring.core.time import DAY
from mainspring.monitoring.signals import CLASSIFIER, JOINT, SILENCE, Signal

PAGE, TICKET = "page", "ticket"
LEVELS = (PAGE, TICKET)
REAL, FALSE_ALARM, EXPECTED = "real", "false alarm", "expected"
VERDICTS = (REAL, FALSE_ALARM, EXPECTED)
OPENED, REOPENED, ESCALATED, CLOSED = "opened", "reopened", "escalated", "closed"
WAITING, SENT, FAILED = "waiting", "sent", "failed"
BEGUN, DONE, REFUSED, DRY = "begun", "done", "refused", "dry run"  # of an action, which may be `FAILED` too
MOST_SYMPTOMS = 100  # of one incident; further ones are only counted
MOST_NOTES = 200
WEEKS = f"{JOINT} {CLASSIFIER}"  # the scope of windows of a week


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The thing that probably went wrong.

    Attributes:
        kind: `source`, `view`, `feature`, `request`, `column`, `segment`, `segments`, `quality`, `service`,
            `traffic`, `labels`, `monitor`, `package` (of devices), `audit log` (its name, or a place of its anchors),
            `caller`, `budget` or `joint`.
        name: Name of the source, view, ...; for people.
        key: Identity: an open incident exists at most once for each key.
        within: Keys of the causes that would explain this one too, such as the view and the source of a feature.
    """

    kind: str
    name: str
    key: str
    within: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


class Symptom(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The signals of one statistic in an incident: the newest values, the largest severity."""

    channel: str
    endpoint: str
    statistic: str
    first: int  # start of the first window
    last: int  # end of the newest window
    severity: float
    column: str = ""
    segment: str = ""
    version: str = ""
    windows: int = 1
    value: float | None = None
    expected: float | None = None
    page: bool = False
    detail: str = ""
    caller: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        return self.channel, self.endpoint, self.statistic, self.column, self.segment, self.version


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an incident's history."""

    at: int
    by: str
    text: str


class Taken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action that an incident caused. Instants are by the machine's clock.

    Attributes:
        state: `begun`, `done`, `failed`, `refused` or `dry run`.
        share: Of a shed: the share of requests that is refused.
        until: Of a shed or a restriction: its end.
        ended_at: Of a shed or a restriction: when a person ended it before; 0 if nobody did.
        caller: Of a restriction: id of the caller.
        to: Of a restriction: what the caller gets, see `actions.restrict`.
    """

    action: str
    at: int
    state: str
    detail: str = ""
    share: float = 0.0
    until: int = 0
    ended_at: int = 0
    caller: str = ""
    to: str = ""

    def holds(self, now: int) -> bool:
        """Return whether it sheds or restricts at an instant, if its incident is open."""
        return self.state in (BEGUN, DONE) and now < self.until and not self.ended_at


class Incident(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Signals with one cause, from the first to the last.

    Attributes:
        rank: Expected effect: mean absolute movement of the score that the symptoms make; `None` if it is unknown.
        silenced_until: Nobody is told of changes before this instant.
        closed_through: End of the evidence at which it was closed: later evidence reopens it.
        told: The level at which people were told of it since it opened; empty if nobody was.
        reopened: How often it was reopened.
        more: Number of symptoms beyond `MOST_SYMPTOMS`.
        revision: Number of changes stored; 0 before the first.
    """

    id: str
    cause: Cause
    endpoints: tuple[str, ...]
    channels: tuple[str, ...]
    symptoms: tuple[Symptom, ...]
    severity: float
    page: bool
    opened_at: int
    updated_at: int
    closed_at: int | None = None
    closed_through: int | None = None
    rank: float | None = None
    owner: str = ""
    silenced_until: int | None = None
    verdict: str = ""
    notes: tuple[Note, ...] = ()
    actions: tuple[Taken, ...] = ()
    told: str = ""
    reopened: int = 0
    more: int = 0
    revision: int = 0

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def level(self) -> str:
        return PAGE if self.page else TICKET

    @property
    def started(self) -> int:
        """Start of the first window with a symptom."""
        return min((each.first for each in self.symptoms), default=self.opened_at)

    @property
    def last(self) -> int:
        """End of the newest window with a symptom."""
        return max((each.last for each in self.symptoms), default=self.opened_at)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns with a symptom, the most severe first."""
        worst: dict[str, float] = {}
        for each in self.symptoms:
            if each.column:
                worst[each.column] = max(worst.get(each.column, 0.0), each.severity)
        return tuple(sorted(worst, key=lambda column: (-worst[column], column)))

    def silenced(self, now: int) -> bool:
        return self.silenced_until is not None and now < self.silenced_until

    def noted(self, at: int, by: str, text: str) -> Incident:
        """Return the incident with one more note."""
        notes = (*self.notes, Note(at=at, by=by, text=text))[-MOST_NOTES:]
        return msgspec.structs.replace(self, notes=notes)


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message about one change of an incident to one receiver, stored in the transaction of the change.

    Attributes:
        id: Idempotency key: the same in every try.
        due_at: When it is tried next, by the machine's clock. A try moves it first, so a try that dies is repeated.
        sent_as: Id of the delivery that carried it, several messages may share one; empty before.
    """

    id: str
    target: str
    incident: str
    event: str  # opened, reopened, escalated or closed
    level: str
    made_at: int
    due_at: int
    state: str = WAITING
    attempts: int = 0
    error: str = ""
    sent_at: int | None = None
    sent_as: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the monitor's pass over an endpoint, as it ran last. Instants by the machine's clock."""

    endpoint: str
    part: str
    ran_at: int  # the last time, whether it failed or not
    since: int | None = None  # when it first succeeded after its last failure; `None` if the last run failed
    error: str = ""  # of the last run


def scope(channel: str, statistic: str, column: str) -> str:
    """Return the part of a channel whose windows are judged together: silences each alone, weeks apart from days."""
    if (channel, statistic) == (JOINT, CLASSIFIER):
        return WEEKS
    return channel if channel != SILENCE else " ".join(filter(None, (channel, statistic, column)))


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement of one channel about an endpoint: windows that it could judge, and its signals in them.

    `windows` are (start, end); a window without data is not judged, so that it never counts as a clean one. `scope` is
    the channel; of silence and of the weekly classifier, see `scope`.
    """

    endpoint: str
    scope: str
    windows: tuple[tuple[int, int], ...]
    signals: tuple[Signal, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """How an endpoint's incidents end.

    Attributes:
        clean_windows: Number of judged windows without a signal after which an incident is closed. Of windows of a week
            one is enough for seven.
        cool_down_us: A closed incident whose cause shows again within this time is reopened.
    """

    clean_windows: int = 2
    cool_down_us: int = DAY
