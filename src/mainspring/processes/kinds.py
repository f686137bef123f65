"""Processes of a project, the start of each, and its log file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from mainspring.core.environment import FOR_SERVING, for_child
from mainspring.core.settings import Settings

MODULES = {
    "gateway": "mainspring.processes.gateway",
    "control": "mainspring.console",
    "worker": "mainspring.processes.worker",
    "grpc": "mainspring.processes.grpc",  # only if the profile has an address for it
}
LOG = "log"  # moves the prediction log of a machine whose worker is elsewhere
PARTS = {**MODULES, LOG: "mainspring.processes.prediction_log"}
_LARGEST = 10 << 20  # bytes; a larger log is moved aside at a start


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of child, with its command."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    inherits: tuple[int, ...] = ()  # descriptors
    slot: int | None = None  # slot of a gateway; gRPC has the following slots


def kinds(part: str, listeners: Sequence[int], grpc: int, hosted: str = "") -> Iterator[Kind]:
    """Yield the processes of a part: for the gateway and gRPC the configured number, each with its slot; else one.

    Args:
        listeners: Descriptors of the gateway's sockets, one per process.
        grpc: Number of gRPC processes.
        hosted: Endpoint that SageMaker asks the gateway for.
    """
    count = len(listeners)
    slots = ("--slots", str(count + grpc))
    if part == "grpc":
        shared = ("--shared",) if grpc > 1 else ()
        for number in range(grpc):
            name, slot = part if number == 0 else f"{part}-{number}", count + number
            yield Kind(name, PARTS[part], ("--slot", str(slot), *slots, *shared), slot=slot)
    elif part != "gateway":
        yield Kind(part, PARTS[part])
    else:
        for slot, inherited in enumerate(listeners):
            name = part if slot == 0 else f"{part}-{slot}"
            arguments = ("--listener", str(inherited), "--slot", str(slot), *slots)
            yield Kind(name, PARTS[part], (*arguments, *(("--hosted", hosted) if hosted else ())), (inherited,), slot)


def spawn(
    kind: Kind, settings: Settings, lifeline: int, environment: Mapping[str, str], *, logs_to_file: bool = True
) -> subprocess.Popen[bytes]:
    """Start a child that ends when the other end of the pipe `lifeline` is closed. It writes to its own log, or to this
    process's standard error."""
    command = [sys.executable, "-m", "mainspring.processes.child", str(lifeline), kind.module]
    command += ["--project", str(settings.root), "--profile", settings.profile, *kind.arguments]
    with open_log(log_path(settings.state, kind.name)) if logs_to_file else nullcontext() as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lifeline, *kind.inherits],
            env=for_child(environment, FOR_SERVING if kind.slot is not None else None),
            start_new_session=True,
        )


def log_path(state: Path, name: str) -> Path:
    """Return the path of a child's log."""
    return state / "logs" / f"{name}.log"


def open_log(path: Path) -> BufferedWriter:
    """Open the log for appending."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > _LARGEST:
        path.replace(path.with_suffix(".old.log"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def last_lines(path: Path, lines: int = 3) -> str:
    """Return the last lines of a log, joined to one line."""
    try:
        return " | ".join(path.read_text(errors="replace").splitlines()[-lines:]) or "(empty)"
    except FileNotFoundError:
        return "(empty)"
