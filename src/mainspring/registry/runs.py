"""What a run is part of; and runs whose process died: nobody closed them, so the next command does."""

from __future__ import annotations

from mainspring.core.time import Clock
from mainspring.registry.ports import Tracking
from mainspring.registry.processes import is_dead, process_tags

__all__ = ["NAME", "PARENT", "process_tags", "sweep"]

PARENT = "mainspring.parent"  # the id of the run that this one is a part of
NAME = "mainspring.name"  # what a run is called among its siblings


def sweep(tracking: Tracking, clock: Clock) -> list[str]:
    """Mark every RUNNING run as KILLED whose process has ended, and return their ids.

    A run of another host, or one that does not say which process it belongs to, is left alone.
    """
    killed = []
    for run in tracking.search(status="RUNNING", limit=1000):
        if is_dead(run.tags):
            tracking.finish(run.id, "KILLED", clock.now())
            killed.append(run.id)
    return killed
