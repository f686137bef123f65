"""Mover of the prediction log of a machine that serves and has no worker.

`python -m mainspring.processes.prediction_log --project ROOT [--profile P]` moves into the lake what the gateway's
processes on this machine wrote, every two seconds and a last time at the end. The supervisor ends it after them. It
tells the catalog how much is left to move, so that a log that goes with its machine is noticed.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

from mainspring.core.errors import MainspringError
from mainspring.ledger.moved_logs import EVERY_S
from mainspring.operations.answer_feedback import ingest_ratings
from mainspring.operations.moved_logs import Telling
from mainspring.processes.process import log, run
from mainspring.processes.worker import Duty, run_lanes
from mainspring.project import Project

_EVERY_S = 2.0
_LAST_TRIES = 5


def _body(project: Project) -> None:
    project.follow_definitions()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    telling = Telling(project)

    def move() -> None:
        telling.moved(project.predictions.compact())
        ingest_ratings(project)

    log.info("moving the prediction log")
    duties = [
        Duty("moving the prediction log", move, _EVERY_S),
        Duty("telling the state of the prediction log", telling.tell, EVERY_S, rest=10.0),
    ]
    with run_lanes(duties, stop):
        while not stop.wait(0.25):  # an unlimited wait would not notice a signal
            pass
    _until(move, "the last predictions are not moved")
    left = _until(telling.end, "it cannot be told which predictions are left")
    if left:
        log.error("%d predictions are left in the log: they are lost if this state folder is", left)


def _until(do: Callable[[], int | None], trouble: str) -> int | None:
    """Try to do something a few times, and return its result."""
    for tried in range(1, _LAST_TRIES + 1):
        try:
            return do()
        except Exception as error:  # of a lake that is away, too: what is left has to be told in any case
            ours = isinstance(error, MainspringError)
            log.warning("%s (%d of %d): %s", trouble, tried, _LAST_TRIES, error, exc_info=not ours)
            time.sleep(_EVERY_S)
    return None


if __name__ == "__main__":
    sys.exit(run("log", _body))
