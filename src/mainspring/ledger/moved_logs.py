"""States of prediction logs, as their movers tell them: how much of the log of a machine is not in the lake yet.

A log ends with its pod or its machine. Then the state that it told last is all that says what was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mainspring.core.time import DAY, MINUTE

EVERY_S = 10.0  # between two states that a mover tells
GONE_US = 2 * MINUTE  # after which a mover that tells nothing is taken for gone
KEPT_US = 7 * DAY  # for which a lost log is told of


@dataclass(frozen=True, slots=True)
class MovedLog:
    """State of one log.

    Attributes:
        id: Of the log's folder, which outlives restarts of its processes.
        place: Name of the machine or the pod.
        seen_at: When it was told, UTC epoch microseconds.
        waiting: Predictions that were not in the lake then.
        per_second: Predictions that were logged each second, of late.
        ended: Whether the mover has ended, with predictions left.
    """

    id: str
    place: str
    seen_at: int
    waiting: int
    per_second: float
    ended: bool = False


class MovedLogs(Protocol):
    """States of all logs of a catalog that are moved, or were not moved to their end."""

    def tell(self, log: MovedLog) -> None:
        """Keep the state of a log in place of an earlier one."""
        ...

    def forget(self, ids: Sequence[str]) -> None:
        """Remove the states of logs; unknown ones are none."""
        ...

    def all(self) -> list[MovedLog]:
        """Return all states, by the time when they were told."""
        ...


def lost(logs: Iterable[MovedLog], now: int) -> list[MovedLog]:
    """Return the logs that were not moved to their end: their mover said so, or says nothing any more."""
    return [each for each in logs if each.ended or now - each.seen_at > GONE_US]
