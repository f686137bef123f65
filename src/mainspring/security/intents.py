"""Effects outside the catalog in the audit log: an event before each, and the one that completes it."""

from __future__ import annotations

from dataclasses import dataclass

BEGUN = ".begun"  # ends the action of an event before an effect


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

    The event of an action on a resource completes the newest begin of its actor, and what anybody began before that: it
    was done again. What others began after it stays open.
    """

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], list[Intent]] = {}

    def note(self, number: int, at: int, actor: str, action: str, resource: str) -> None:
        """Take in the next event."""
        if action.endswith(BEGUN):
            of = action.removesuffix(BEGUN)
            self._begun.setdefault((of, resource), []).append(Intent(number, at, actor, of, resource))
        elif several := self._begun.get((action, resource)):
            own = max((place for place, each in enumerate(several) if each.actor == actor), default=-1)
            del several[: own + 1]

    @property
    def open(self) -> tuple[Intent, ...]:
        """The intents without a completion, ordered."""
        return tuple(sorted(each for several in self._begun.values() for each in several))
