"""Free memory of the machine or the container."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MACHINE = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def free_bytes(machine: Path = _MACHINE, group: Path = _GROUP) -> int | None:
    """Return the free memory in bytes, the smaller of the machine's and the container's; `None` if unknown.

    Sources: the Linux kernel's documentation of proc(5), `MemAvailable`, and of control groups v2, "Memory".
    """
    found = []
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = machine.read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):  # no limit is the word "max"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found.append(limit - used + int(stat.get("inactive_file", 0)))
    return max(0, min(found)) if found else None
