"""Sampling of this machine's gateway processes and of the features' freshness, into a history by minute and hour."""

from __future__ import annotations

import hashlib
import logging
import socket
from bisect import bisect_left
from dataclasses import dataclass

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR, SECOND
from mainspring.features.layout import slot
from mainspring.monitoring.service.objectives import LAG_BOUNDS_US, LONGEST
from mainspring.monitoring.service.readings import EVERY_US, read, sampled
from mainspring.monitoring.service.samples import LAG, VIEW, Sample
from mainspring.project import Project
from mainspring.serving.plane.slots import folder, numbers

KEPT_US = LONGEST + DAY  # samples older than this are deleted
MINUTES_US = 2 * DAY  # samples older than this are merged by the hour

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Sampler:
    """Samples a project's service health. Each look continues from the stored state of the last one."""

    project: Project
    compacted: int = 0  # instant of the last compaction

    def look(self) -> None:
        """Store what was counted since the last look, and once an hour compact the history."""
        project, now = self.project, self.project.wall.now()
        with project.own_locks.hold("service-samples"):
            here, store = place(project), project.service
            before = store.state(here)
            texts = numbers(folder(project.settings.state))
            readings = {slot: read(text.decode(errors="replace")) for slot, text in texts.items()}
            samples, state = sampled(before, readings, now)
            store.save(here, [*samples, *self._of_views(now)], state)
        # Not right after the clock jumped: it may be wrong, and what is deleted is gone.
        if before is not None and abs(now - before.at) < HOUR and not 0 <= now - self.compacted < HOUR:
            store.compact(merge_before=now - MINUTES_US, delete_before=now - KEPT_US)
            self.compacted = now

    def _of_views(self, now: int) -> list[Sample]:
        found = []
        for name, lag in lags(self.project).items():
            counts = {f"{LAG} {_bound(lag)}": 1.0}
            sample = Sample(subject=f"{VIEW}{name}", start=now - EVERY_US, end=now, observed_us=EVERY_US, counts=counts)
            found.append(sample)
        return found


def lags(project: Project) -> dict[str, int | None]:
    """Return feature view -> by how much its materialisation lags, microseconds; `None` if it was never materialised.

    A view is left out while the online store does not answer for it.
    """
    now, found = project.clock.now(), {}
    for view in project.definitions.views.values():
        try:
            position = project.online.position(slot(view))
        except MainspringError as error:
            _log.debug("%s: %s", view.name, error)
            continue
        found[view.name] = None if position is None else max(0, now - position)
    return found


def place(project: Project) -> str:
    """Return the identifier of what this machine's worker samples."""
    return hashlib.sha256(f"{socket.gethostname()}:{project.settings.state.resolve()}".encode()).hexdigest()[:16]


def _bound(lag: int | None) -> str:
    index = len(LAG_BOUNDS_US) if lag is None else bisect_left(LAG_BOUNDS_US, lag)
    return "inf" if index == len(LAG_BOUNDS_US) else f"{LAG_BOUNDS_US[index] // SECOND}"
