"""Stream endpoints, a process each: `python -m mainspring.processes.streams --project ROOT --endpoint NAME`.

The worker, or `mainspring streams run`, starts a process for each stream endpoint, again if it dies, and anew after an
`apply` that changed the project's files. A process that dies loses nothing: what it had not committed is processed
again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mainspring.core.errors import MainspringError
from mainspring.operations.stream_endpoints.running import run as run_endpoint
from mainspring.operations.streams.reports import declared
from mainspring.operations.streams.running import StreamThreads, land_to_the_end
from mainspring.processes.kinds import Kind, last_lines, log_path, spawn
from mainspring.processes.process import log, run
from mainspring.project import Project
from mainspring.project.settings import child_arguments
from mainspring.serving.streaming.declaring import StreamEndpoint

MODULE = "mainspring.processes.streams"
_FIRST_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 0.5, 30.0, 60.0
_END_S = 4.0  # the worker's lanes have five
_IDLE_S = 1.0


@dataclass(slots=True)
class _Child:
    endpoint: StreamEndpoint
    process: subprocess.Popen[bytes]
    started: float
    wait_s: float = _FIRST_WAIT_S
    restart_at: float | None = None


class StreamProcesses:
    """Keeps a process running for each stream endpoint. Call it from one thread, which outlives the processes.

    Args:
        names: Names of the endpoints; by default all that are declared.
    """

    def __init__(self, project: Project, names: Collection[str] = ()) -> None:
        self._project = project
        self._names = names
        self._children: dict[str, _Child] = {}
        self._pipe: tuple[int, int] | None = None

    def keep(self) -> None:
        """Start the processes that are needed and do not run, and end those that are not needed."""
        endpoints = self._project.definitions.stream_endpoints
        wanted = {name: each for name, each in endpoints.items() if not self._names or name in self._names}
        for name, child in list(self._children.items()):
            if wanted.get(name) is not child.endpoint:  # it is gone, or its files have changed
                self._end([self._children.pop(name)])
        for name, endpoint in wanted.items():
            if name not in self._children:
                self._children[name] = _Child(endpoint, self._start(name), time.monotonic())
            else:
                self._revive(name, self._children[name], time.monotonic())

    def end(self) -> None:
        """End all processes. Each has some seconds for what it is at; the next one does what is left."""
        self._end(list(self._children.values()))
        self._children.clear()

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

    def _end(self, children: Sequence[_Child]) -> None:
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + _END_S
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _log_name(endpoint: str) -> str:
    return f"stream-{endpoint}"


def run_streams(project: Project, names: Sequence[str], stop: threading.Event) -> dict[str, int]:
    """Process streams until `stop` is set: sources in threads, endpoints in a process each; one alone in this one.

    One that fails is tried again, and stops no other.

    Returns:
        Name -> number of messages, of an endpoint that ran alone.

    Raises:
        NotFound: There is no such stream.
    """
    sources, endpoints = _parted(project, names)
    if len(endpoints) == 1 and not sources:
        return {endpoints[0]: run_endpoint(project, endpoints[0], stop)}
    kept: list[StreamThreads | StreamProcesses] = []
    if sources:
        kept.append(StreamThreads(project, sources))
    if endpoints:
        kept.append(StreamProcesses(project, endpoints))
    try:
        while True:
            for each in kept:
                each.keep()
            if stop.wait(1.0):
                return {}
    finally:
        for each in kept:
            each.end()


def run_streams_to_the_end(project: Project, names: Sequence[str], stop: threading.Event) -> dict[str, int]:
    """Process streams one after another until each has no message left, or `stop` is set; return name -> their number.

    Raises:
        NotFound: There is no such stream.
        MainspringError: The first failure of a stream, once the others are processed.
    """
    sources, _ = _parted(project, names)
    counts, failures = dict[str, int](), list[MainspringError]()
    for name in names:
        try:
            if name in sources:
                counts |= land_to_the_end(project, [name], stop)
            else:
                counts[name] = run_endpoint(project, name, stop, idle_s=_IDLE_S)
        except MainspringError as error:
            log.warning("%s: %s", name, error)
            failures.append(error)
    if failures:
        raise failures[0]
    return counts


def _parted(project: Project, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of streams of sources, and those of stream endpoints."""
    endpoints = [name for name in names if isinstance(declared(project, name), StreamEndpoint)]
    return [name for name in names if name not in endpoints], endpoints


def main() -> int:
    """Process one endpoint's topic until SIGTERM. Return the exit code."""
    parser = child_arguments("processes.streams")
    parser.add_argument("--endpoint", required=True, help="name of the stream endpoint")
    chosen = parser.parse_args()

    def body(project: Project) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        project.keep_bundles()
        log.info("stream endpoint %s started", chosen.endpoint)
        run_endpoint(project, chosen.endpoint, stop)

    return run("streams", body, chosen)


if __name__ == "__main__":
    sys.exit(main())
