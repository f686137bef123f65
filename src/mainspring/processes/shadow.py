"""Scoring of shadows, as a process of the lowest priority: `python -m mainspring.processes.shadow --project ROOT`.

It follows the prediction log, so nothing that it does, or fails to do, can slow a caller. The worker starts it while a
shadow is live, and again if it dies; it ends with the worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from mainspring.core.errors import MainspringError
from mainspring.operations.rollout.carrying_out import shadowed
from mainspring.processes.kinds import Kind, spawn
from mainspring.processes.process import log, run
from mainspring.project import Project

MODULE = "mainspring.processes.shadow"
_EVERY_S = 1.0
_LOWEST = 19


class ShadowProcess:
    """Keeps the process running while a shadow is live. Call it from one thread, which outlives the process."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: tuple[int, int] | None = None

    def keep(self) -> None:
        """Start the process if it is needed and does not run; end it if it is not needed."""
        needed, runs = bool(shadowed(self._project)), self._process is not None and self._process.poll() is None
        if needed and not runs:
            if self._process is not None:
                log.warning("the shadow process ended with %s: it is started again", self._process.returncode)
            self._pipe = self._pipe or os.pipe()
            self._process = spawn(Kind("shadow", MODULE), self._project.settings, self._pipe[0], {})
        elif not needed and self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


def _body(project: Project) -> None:
    from mainspring.operations.rollout.shadowing import Shadows

    os.nice(_LOWEST)
    project.follow_definitions()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    shadows = Shadows(project)
    while not stop.wait(_EVERY_S):
        try:
            shadows.turn()
        except MainspringError as error:
            log.warning("%s", error)


if __name__ == "__main__":
    sys.exit(run("shadow", _body))
