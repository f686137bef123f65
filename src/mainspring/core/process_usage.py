"""Processor time and memory of the processes that a process started, on Linux, without a library.

https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
# Places in `stat` behind the name: processor time, that of children which ended, pages of memory.
_TIMES, _CHILDREN, _PAGES = slice(11, 15), slice(13, 15), 21


class Usage(NamedTuple):
    """Resources of the descendants of a process.

    Attributes:
        cpu_s: Processor time, seconds, of those that ended too; it never falls while each is waited for by its parent.
        resident_bytes: Of those that live.
        processes: Number of those that live.
    """

    cpu_s: float = 0.0
    resident_bytes: int = 0
    processes: int = 0


def of_descendants(pid: int) -> Usage | None:
    """Return the resources of the processes below a process; `None` if it has ended, or the system does not tell."""
    own = _stat(pid)
    if own is None:
        return None
    ticks, pages, count = sum(own[_CHILDREN]), 0, 0
    waiting = _children(pid)
    while waiting:
        child = waiting.pop()
        found = _stat(child)
        if found is None:  # it ended meanwhile
            continue
        ticks += sum(found[_TIMES])
        pages += found[_PAGES]
        count += 1
        waiting += _children(child)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"), count)


def _stat(pid: int) -> list[int] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="latin-1")
    except OSError:
        return None
    return [0, *(int(field) for field in text.rpartition(")")[2].split()[1:])]  # the state is no number


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass
    return found
