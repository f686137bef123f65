"""A worker that runs pipelines and is killed at a named point: run by test_pipelines_kill.py, not a test itself.

`pipelines_victim.py ROOT METHOD WHEN COUNT` runs jobs of the project in ROOT until nothing is left; before or after the
COUNT-th call of METHOD of its store it kills itself with SIGKILL. With METHOD `-` it is not killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainspring.jobs.model import ENDED
from mainspring.operations.jobs.work_loop import work
from mainspring.project import open_project
from mainspring.project.settings import load_settings


class Deadly:
    """A job store that kills its process at one call."""

    def __init__(self, store: Any, method: str, when: str, count: int) -> None:
        self._store, self._method, self._when, self._left = store, method, when, count
        self._counting = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._store, name)
        if name != self._method:
            return found

        def called(*given: Any, **named: Any) -> Any:
            with self._counting:
                self._left -= 1
                now = self._left == 0
            if now and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = found(*given, **named)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return called


def main() -> None:
    root, method, when, count = sys.argv[1:]
    project = open_project(load_settings(Path(root), environment={}))
    plain = project.jobs
    vars(project)["jobs"] = Deadly(plain, method, when, int(count))
    stop = threading.Event()

    def end() -> None:
        while not stop.wait(0.05):
            if all(job.status in ENDED for job in plain.find()):
                stop.set()

    threading.Thread(target=end, daemon=True).start()
    print("running", flush=True)
    work(project, stop)


if __name__ == "__main__":
    main()
