"""Files that one process appends to and others read: each process has the first that no living one has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path


def own_file(paths: Iterable[Path]) -> tuple[Path, int] | None:
    """Open the first of these files that no living process has; `None` if all of them are taken.

    It is created if it is missing; a last line that a kill cut off is ended. The file is this process's until the
    descriptor that is returned is closed.
    """
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.pwrite(descriptor, b"\n", size)
        return path, descriptor
    return None
