"""Detection of a full disk, for libraries that report a partial write as an input/output error."""

from __future__ import annotations

import os
from pathlib import Path

_FULL_BELOW = 1 << 20  # bytes; a write that failed was larger than the free space, and a page is far smaller than this


def is_full(path: Path) -> bool:
    """Return whether the disk of `path` is almost full."""
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _FULL_BELOW
