"""Looks of a monitor that are killed: run by test_monitor_kill.py, not a test itself.

`monitor_victim.py FOLDER` looks, lets predictions and labels come late, and looks again, in copies of one folder: each
time in a child that kills itself (SIGKILL) at the next statement of the catalog or read of the predictions, then in one
that nobody kills; and says as one line of JSON each time what windows there are then.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from kit.worlds import arrivals, bundle, label, normal_reference, prediction, sketching
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.locks import FileLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.window_updates import WindowUpdates

WINDOW = 1_000_000
ROWS = 120  # predictions in three windows
REFERENCE = normal_reference(["View.a"], np.random.default_rng(0), 1_000)


def log(folder: Path, numbers: range) -> None:
    segments = SegmentLog(folder / "segments")
    segments.append(
        [
            prediction(each, each * 3 * WINDOW // ROWS, each / ROWS, features={"View.a": float(each % 7)})
            for each in numbers
        ]
    )
    segments.close()
    lake = DeltaLake(folder / "lake")
    observer = sketching(LakeSketches(lake), lambda _: bundle(REFERENCE), slot_us=WINDOW)
    LakePredictions(folder / "segments", lake, FileLocks(folder / "locks"), observer=observer).compact()


def look(folder: Path, now: int, landed: int, step: Callable[..., None] = lambda *_: None) -> None:
    """Look once, with so many label rows; `step` is called before each statement, commit and read."""

    class Predictions(LakePredictions):
        def arrivals(self, *args: Any, **settings: Any) -> Any:
            step()
            return super().arrivals(*args, **settings)

    engine = open_engine(f"sqlite:///{folder / 'catalog.db'}")
    metadata.create_all(engine)
    sa.event.listen(engine, "before_cursor_execute", step)
    sa.event.listen(engine, "commit", step)
    rows = [label(f"f{each}", each % 3 == 0, WINDOW * 3) for each in range(landed)]
    found = arrivals(rows)
    labels = dataclasses.replace(found, scan=dataclasses.replace(found.scan, version=landed))
    lake = DeltaLake(folder / "lake")
    monitor = WindowUpdates(
        Predictions(folder / "segments", lake, FileLocks(folder / "locks")),
        CatalogMonitors(engine),
        LakeSketches(lake),
        labels=lambda _: labels,
        load=lambda _: bundle(REFERENCE),
        clock=ManualClock(now),
        locks=FileLocks(folder / "locks"),
        window_us=WINDOW,
    )
    monitor.run("late")
    engine.dispose()


def apart(do: Callable[[], None]) -> int:
    """Do it in a child; return what signal killed it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            do()
        except BaseException as error:
            print(json.dumps({"failed": repr(error)}), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def dying(steps: int) -> Callable[..., None]:
    """Return what kills this process when it is called once more than `steps` times."""
    left = iter(range(steps))

    def step(*_: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def say(folder: Path, killed: bool) -> None:
    windows = CatalogMonitors(open_engine(f"sqlite:///{folder / 'catalog.db'}")).windows("late")
    documents = [msgspec.to_builtins(msgspec.structs.replace(window, computed_at=0)) for window in windows]
    print(json.dumps({"killed": killed, "windows": documents}), flush=True)


def main(root: Path) -> None:
    before = root / "before"
    apart(lambda: log(before, range(0, ROWS, 2)))
    apart(lambda: look(before, 4 * WINDOW, 10))  # two windows are settled then, and one is open
    apart(lambda: log(before, range(1, ROWS, 2)))
    killed, at = True, -1
    while killed:
        at += 1
        folder = root / f"step-{at}"
        shutil.copytree(before, folder)
        step = dying(at)
        killed = apart(lambda: look(folder, 4 * WINDOW + 1, 60, step)) == signal.SIGKILL  # noqa: B023
        apart(lambda: look(folder, 4 * WINDOW + 2, 60))  # noqa: B023
        apart(lambda: say(folder, killed))  # noqa: B023


if __name__ == "__main__":
    main(Path(sys.argv[1]))
