"""Checks of a project's processes: those that run, and those that outlived their supervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mainspring.core.errors import Conflict
from mainspring.operations.findings import Finding, well
from mainspring.operations.plane_connection import answers
from mainspring.project import Project
from mainspring.project.running import alive, read_running, where_up


def check_processes(project: Project) -> Iterator[Finding]:
    from mainspring.serving.plane.slots import folder, ready

    settings = where_up(project.settings)
    running = read_running(settings.state)
    try:
        with project.own_locks.hold("up", wait_s=0):
            left = [] if running is None else running.children.values()
            stray = [pid for pid in left if alive(pid) and _works_for(pid, settings.root)]
            if stray:
                yield Finding(
                    check="processes",
                    ok=False,
                    detail=f"processes {stray} outlived their supervisor",
                    fix=f"run `kill {' '.join(map(str, stray))}`",
                )
            else:
                yield well("processes", "not up; no leftover process or lock")
            return
    except Conflict:
        pass
    if running is not None and "worker" in running.children:
        yield _worker(project, running.children["worker"])
    for name, times in ({} if running is None else running.silenced).items():
        yield well(
            "processes", f"{name} stopped responding and was replaced, {times} time{'s' * (times > 1)} since the start"
        )
    silent = [slot for slot in range(settings.gateway_workers) if ready(folder(settings.state), slot) is None]
    several = f" from {settings.gateway_workers} processes" if settings.gateway_workers > 1 else ""
    yield _answering(project, "gateway", settings.gateway.url + several, not silent)
    yield _answering(project, "console", settings.control.url, answers(settings.control, "/health/live"))
    if settings.grpc is not None:  # its slots follow the gateway's
        where, first = f"{settings.grpc.host}:{settings.grpc.port}", settings.gateway_workers
        several = f" from {settings.grpc_workers} processes" if settings.grpc_workers > 1 else ""
        slots = range(first, first + settings.grpc_workers)
        answering = all(ready(folder(settings.state), slot) is not None for slot in slots)
        yield _answering(project, "grpc", where + several, answering)


def _worker(project: Project, pid: int) -> Finding:
    if not alive(pid):
        return Finding(
            check="worker",
            ok=False,
            detail="is not running: features, routes and the prediction log are not updated",
            fix=f"read {project.settings.state / 'logs' / 'worker.log'}; the supervisor restarts it",
        )
    if _stopped(pid):
        return Finding(
            check="worker",
            ok=False,
            detail=f"process {pid} is stopped: features, routes and the prediction log are not updated",
            fix=f"run `kill -CONT {pid}`",
        )
    return well("worker", "runs")


def _stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process."""
    try:
        # The name may contain anything; the state follows it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except FileNotFoundError:  # gone by now, or there is no /proc
        return False


def _answering(project: Project, name: str, where: str, answering: bool) -> Finding:
    if answering:
        return well(name, f"answers on {where}")
    return Finding(
        check=name,
        ok=False,
        detail=f"does not respond on {where}",
        fix=f"read {project.settings.state / 'logs'}; the supervisor restarts it",
    )


def _works_for(pid: int, root: Path) -> bool:
    """Return whether a process was started for the project in `root`.

    A folder that was copied while its project was up names another project's processes, and after a restart of the
    machine a process id may belong to any process.
    """
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:  # gone by now, or there is no /proc
        return not Path("/proc").exists()
    return os.fsencode(root) in arguments
