"""One supervisor, its children, and a clean end.

An exclusive lock makes sure that one project is up once; the ports are probed before, because two servers with
SO_REUSEPORT would share one silently. What dies is started again, later each time. Children hold the read end of a
pipe: when the supervisor is gone, however it went, so are they (app.child).
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mainspring.app.project import Project
from mainspring.core.errors import Conflict, Unavailable
from mainspring.core.files import write_atomic
from mainspring.core.listening import check_free
from mainspring.core.settings import Address

MODULES = {
    "gateway": "mainspring.app.gateway",
    "control": "mainspring.console",
    "worker": "mainspring.app.worker",
}
LOCK = "up"
_RUN_FILE = "run.json"
_FIRST_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 0.1, 10.0, 30.0
_LOG_BYTES = 10 << 20


class Running(msgspec.Struct, frozen=True):
    """What is up, as written to the state folder."""

    pid: int
    profile: str
    gateway: str
    control: str
    children: dict[str, int]


@dataclass(slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    started: float
    wait_s: float = _FIRST_WAIT_S
    restart_at: float | None = None


@dataclass
class Supervisor:
    """Starts the processes of a project and keeps them running until `stop`.

    Args:
        project: Opened by the supervising process.
        environment: What children get beside this process's own environment.
    """

    project: Project
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._reviving = threading.Lock()
        self._stopping = False
        self._all_ended = threading.Event()
        self._watcher: threading.Thread | None = None
        self._pipe = (-1, -1)

    @contextmanager
    def running(self, *, ready_within_s: float = 30.0) -> Iterator[Supervisor]:
        """Keep the project up inside the block; everything has ended when it is left.

        Raises:
            Conflict: The project is up already, or a port is taken.
            Unavailable: A child did not become ready in time; its log's last lines are in the message.
        """
        with self._exclusively():
            try:
                self._start()
                self._await_ready(ready_within_s)
                yield self
            finally:
                self._stop()

    def wait(self) -> None:
        """Return when SIGTERM or SIGINT came. Only from the main thread."""
        asked = threading.Event()
        before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not asked.wait(0.5):
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        settings = self.project.settings
        held = self.project.locks.hold(LOCK, wait_s=0)
        try:
            held.__enter__()
        except Conflict:
            up = read_running(settings.state)
            pid = f" (process {up.pid}, console {up.control})" if up else ""
            raise Conflict(
                f"Project {settings.project!r} is up already{pid}.", fix="use it, or stop that process first."
            ) from None
        try:
            self._await_predecessors()
            for name in ("gateway", "control"):
                check_free(getattr(settings, name), name)
            yield
        finally:
            held.__exit__(None, None, None)

    def _await_predecessors(self, within_s: float = 5.0) -> None:
        """Wait for the children of a supervisor that was killed: they die with it, but not in the same instant."""
        before = read_running(self.project.settings.state)
        deadline = time.monotonic() + within_s
        while before is not None and any(map(alive, before.children.values())) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _start(self) -> None:
        self._pipe = os.pipe()
        for name in MODULES:
            self._children[name] = _Child(name, self._spawn(name), time.monotonic())
        self._write_running()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        settings = self.project.settings
        command = [sys.executable, "-m", "mainspring.app.child", str(self._pipe[0]), MODULES[name]]
        command += ["--project", str(settings.root), "--profile", settings.profile]
        with _open_log(log_path(settings.state, name)) as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._pipe[0]],
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def _watch(self) -> None:
        # To the kernel a child's parent is the thread that started it: this one must outlive those that it revived.
        while not self._all_ended.wait(0.05):
            with self._reviving:
                for child in () if self._stopping else self._children.values():
                    self._revive(child, time.monotonic())

    def _revive(self, child: _Child, now: float) -> None:
        if child.process.poll() is None:
            return
        if child.restart_at is None:
            if now - child.started > _STEADY_S:
                child.wait_s = _FIRST_WAIT_S
            child.restart_at = now + child.wait_s
            child.wait_s = min(_LONGEST_WAIT_S, child.wait_s * 2)
        elif now >= child.restart_at:
            child.process, child.started, child.restart_at = self._spawn(child.name), now, None
            self._write_running()

    def _await_ready(self, within_s: float) -> None:
        settings = self.project.settings
        deadline = time.monotonic() + within_s
        for name, address, path in (
            ("gateway", settings.gateway, "/v2/health/live"),
            ("control", settings.control, "/health/live"),
        ):
            while not answers(address, path):
                if time.monotonic() > deadline:
                    log = log_path(settings.state, name)
                    raise Unavailable(
                        f"The {name} did not answer within {within_s:g} s. Its log ends: {_tail(log)}",
                        fix=f"read {log}.",
                    )
                time.sleep(0.02)

    def _stop(self) -> None:
        with self._reviving:
            self._stopping = True
        for child in self._children.values():
            child.process.terminate()
        deadline = time.monotonic() + 15.0
        for child in self._children.values():
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._all_ended.set()
        if self._watcher is not None:
            self._watcher.join()
        for end in self._pipe:
            if end >= 0:
                os.close(end)
        (self.project.settings.state / _RUN_FILE).unlink(missing_ok=True)

    def _write_running(self) -> None:
        settings = self.project.settings
        children = {child.name: child.process.pid for child in self._children.values()}
        running = Running(os.getpid(), settings.profile, settings.gateway.url, settings.control.url, children)
        write_atomic(settings.state / _RUN_FILE, msgspec.json.encode(running))


def read_running(state: Path) -> Running | None:
    """Return what the state folder says is up; the processes may be gone (see `alive`)."""
    try:
        return msgspec.json.decode((state / _RUN_FILE).read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def alive(pid: int) -> bool:
    """Return whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def answers(address: Address, path: str) -> bool:
    """Return whether a GET of `path` is answered with 200 within a second."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def log_path(state: Path, name: str) -> Path:
    """Return where a child's log lies."""
    return state / "logs" / f"{name}.log"


def _open_log(path: Path) -> Any:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _tail(path: Path, lines: int = 3) -> str:
    try:
        return " | ".join(path.read_text(errors="replace").splitlines()[-lines:]) or "(empty)"
    except FileNotFoundError:
        return "(empty)"
