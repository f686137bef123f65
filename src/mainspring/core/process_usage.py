"""Processor time and memory of a process and of those that it started, on Linux, without a library.

https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC, _DEV, _GPU = Path("/proc"), Path("/dev"), "nvidia"
# Places in `stat` behind the name: processor time, that of children which ended, pages of memory.
_PARENT, _TIMES, _CHILDREN, _PAGES = 1, slice(11, 15), slice(13, 15), 21


class Usage(NamedTuple):
    """Resources of a process's descendants, or of its tree: of itself and them.

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
    return None if own is None else _added(_below(pid), sum(own[_CHILDREN]))


def of_tree(pid: int) -> Usage | None:
    """Return the resources of a process and those below it; `None` as of `of_descendants`."""
    own = _stat(pid)
    if own is None:
        return None
    below = _added(_below(pid), sum(own[_TIMES]))
    return Usage(below.cpu_s, below.resident_bytes + own[_PAGES] * os.sysconf("SC_PAGE_SIZE"), below.processes + 1)


def ancestors(pid: int) -> list[int]:
    """Return the ids of the processes above a process, the nearest first."""
    found: list[int] = []
    while (stat := _stat(pid)) is not None and (pid := stat[_PARENT]) > 0:
        found.append(pid)
    return found


def tree(pid: int) -> list[int]:
    """Return the ids of a process and those below it."""
    return [pid, *(child for child, _ in _below(pid))]


def main_thread_s(pid: int) -> float | None:
    """Return the processor time of a process's first thread; `None` as of `of_descendants`."""
    own = _stat(pid, f"task/{pid}/stat")
    return None if own is None else sum(own[_TIMES][:2]) / os.sysconf("SC_CLK_TCK")


def gpus() -> set[int]:
    """Return the numbers of this machine's NVIDIA GPUs, by their device files."""
    return {int(path.name[len(_GPU) :]) for path in _DEV.glob(f"{_GPU}[0-9]*") if path.name[len(_GPU) :].isdigit()}


def open_gpus(pid: int) -> set[int]:
    """Return the numbers of the GPUs whose device files a process, or one below it, has open.

    CUDA opens those that a process may see: `CUDA_VISIBLE_DEVICES` bounds them.
    """
    if not (there := gpus()):
        return set()
    found, start = set(), f"{_DEV}/{_GPU}"
    for each in tree(pid):
        for link in _links(_PROC / str(each) / "fd"):
            if link.startswith(start) and link[len(start) :].isdigit():
                found.add(int(link[len(start) :]))
    return found & there


def _links(folder: Path) -> Iterator[str]:
    """Yield what the open files of a process are; of a process that ended, or of another user, none."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):  # it was closed meanwhile
            yield str(entry.readlink())


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process and those below it, where a page of several processes counts in parts.

    https://docs.kernel.org/filesystems/proc.html: Pss. The kernel walks all of its pages: milliseconds for each GiB.
    """
    total = 0
    for each in tree(pid):
        try:
            lines = (_PROC / str(each) / "smaps_rollup").read_bytes().splitlines()
        except OSError:  # it ended, or belongs to another user
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(b"Pss:"))
    return total


def _added(found: Iterator[tuple[int, list[int]]], ticks: int) -> Usage:
    pages = count = 0
    for _, stat in found:
        ticks += sum(stat[_TIMES])
        pages += stat[_PAGES]
        count += 1
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"), count)


def _below(pid: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the descendants that live: id, and the numbers of `stat`."""
    waiting = _children(pid)
    while waiting:
        child = waiting.pop()
        found = _stat(child)
        if found is not None:  # else it ended meanwhile
            yield child, found
            waiting += _children(child)


def _stat(pid: int, name: str = "stat") -> list[int] | None:
    try:
        text = (_PROC / str(pid) / name).read_text(encoding="latin-1")
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
