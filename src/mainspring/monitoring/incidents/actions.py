"""Declaration of actions, `ms.actions`, and the decision which of them an incident causes now. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.core.definition_registry import expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import DAY, HOUR, MINUTE, WEEK, format_duration, parse_duration
from mainspring.monitoring.incidents.model import BEGUN, DONE, FAILED, LEVELS, PAGE, TICKET, Incident, Taken
from mainspring.monitoring.signals import CALLERS, CHANNELS, CONTRACT, HARM, JOINT, SERVICE, SURPRISE

__all__ = ["restrict", "roll_back", "shed", "start"]

ROLL_BACK, START, SHED, RESTRICT = "roll back", "start", "shed", "restrict"
LABELS, REFUSE = "labels", "refuse"
_SHORTEST, _LONGEST = MINUTE, DAY  # of a shed
_LONGEST_RESTRICTION = 366 * DAY


@dataclass(frozen=True, slots=True)
class Action:
    """An action that incidents of an endpoint cause, once each.

    Attributes:
        kind: `roll back`, `start`, `shed` or `restrict`.
        name: The pipeline to start; empty for other kinds.
        channels: Incidents of one of these channels cause it.
        level: The least urgent incidents that cause it.
        most_a_week: Budget: the action is refused once it was taken so often within a week.
        cool_down: Time after it was taken in which it is refused; empty for none.
        newest: Of a rollback: it is refused if the champion has been champion for longer when the incident began, as
            then its version is hardly the cause.
        dry_run: Whether it is only noted.
        share: Of a shed: the share of requests that is refused.
        lasts: Of a shed or a restriction: the longest time that it stays on.
        to: Of a restriction: what the caller gets.
    """

    kind: str
    name: str
    channels: tuple[str, ...]
    level: str
    most_a_week: int
    cool_down: str
    newest: str
    dry_run: bool
    share: float = 0.0
    lasts: str = ""
    to: str = ""

    def title(self, endpoint: str) -> str:
        """Return the words under which it is noted: one pipeline is started once, however many endpoints are ill."""
        return f"{self.kind} {self.name or endpoint}"


def roll_back(
    *,
    channels: Sequence[str] = (CONTRACT, HARM),
    level: str = PAGE,
    most_a_week: int = 1,
    cool_down: str = "1d",
    newest: str = "7d",
    dry_run: bool = False,
) -> Action:
    """End the live rollout of the endpoint's model, and make the previous version champion.

    Args:
        newest: How long the champion may have been champion when the incident began; of an older one, the version is
            hardly the cause.
    """
    return _action(Action(ROLL_BACK, "", tuple(channels), level, most_a_week, cool_down, newest, dry_run), channels)


def start(
    pipeline: str,
    *,
    channels: Sequence[str] = (SURPRISE, JOINT, HARM),
    level: str = TICKET,
    most_a_week: int = 1,
    cool_down: str = "1d",
    dry_run: bool = False,
) -> Action:
    """Start a pipeline, such as one that trains the model again."""
    pipeline = getattr(pipeline, "name", pipeline)
    check_id(pipeline, "pipeline")
    return _action(Action(START, pipeline, tuple(channels), level, most_a_week, cool_down, "", dry_run), channels)


def shed(
    share: float = 0.2,
    *,
    lasts: str = "15m",
    channels: Sequence[str] = (SERVICE,),
    level: str = PAGE,
    most_a_week: int = 5,
    cool_down: str = "1h",
    dry_run: bool = False,
) -> Action:
    """Refuse a share of the endpoint's requests, those of the lowest priority first, until the incident is closed.

    Args:
        share: Of all requests, above 0 and at most 1.
        lasts: The longest time that it stays on, a duration from a minute to a day.

    Raises:
        Invalid: An argument is outside its range.
    """
    expect(share, (int, float), "The share of the action 'shed'", fix="write a share, such as 0.2.")
    if not 0.0 < share <= 1.0:
        raise Invalid(f"An action sheds the share {share}.", fix="write a share above 0 and at most 1.")
    if not _SHORTEST <= parse_duration(lasts) <= _LONGEST:
        raise Invalid(
            f"A shed lasts {lasts!r}.",
            fix=f"write a duration from {format_duration(_SHORTEST)} to {format_duration(_LONGEST)}.",
        )
    made = Action(SHED, "", tuple(channels), level, most_a_week, cool_down, "", dry_run, float(share), lasts)
    return _action(made, channels)


def restrict(
    to: str = LABELS, *, lasts: str = "30d", level: str = TICKET, most_a_week: int = 20, dry_run: bool = False
) -> Action:
    """Restrict a caller whose rows are unlike all other callers', until the incident is closed.

    Args:
        to: "labels", answers with the class alone; or "refuse", none.
        lasts: The longest time that it stays on, a duration from an hour to 366 days.

    Raises:
        Invalid: An argument is outside its range.
    """
    if to not in (LABELS, REFUSE):
        raise Invalid(f"An action restricts a caller to {to!r}.", fix=f'write "{LABELS}" or "{REFUSE}".')
    if not HOUR <= parse_duration(lasts) <= _LONGEST_RESTRICTION:
        raise Invalid(f"A restriction lasts {lasts!r}.", fix="write a duration from 1h to 366d.")
    made = Action(RESTRICT, "", (CALLERS,), level, most_a_week, "", "", dry_run, lasts=lasts, to=to)
    return _action(made, made.channels)


def _action(made: Action, channels: Sequence[str]) -> Action:
    owner = f"The {{}} of the action {made.kind!r}"
    expect_each(channels, str, owner.format("channels"), fix='write channels=["contract"].')
    if unknown := sorted({*made.channels} - {*CHANNELS}):
        raise Invalid(f"There is no channel {unknown[0]!r}.", fix=f"use some of {', '.join(CHANNELS)}.")
    if made.level not in LEVELS:
        raise Invalid(f"There is no level {made.level!r}.", fix=f"use one of {', '.join(LEVELS)}.")
    expect(made.most_a_week, int, owner.format("most_a_week"), fix="write a whole number.")
    if made.most_a_week < 1:
        raise Invalid(f"An action has most_a_week={made.most_a_week}.", fix="write at least 1.")
    if made.cool_down:
        parse_duration(made.cool_down)
    if made.newest:
        parse_duration(made.newest)
    return made


def caused(incident: Incident, actions: Sequence[Action], endpoint: str, domain_now: int) -> list[Action]:
    """Return the actions that an incident causes at an endpoint and that it has not caused yet; none while silenced."""
    if not incident.is_open or incident.silenced(domain_now):
        return []
    taken = {each.action for each in incident.actions}
    return [
        each
        for each in actions
        if {*each.channels} & {*incident.channels}
        and (incident.page or each.level == TICKET)
        and each.title(endpoint) not in taken
    ]


def refusal(action: Action, title: str, past: Sequence[Taken], now: int) -> str:
    """Return why an action is not taken now; empty if it may be.

    Args:
        past: Actions of all incidents of the endpoint.
        now: By the machine's clock.
    """
    mine = [each.at for each in past if each.action == title and each.state in (BEGUN, DONE, FAILED)]
    if sum(at > now - WEEK for at in mine) >= action.most_a_week:
        return f"its budget of {action.most_a_week} a week is spent"
    if action.cool_down and any(at > now - parse_duration(action.cool_down) for at in mine):
        return f"it was taken within {action.cool_down}"
    return ""
