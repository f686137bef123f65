"""Address space of this process, if `ulimit -v` limits it.

Libraries reserve far more than they use: a glibc arena per thread, a gigabyte for Arrow's allocator. If that does not
fit, they abort the process, or wait for a thread that cannot be started.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from mainspring.core.environment import set_variable
from mainspring.core.errors import StorageFull

LEAST_BYTES = 1 << 30  # the loaded libraries, and room for a little data
# Messages of libraries after a failed allocation, or if they themselves do not fit; the data is intact.
NO_MEMORY = (
    "Cannot allocate memory",
    "os error 12)",
    "bad_alloc",
    "malloc of size",
    "memory allocation of",
    "OutOfMemory",
    "failed to map segment",
)
_ARENAS = 2
_M_ARENA_MAX = -8  # of glibc's `mallopt`


def limit_bytes() -> int | None:
    """Return the limit of this process's address space, in bytes; `None` if unlimited."""
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def left_bytes() -> int | None:
    """Return the unused part of a limited address space, in bytes; `None` if unlimited."""
    limit = limit_bytes()
    if limit is None or sys.platform != "linux":
        return limit
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(0, limit - pages * resource.getpagesize())


def reserve_little() -> None:
    """Make this process and its children reserve little if their address space is limited.

    It affects Arrow only if that is not loaded yet.
    """
    if limit_bytes() is None:
        return
    set_variable("ARROW_DEFAULT_MEMORY_POOL", "system")
    set_variable("MALLOC_ARENA_MAX", str(_ARENAS))
    if sys.platform == "linux":
        import ctypes

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no mallopt, and no arenas
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, _ARENAS)


def expect_room() -> None:
    """Raise if the address space is too small to work at all.

    Raises:
        StorageFull: It is too small.
    """
    limit = limit_bytes()
    if limit is not None and limit < LEAST_BYTES:
        raise StorageFull(
            f"There is not enough memory: the process can have {limit >> 20} MiB of address space and needs at "
            f"least {LEAST_BYTES >> 20} MiB, more for large data.",
            fix="raise the limit (`ulimit -v unlimited`), or limit the container's memory instead.",
        )
