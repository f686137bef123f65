"""Tags that relate runs, error texts of failed runs, and closing of runs whose process died."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import Clock
from mainspring.registry.model import RunRecord
from mainspring.registry.ports import Tracking
from mainspring.registry.processes import PID, is_dead, process_tags

__all__ = [
    "DIED", "ERROR", "LEFT", "NAME", "NOTE", "PARENT", "PREEMPTED", "PROCESSES", "PURPOSE", "REPLACED", "UNWRITTEN",
    "error_text", "process_tags", "sweep",
]  # fmt: skip

PARENT = "mainspring.parent"  # id of the parent run
NAME = "mainspring.name"  # name of a run among its siblings
NOTE = "mainspring.note"  # what a person wrote about a run
PURPOSE = "mainspring.purpose"  # of a run that is no training: what it is for
PROCESSES = "processes"  # number of processes that trained, if several did
LEFT = "processes_left"  # number of those with which it ended, if fewer
REPLACED = "replaced"  # number of those that were lost
PREEMPTED = "preempted"  # of a training whose machine was taken back: after which step
UNWRITTEN = "checkpoint_not_written"  # why the last checkpoint of those that were not written was not
DIED = "mainspring.died"  # of a run whose process ended without closing it
ERROR = "mainspring.error"  # error of a failed run: class, message and place
_LONGEST_ERROR = 4000  # characters
_PACKAGE = Path(__file__).parents[1]
_DEEPEST = 16  # nesting levels of runs


def error_text(error: BaseException, *, withheld: str = "") -> str:
    """Return the error text that a failed run keeps: class, message, and the innermost line outside this package.

    Args:
        withheld: Reason to omit the message, which may hold data such as the row that a function failed on.
    """
    source = error if error.__cause__ is None else error.__cause__
    frames = traceback.extract_tb(source.__traceback__)
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)] or frames
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    message = f"[message withheld: {withheld}]" if withheld else str(error).strip()[:_LONGEST_ERROR]
    return f"{type(source).__name__}: {message}" + ("" if where in message else f" ({where})")


def sweep(tracking: Tracking, clock: Clock) -> list[str]:
    """Mark each RUNNING run whose process has ended as KILLED, and return their ids.

    A run of another host is left alone. A run without process tags, such as one from MLflow's own client, is judged by
    its parent's process.
    """
    killed = []
    for run in tracking.search(status="RUNNING", limit=1000):
        if is_dead(_process_of(tracking, run)):
            tracking.log(run.id, tags={DIED: "true"})
            tracking.finish(run.id, "KILLED", clock.now())
            killed.append(run.id)
    return killed


def _process_of(tracking: Tracking, run: RunRecord) -> Mapping[str, str]:
    for _ in range(_DEEPEST):
        if PID in run.tags or PARENT not in run.tags:
            break
        try:
            run = tracking.get(run.tags[PARENT])
        except (Invalid, NotFound):  # deleted or invalid, by MLflow's own tools
            break
    return run.tags
