"""Memory that a model takes, measured: growth of this process and of its children."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE = 4 << 20


def private_bytes() -> int:
    """Return the memory in use that this process and its children share with no other; 0 where the system does not
    tell."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = 0
    for process in ("self", *_children()):
        try:
            _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
        except OSError:  # it ended, or this system has no such file
            continue
        found += (int(resident) - int(shared)) * page
    return found


def growth(work: Callable[[], _T]) -> tuple[_T, int]:
    """Return the result of `work`, and the growth of `private_bytes` by it, at least 0.

    Memory that is free and not given back to the system is given back first, so that it hides no growth.
    """
    give_back()
    before = private_bytes()
    done = work()
    give_back()
    return done, max(0, private_bytes() - before)


def give_back() -> None:
    """Return free memory to the system, where the C library can."""
    gc.collect(1)
    with suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def give_large_blocks_back() -> None:
    """Let large blocks go back to the system as soon as they are freed, where the C library is GNU's.

    It learns to keep ever larger blocks, up to 32 MiB, and returns none that lies at the end of a thread's heap
    (mallopt(3), malloc_trim(3)): a model's file would count as its memory after it was read.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def _children() -> list[str]:
    found: list[str] = []
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            found += (thread / "children").read_text(encoding="ascii").split()
    return found
