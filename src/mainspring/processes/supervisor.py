"""The supervisor: start, restart and clean end of child processes.

An exclusive lock ensures that a project is up only once. The gateway's address is bound here, and its processes inherit
the sockets, so connections that wait to be accepted outlive them. A process that dies is restarted with growing delays,
and so is one that does not respond (processes.liveness). Children hold the read end of a pipe: when the supervisor
ends, for whatever reason, they end too (processes.child).
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from mainspring.core.errors import Conflict, Unavailable
from mainspring.core.files import sweep
from mainspring.core.listening import check_free, hold, listen_together, steer
from mainspring.operations.plane_connection import answers
from mainspring.processes import catalog_copy, liveness
from mainspring.processes.kinds import LOG, MODULES, Kind, kinds, last_lines, log_path, spawn
from mainspring.processes.service_manager import Manager
from mainspring.project import Project
from mainspring.project.running import UP_LOCK, Running, alive, forget_running, read_running, write_running

_log = logging.getLogger("mainspring")
_LIVE = "/health/live"
_SOON_S = 10.0  # after a start
_AFTER_DRAIN_S = 5.0
MOVE_S = 20.0  # for the last rows of the prediction log
_START_S, _AFTER_WAIT_S = 30.0, 120.0
_FIRST_WAIT_S, _SERVED_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 0.1, 0.8, 10.0, 30.0


@dataclass(slots=True)
class _Child:
    kind: Kind
    process: subprocess.Popen[bytes]
    started: float
    wait_s: float = _FIRST_WAIT_S
    restart_at: float | None = None
    ready: bool = False  # whether it was ready when last asked
    ask_at: float = 0.0


@dataclass
class Supervisor:
    """Supervisor of a project's processes: starts them and keeps them running until `stop`.

    Args:
        project: Opened by the supervising process.
        environment: Variables of children in addition to this process's own environment.
        parts: The entries of `kinds.PARTS` to run.
        tell: Called with the reason if the start has to wait for long.
        logs_to_files: Whether each child writes to a log of its own; else to this process's standard error.
        hosted: Endpoint that SageMaker asks the gateway for; only `processes.contained` has one.
    """

    project: Project
    environment: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[str] = tuple(MODULES)
    tell: Callable[[str], None] = lambda _: None
    logs_to_files: bool = True
    hosted: str = ""

    def __post_init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._reviving = threading.Lock()
        self._stopping = False
        self._asked_to_stop = threading.Event()
        self._all_ended = threading.Event()
        self._watcher: threading.Thread | None = None
        self._ending = threading.Event()
        self._silenced: dict[str, int] = {}  # child -> number of kills because it did not respond
        self._pipe = (-1, -1)
        self._listeners: list[socket.socket] = []  # one a slot
        self._kept: socket.socket | None = None  # gRPC's address, if several processes share it
        self._manager = Manager()
        self._able: list[int] = []  # slots that get new connections; all if empty

    @contextmanager
    def running(self, *, ready_within_s: float = _START_S) -> Iterator[Supervisor]:
        """Keep the project up inside the block; all processes have ended after it.

        While the catalog does not respond, the start waits for it without limit; the gateway serves from its copy.

        Raises:
            Conflict: The project is up already, or a port is taken.
            Invalid: A certificate or its key cannot be used.
            Unavailable: A child did not become ready in time; its log's last lines are in the message.
        """
        with self._exclusively():
            try:
                self._start()
                self._await_ready(ready_within_s)
                self._manager.ready()
                yield self
            finally:
                self._stop()

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Treat SIGTERM and SIGINT inside the block as a request to stop, which ends a start and `wait`.

        Call it from the main thread, before `running`: a signal must not end this process while it has children, which
            would die with it in the middle of a response.
        """
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, lambda *_: self._asked_to_stop.set()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def asked_to_stop(self) -> bool:
        return self._asked_to_stop.is_set()

    def wait(self, longest_s: float = math.inf) -> None:
        """Return on SIGTERM or SIGINT, or after `longest_s` seconds. Only inside `heeding`."""
        until = time.monotonic() + longest_s
        while not self._asked_to_stop.wait(min(0.5, longest_s)) and time.monotonic() < until:
            pass

    def collect_orphans(self) -> None:
        """Collect ended processes that are not children of this supervisor, but were left to it: the first process of
        a container is the parent of all orphans."""
        with self._reviving:
            own = {child.process.pid for child in self._children.values()}
            with suppress(ChildProcessError):  # there are no more
                while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    if found.si_pid in own:
                        return  # which is restarted at once
                    os.waitpid(found.si_pid, os.WNOHANG)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        settings = self.project.settings
        with ExitStack() as stack:
            try:
                stack.enter_context(self.project.own_locks.hold(UP_LOCK, wait_s=0))
            except Conflict:
                up = read_running(settings.state)
                pid = f" ({up.told})" if up else ""
                raise Conflict(
                    f"Project {settings.project!r} is already up{pid}.", fix="use it, or stop that process first."
                ) from None
            stack.callback(self._refuse_more)
            self._await_predecessors()
            sweep(settings.state / catalog_copy.FILE)
            self._check_certificates()
            if "control" in self.parts:
                check_free(settings.control, "control")
            if self._grpc_count and settings.grpc is not None:
                from mainspring.processes.grpc import check_installed

                check_installed()
                if self._grpc_count > 1:
                    self._kept = hold(settings.grpc, "grpc")
                else:
                    check_free(settings.grpc, "grpc")
            for wanted, what in ((settings.traces, "Tracing requests"), (settings.metrics, "Pushing metrics")):
                if wanted:
                    from mainspring.processes import tracing

                    tracing.check_installed(what)
            if "gateway" in self.parts:
                self._listeners = listen_together(settings.gateway, "gateway", settings.gateway_workers)
            yield

    @property
    def _grpc_count(self) -> int:
        settings = self.project.settings
        return settings.grpc_workers if "grpc" in self.parts and settings.grpc is not None else 0

    def _check_certificates(self) -> None:
        for files in filter(None, (self.project.settings.gateway_tls, self.project.settings.control_tls)):
            from mainspring.security import tls

            tls.check(files, now=self.project.wall.now())

    def _refuse_more(self) -> None:
        for listener in self._listeners:
            listener.close()
        if self._kept is not None:
            self._kept.close()

    def _await_predecessors(self, within_s: float = 5.0) -> None:
        """Wait for the children of a killed supervisor: they end with it, but not immediately."""
        before = read_running(self.project.settings.state)
        deadline = time.monotonic() + within_s
        while before is not None and any(map(alive, before.children.values())) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _start(self) -> None:
        self._pipe = os.pipe()
        listeners = [each.fileno() for each in self._listeners]
        for part in self.parts:
            for kind in kinds(part, listeners, self._grpc_count, self.hosted):
                self._children[kind.name] = _Child(kind, self._spawn(kind), time.monotonic())
        self._write_running()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()
        for child in self._children.values():
            if child.kind.slot is not None:
                threading.Thread(target=self._liveness(child).run, name=f"{child.kind.name}-watch", daemon=True).start()

    def _liveness(self, child: _Child) -> liveness.Watch:
        from mainspring.serving.plane import slots

        settings, name, slot = self.project.settings, child.kind.name, child.kind.slot
        silent_s = settings.gateway_liveness_us / 1e6

        def killed() -> None:
            with self._reviving:
                self._silenced[name] = self._silenced.get(name, 0) + 1
            _log.warning("%s did not respond for %g s: it was killed, and is restarted", name, silent_s)

        place = slots.folder(settings.state)
        return liveness.Watch(place, slot or 0, lambda: child.process, silent_s, self._ending, killed)

    def _spawn(self, kind: Kind) -> subprocess.Popen[bytes]:
        files = self.logs_to_files
        return spawn(kind, self.project.settings, self._pipe[0], self.environment, logs_to_file=files)

    def _watch(self) -> None:
        # For the kernel a child's parent is the thread that started it, so this thread must outlive restarted children.
        while not self._all_ended.is_set():
            self._await_death(0.05)
            self._manager.alive()
            with self._reviving:
                if not self._stopping:
                    self._look(time.monotonic())

    def _await_death(self, within_s: float) -> None:
        """Wait until a child has died, or a while has passed."""
        if self._stopping or not hasattr(os, "pidfd_open"):  # which is on Linux only
            self._all_ended.wait(within_s)
            return
        with ExitStack() as stack:
            watched = []
            for child in self._children.values():
                if child.restart_at is None and child.process.returncode is None:
                    with suppress(ProcessLookupError):  # it was reaped meanwhile
                        watched.append(os.pidfd_open(child.process.pid))
                        stack.callback(os.close, watched[-1])
            select.select(watched, [], [], within_s)

    def _look(self, now: float) -> None:
        """Restart dead children, and steer new connections to the gateways that are ready."""
        for child in self._children.values():
            self._revive(child, now)
            if child.ready and self._gives_up(child.kind):
                child.ready, child.ask_at = False, now + 1.0
            elif child.restart_at is None and not child.ready and now >= child.ask_at:
                child.ready = self._ready(child.kind) is True
                child.ask_at = now + (0.0 if now - child.started < _SOON_S else 1.0)
        slots = (child.kind.slot for child in self._children.values() if child.ready and child.kind.inherits)
        able = [slot for slot in slots if slot is not None]
        if able != self._able:
            steer(self._listeners, able or range(len(self._listeners)))
            self._able = able

    def _revive(self, child: _Child, now: float) -> None:
        if child.process.poll() is None:
            return
        if child.restart_at is None:
            if now - child.started > _STEADY_S or child.process.returncode == 0:
                child.wait_s = _FIRST_WAIT_S
            if child.ready:  # it starts successfully: only a child that never becomes ready is retried later
                child.wait_s = min(child.wait_s, _SERVED_WAIT_S)
            child.ready = False
            child.restart_at = now + child.wait_s
            child.wait_s = min(_LONGEST_WAIT_S, child.wait_s * 2)
        elif now >= child.restart_at:
            child.process, child.started, child.restart_at = self._spawn(child.kind), now, None
            child.ask_at = now
            self._write_running()

    def _await_ready(self, within_s: float) -> None:
        settings = self.project.settings
        deadline = time.monotonic() + within_s
        for name, child in self._children.items():
            while not (answers(settings.control, _LIVE) if name == "control" else self._ready(child.kind) is not None):
                if self.asked_to_stop:
                    return
                if time.monotonic() > deadline:
                    if (reason := self._without_catalog()) is not None:
                        self.tell(f"Waiting for the catalog: {reason}")
                        deadline = time.monotonic() + _AFTER_WAIT_S
                        continue
                    log = log_path(settings.state, name)
                    raise Unavailable(
                        f"The {name} did not respond within {within_s:g} s. Its log ends: {last_lines(log)}",
                        fix=f"read {log}.",
                    )
                time.sleep(0.02)

    def _without_catalog(self) -> str | None:
        """Return the reason why the catalog does not respond, `None` if it does."""
        try:
            self.project.routes.revision()
        except Unavailable as error:
            return str(error)
        return None

    def _ready(self, kind: Kind) -> bool | None:
        """Return whether a child is ready, `None` if it does not respond; most children are not asked."""
        if kind.slot is None:
            return True
        from mainspring.serving.plane import slots

        return slots.ready(slots.folder(self.project.settings.state), kind.slot)

    def _gives_up(self, kind: Kind) -> bool:
        if not kind.inherits or kind.slot is None:
            return False
        from mainspring.serving.plane import slots

        return slots.given_up(slots.folder(self.project.settings.state), kind.slot)

    def _stop(self) -> None:
        self._manager.stopping()
        with self._reviving:
            self._stopping = True
        self._ending.set()
        self._refuse_more()  # including the gateways' own ends, which they close now
        last = [child for child in self._children.values() if child.kind.name == LOG]  # it moves the others' last rows
        self._end([child for child in self._children.values() if child not in last], _AFTER_DRAIN_S)
        self._end(last, MOVE_S)
        self._all_ended.set()
        if self._watcher is not None:
            self._watcher.join()
        for end in self._pipe:
            if end >= 0:
                os.close(end)
        forget_running(self.project.settings.state)

    def _end(self, children: Sequence[_Child], further_s: float) -> None:
        """Ask children to end, and kill those that are still there after the time to drain and a further time."""
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + self.project.settings.gateway_limits.drain_us / 1e6 + further_s
        for child in children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _write_running(self) -> None:
        settings = self.project.settings
        children = {name: child.process.pid for name, child in self._children.items()}
        gateway = settings.gateway.url if "gateway" in self.parts else ""
        control = settings.control.url if "control" in self.parts else ""
        running = Running(os.getpid(), settings.profile, gateway, control, children, dict(self._silenced))
        write_running(settings.state, running)
