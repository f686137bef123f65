"""Effects outside the catalog in the audit log: an event before each, and the one that completes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mainspring.core.time import DAY

BEGUN = ".begun"  # ends the action of an event before an effect
_COMPLETES = re.compile(r"\(since event (\d{1,18})\)$")


def completing(detail: str, begun: int) -> str:
    """Return the detail of the event that completes the one of this number."""
    return f"{detail} (since event {begun})".lstrip()


@dataclass(frozen=True, slots=True, order=True)
class Intent:
    """An event before an effect, of an action on a resource, that no event has completed."""

    number: int
    at: int
    actor: str
    action: str
    resource: str

    def __str__(self) -> str:
        return f"{self.action} of {self.resource} by {self.actor} has no completion since event {self.number}."


class Intents:
    """Effects that have begun, by the events of a log in their order.

    An event names the begin that it completes. What began more than a day before that, of the same action on the same
    resource, was done again; what began since may be at work, or was killed. An event of older releases names none: it
    completes the newest begin of its actor, and what anybody began before that.
    """

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], list[Intent]] = {}

    def note(self, number: int, at: int, actor: str, action: str, resource: str, detail: str) -> None:
        """Take in the next event."""
        if action.endswith(BEGUN):
            of = action.removesuffix(BEGUN)
            self._begun.setdefault((of, resource), []).append(Intent(number, at, actor, of, resource))
        elif several := self._begun.get((action, resource)):
            if named := _COMPLETES.search(detail):
                since = next((each.at for each in several if each.number == int(named[1])), None)
                if since is not None:
                    several[:] = [each for each in several if since - DAY <= each.at and each.number != int(named[1])]
            else:
                own = max((place for place, each in enumerate(several) if each.actor == actor), default=-1)
                del several[: own + 1]

    @property
    def open(self) -> tuple[Intent, ...]:
        """The intents without a completion, ordered."""
        return tuple(sorted(each for several in self._begun.values() for each in several))
