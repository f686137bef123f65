"""Detection of a full disk, for libraries that report a partial write as an input/output error."""

from __future__ import annotations

import os
from pathlib import Path

_FULL_BELOW = 1 << 20  # bytes; what does not fit was larger than what is left, and a page is far smaller than this


def is_full(path: Path) -> bool:
    """Return whether next to nothing is left where `path` is."""
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _FULL_BELOW
