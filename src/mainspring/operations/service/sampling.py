"""Sampling of gateway processes, of the features' freshness and of streams, into a history by minute and hour."""

from __future__ import annotations

import hashlib
import logging
import socket
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

from mainspring.core.errors import MainspringError
from mainspring.core.process_usage import of_descendants
from mainspring.core.time import DAY, HOUR, SECOND
from mainspring.features.layout import slot
from mainspring.monitoring.service.objectives import LAG_BOUNDS_US, LONGEST
from mainspring.monitoring.service.readings import EVERY_US, read, sampled
from mainspring.monitoring.service.samples import CHILDREN_BYTES, CHILDREN_CPU, LAG, PROCESS, VIEW, Sample
from mainspring.operations.streams.watching import looks
from mainspring.project import Project
from mainspring.project.running import read_running
from mainspring.serving.plane.slots import folder, numbers

KEPT_US = LONGEST + DAY  # samples older than this are deleted
MINUTES_US = 2 * DAY  # samples older than this are merged by the hour

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Sampler:
    """Samples a project's service health. Each look continues from the stored state of the last one."""

    project: Project
    compacted: int = 0  # instant of the last compaction
    usage: dict[tuple[str, int], float] = field(default_factory=dict)  # (process, pid) -> its children's time, s

    def look(self) -> None:
        """Store what was counted since the last look, and once an hour compact the history."""
        project, now = self.project, self.project.wall.now()
        with project.own_locks.hold("service-samples"):
            here, store = place(project), project.service
            before = store.state(here)
            texts = numbers(folder(project.settings.state))
            readings = {slot: read(text.decode(errors="replace")) for slot, text in texts.items()}
            samples, state = sampled(before, readings, now)
            store.save(here, [*samples, *self._of_views(now), *self._of_children(now), *looks(project, now)], state)
        # Not right after the clock jumped: it may be wrong, and what is deleted is gone.
        if before is not None and abs(now - before.at) < HOUR and not 0 <= now - self.compacted < HOUR:
            store.compact(merge_before=now - MINUTES_US, delete_before=now - KEPT_US)
            self.compacted = now

    def _of_children(self, now: int) -> list[Sample]:
        """Return the resources of the processes that a process started: models run apart, jobs.

        What one of these used before this worker saw it first is left out.
        """
        running = read_running(self.project.settings.state)
        seen: dict[tuple[str, int], float] = {}
        grown: dict[str, float] = defaultdict(float)
        resident: dict[str, float] = defaultdict(float)
        for name, pid in {} if running is None else running.children.items():
            usage = of_descendants(pid)
            if usage is None:
                continue
            subject = f"{PROCESS}{name.partition('-')[0]}"
            seen[name, pid] = usage.cpu_s
            grown[subject] += max(0.0, usage.cpu_s - self.usage.get((name, pid), usage.cpu_s))
            resident[subject] += usage.resident_bytes
        self.usage = seen
        return [
            Sample(
                subject=subject,
                start=now - EVERY_US,
                end=now,
                observed_us=0,
                counts={CHILDREN_CPU: grown[subject]},
                peaks={CHILDREN_BYTES: resident[subject]},
            )
            for subject in grown
            if grown[subject] or resident[subject]
        ]

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
