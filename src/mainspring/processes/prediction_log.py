"""Mover of the prediction log of a machine that serves and has no worker.

`python -m mainspring.processes.prediction_log --project ROOT [--profile P]` moves into the lake what the gateway's
processes on this machine wrote, every two seconds and a last time at the end. The supervisor ends it after them.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

from mainspring.core.errors import MainspringError
from mainspring.operations.answer_feedback import ingest_ratings
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

    def move() -> None:
        project.predictions.compact()
        ingest_ratings(project)

    log.info("moving the prediction log")
    with run_lanes([Duty("moving the prediction log", move, _EVERY_S)], stop):
        while not stop.wait(0.25):  # an unlimited wait would not notice a signal
            pass
    for tried in range(1, _LAST_TRIES + 1):
        try:
            move()
        except MainspringError as error:
            log.warning("the last predictions are not moved (%d of %d): %s", tried, _LAST_TRIES, error)
            time.sleep(_EVERY_S)
        else:
            return


if __name__ == "__main__":
    sys.exit(run("log", _body))
