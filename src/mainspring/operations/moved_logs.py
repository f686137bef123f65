"""Prediction logs of machines without a worker: what they tell, and which of them were lost with their machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator

from mainspring.core.files import write_once
from mainspring.core.ids import new_id
from mainspring.core.time import format_instant
from mainspring.ledger.moved_logs import KEPT_US, MovedLog, lost
from mainspring.operations.findings import Finding
from mainspring.project import Project

FILE = "log.id"  # in the state folder


class Telling:
    """Tells the catalog how much of this machine's log is not in the lake yet."""

    def __init__(self, project: Project) -> None:
        self._project = project
        path = project.settings.state / FILE
        write_once(path, new_id().encode())
        self._id = path.read_text()
        self._moved = 0
        self._since = time.monotonic()

    def moved(self, count: int) -> None:
        """Count predictions that were moved."""
        self._moved += count

    def tell(self) -> None:
        """Tell the state now.

        Raises:
            Unavailable: The catalog does not answer.
        """
        self._project.moved_logs.tell(self._state(ended=False))

    def end(self) -> int:
        """Tell that no more is moved, and return how many predictions are left.

        Raises:
            Unavailable: The catalog does not answer.
        """
        state = self._state(ended=True)
        if state.waiting:
            self._project.moved_logs.tell(state)
        else:
            self._project.moved_logs.forget([self._id])
        return state.waiting

    def _state(self, *, ended: bool) -> MovedLog:
        now, waiting = time.monotonic(), self._project.predictions.waiting()
        rate = self._moved / max(1.0, now - self._since)
        self._moved, self._since = 0, now
        return MovedLog(self._id, platform.node()[:256], self._project.wall.now(), waiting, round(rate, 3), ended)


def lost_logs(project: Project) -> list[MovedLog]:
    """Return the logs that were not moved to their end, oldest first."""
    return lost(project.moved_logs.all(), project.wall.now())


def tidy(project: Project) -> None:
    """Remove lost logs of long ago."""
    before = project.wall.now() - KEPT_US
    project.moved_logs.forget([each.id for each in lost_logs(project) if each.seen_at < before])


def check_moved_logs(project: Project) -> Iterator[Finding]:
    for each in lost_logs(project):
        after = "" if each.ended else f", and what came until it ended, some {each.per_second:.3g} a second before"
        yield Finding(
            check="predictions",
            ok=False,
            detail=f"the log of {each.place} was not moved to its end: at {format_instant(each.seen_at)} it had "
            f"{each.waiting} predictions that the lake has not{after}",
            fix="start a gateway with that state folder again; if it is gone, so are they. This is told for seven days",
        )
