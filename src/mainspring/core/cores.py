"""Processor cores and memory that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Return how many there are: those that the process is bound to, where the system knows that, else all; no more
    than its control group (version 2) has time for."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(math.ceil, _shares(groups, own))]))


def memory_limit(groups: Path = _GROUPS, own: Path = _OWN) -> int | None:
    """Return the bytes that the process's control group (version 2) may have; `None` without a limit."""
    limits = [int(text) for text in _told("memory.max", groups, own) if text.isdigit()]
    return min(limits, default=None)


def _shares(groups: Path, own: Path) -> Iterator[float]:
    for text in _told("cpu.max", groups, own):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _told(name: str, groups: Path, own: Path) -> Iterator[str]:
    """Yield the content of a file of the process's control group, and of the groups around it."""
    with suppress(OSError):
        line = next((each for each in own.read_text().splitlines() if each.startswith("0::")), None)
        if line is None:
            return
        group = groups / line[3:].lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError):  # the outermost group has no limits
                yield (folder / name).read_text().strip()
            if folder == groups:
                return
