"""Processes of a project, and the start of each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mainspring.core.environment import for_child
from mainspring.core.settings import Settings
from mainspring.processes.logs import log_path, open_log

MODULES = {
    "gateway": "mainspring.processes.gateway",
    "control": "mainspring.console",
    "worker": "mainspring.processes.worker",
    "grpc": "mainspring.processes.grpc",  # only where the profile has an address for it
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of child, and how it is started."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    inherits: tuple[int, ...] = ()  # descriptors
    slot: int | None = None  # of a gateway; gRPC has those after


def kinds(part: str, listeners: Sequence[int], grpc: int) -> Iterator[Kind]:
    """Yield the processes of a part: of the gateway and gRPC as many as are set, each with its slot; else one.

    Args:
        listeners: The descriptors of the gateway's sockets, one a process.
        grpc: How many processes gRPC has.
    """
    count = len(listeners)
    slots = ("--slots", str(count + grpc))
    if part == "grpc":
        shared = ("--shared",) if grpc > 1 else ()
        for number in range(grpc):
            name, slot = part if number == 0 else f"{part}-{number}", count + number
            yield Kind(name, MODULES[part], ("--slot", str(slot), *slots, *shared), slot=slot)
    elif part != "gateway":
        yield Kind(part, MODULES[part])
    else:
        for slot, inherited in enumerate(listeners):
            name = part if slot == 0 else f"{part}-{slot}"
            arguments = ("--listener", str(inherited), "--slot", str(slot), *slots)
            yield Kind(name, MODULES[part], arguments, (inherited,), slot)


def spawn(kind: Kind, settings: Settings, lifeline: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a child that ends when nobody holds the other end of the pipe `lifeline`. It writes to its own log."""
    command = [sys.executable, "-m", "mainspring.processes.child", str(lifeline), kind.module]
    command += ["--project", str(settings.root), "--profile", settings.profile, *kind.arguments]
    with open_log(log_path(settings.state, kind.name)) as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lifeline, *kind.inherits],
            env=for_child(environment),
            start_new_session=True,
        )
