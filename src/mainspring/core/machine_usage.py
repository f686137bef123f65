"""Processor time and memory of this machine: the whole, and what all processes use of it.

A container with bounds is a machine: those of its control group count (version 2, of Linux).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_IDLE = slice(3, 5)  # places in the first line of /proc/stat: idle, and waiting for a disk
_TIMES = slice(0, 8)  # the last two are counted in the first ones already


class MachineUsage(NamedTuple):
    """Resources of a machine.

    Attributes:
        cores: Processors that run at once, a fraction where a control group bounds them.
        busy_s: Processor time since some instant, seconds; of a virtual machine, also that its host took from it.
        memory_bytes, used_bytes: Memory, and that of it which no new process could have.
    """

    cores: float
    busy_s: float
    memory_bytes: int
    used_bytes: int


def machine_usage() -> MachineUsage | None:
    """Return the resources of this machine; `None` if the system does not tell them."""
    try:
        whole = _linux()
    except (OSError, ValueError, KeyError):
        return _portable()
    return _bounded(whole)


def _linux() -> MachineUsage:
    lines = (_PROC / "stat").read_text().splitlines()
    times = [int(field) for field in lines[0].split()[1:]]
    cores = sum(1 for line in lines if line.startswith("cpu")) - 1
    busy = sum(times[_TIMES]) - sum(times[_IDLE])
    sizes = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines())
    total, free = (int(sizes[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    return MachineUsage(float(cores), busy / os.sysconf("SC_CLK_TCK"), total, total - free)


def _bounded(whole: MachineUsage) -> MachineUsage:
    try:
        own = next(line for line in (_PROC / "self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return whole
    group = _GROUPS / own[3:].lstrip("/")
    found = whole
    for place in (group, *group.parents):
        if not place.is_relative_to(_GROUPS):
            break
        found = _within(found, place)
    return found


def _within(found: MachineUsage, group: Path) -> MachineUsage:
    """Return the resources as a control group bounds them, if it has a narrower bound."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        cores = float("inf") if quota == "max" else int(quota) / int(period)
        if cores < found.cores:
            spent = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            found = found._replace(cores=cores, busy_s=int(spent["usage_usec"]) / 1e6)
        most = (group / "memory.max").read_text().strip()
        if most != "max" and int(most) < found.memory_bytes:
            used = int((group / "memory.current").read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            found = found._replace(memory_bytes=int(most), used_bytes=max(0, used - int(stat["inactive_file"])))
    except (OSError, ValueError, KeyError):  # it has no such bound
        pass
    return found


def _portable() -> MachineUsage | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    times: Any = psutil.cpu_times()
    memory = psutil.virtual_memory()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
    return MachineUsage(float(psutil.cpu_count() or 1), busy, memory.total, memory.total - memory.available)
