"""Stream endpoints, a process each: `python -m mainspring.processes.streams --project ROOT --endpoint NAME`.

The worker starts a process for each declared stream endpoint, again if it dies, and anew after an `apply` that changed
the project's files. A process that dies loses nothing: what it had not committed is processed again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from mainspring.processes.kinds import Kind, last_lines, log_path, spawn
from mainspring.processes.process import log, run
from mainspring.project import Project
from mainspring.project.settings import child_arguments
from mainspring.serving.streaming.declaring import StreamEndpoint

MODULE = "mainspring.processes.streams"
_FIRST_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 0.5, 30.0, 60.0
_END_S = 10.0


@dataclass(slots=True)
class _Child:
    endpoint: StreamEndpoint
    process: subprocess.Popen[bytes]
    started: float
    wait_s: float = _FIRST_WAIT_S
    restart_at: float | None = None


class StreamProcesses:
    """Keeps a process running for each stream endpoint. Call it from one thread, which outlives the processes."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._children: dict[str, _Child] = {}
        self._pipe: tuple[int, int] | None = None

    def keep(self) -> None:
        """Start the processes that are needed and do not run, and end those that are not needed."""
        wanted = self._project.definitions.stream_endpoints
        for name, child in list(self._children.items()):
            if wanted.get(name) is not child.endpoint:  # it is gone, or its files have changed
                self._end(self._children.pop(name))
        for name, endpoint in wanted.items():
            if name not in self._children:
                self._children[name] = _Child(endpoint, self._start(name), time.monotonic())
            else:
                self._revive(name, self._children[name], time.monotonic())

    def _revive(self, name: str, child: _Child, now: float) -> None:
        if child.process.poll() is None:
            return
        if child.restart_at is None:
            if now - child.started > _STEADY_S:
                child.wait_s = _FIRST_WAIT_S
            said = last_lines(log_path(self._project.settings.state, _log_name(name)), 1)
            log.warning("the process of the stream endpoint %s ended with %s: %s", name, child.process.returncode, said)
            child.restart_at = now + child.wait_s
            child.wait_s = min(_LONGEST_WAIT_S, 2 * child.wait_s)
        elif now >= child.restart_at:
            child.process, child.started, child.restart_at = self._start(name), now, None

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        self._pipe = self._pipe or os.pipe()
        kind = Kind(_log_name(name), MODULE, ("--endpoint", name))
        return spawn(kind, self._project.settings, self._pipe[0], {})

    def _end(self, child: _Child) -> None:
        child.process.terminate()
        try:
            child.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _log_name(endpoint: str) -> str:
    return f"stream-{endpoint}"


def main() -> int:
    """Process one endpoint's topic until SIGTERM. Return the exit code."""
    parser = child_arguments("processes.streams")
    parser.add_argument("--endpoint", required=True, help="name of the stream endpoint")
    chosen = parser.parse_args()

    def body(project: Project) -> None:
        from mainspring.operations.stream_endpoints.running import run as process

        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        project.keep_bundles()
        log.info("stream endpoint %s started", chosen.endpoint)
        process(project, chosen.endpoint, stop)

    return run("streams", body, chosen)


if __name__ == "__main__":
    sys.exit(main())
