"""What a run is part of; and runs whose process died: nobody closed them, so the next command does."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import Clock
from mainspring.registry.model import RunRecord
from mainspring.registry.ports import Tracking
from mainspring.registry.processes import PID, is_dead, process_tags

__all__ = ["ERROR", "NAME", "PARENT", "error_text", "process_tags", "sweep"]

PARENT = "mainspring.parent"  # the id of the run that this one is a part of
NAME = "mainspring.name"  # what a run is called among its siblings
ERROR = "mainspring.error"  # why a run failed: the error's class, its message, and where
_LONGEST_ERROR = 4000  # characters
_PACKAGE = Path(__file__).parents[1]
_DEEPEST = 16  # runs in runs in runs


def error_text(error: BaseException, *, withheld: str = "") -> str:
    """Return what a failed run keeps of its error: class, message, and the innermost line outside this package.

    Args:
        withheld: Why the message is left out: it may hold values, as of the row that a function failed on.
    """
    source = error if error.__cause__ is None else error.__cause__
    frames = traceback.extract_tb(source.__traceback__)
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)] or frames
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    message = f"[message withheld: {withheld}]" if withheld else str(error).strip()[:_LONGEST_ERROR]
    return f"{type(source).__name__}: {message}" + ("" if where in message else f" ({where})")


def sweep(tracking: Tracking, clock: Clock) -> list[str]:
    """Mark every RUNNING run as KILLED whose process has ended, and return their ids.

    A run of another host is left alone. One that does not say which process it belongs to, as MLflow's own client
    begins them, has that of the run that it is part of.
    """
    killed = []
    for run in tracking.search(status="RUNNING", limit=1000):
        if is_dead(_process_of(tracking, run)):
            tracking.finish(run.id, "KILLED", clock.now())
            killed.append(run.id)
    return killed


def _process_of(tracking: Tracking, run: RunRecord) -> Mapping[str, str]:
    for _ in range(_DEEPEST):
        if PID in run.tags or PARENT not in run.tags:
            break
        try:
            run = tracking.get(run.tags[PARENT])
        except (Invalid, NotFound):  # MLflow's own tools can delete it, or name what they like
            break
    return run.tags
