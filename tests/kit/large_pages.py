"""Memory in pages of 2 MiB, where the system has them: a fork copies a table of pages, and each end goes through it."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

_SIZE = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1


def in_large_pages() -> None:
    """Have the kernel put into large pages what this process has allocated; elsewhere than on Linux do nothing.

    A page that is written to after a fork is copied as a small one all the same.
    """
    with suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, _, _, inode, *name = line.split()
            if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
                first, end = (int(each, 16) for each in span.split("-"))
                for page in range(-(-first // _SIZE) * _SIZE, end - _SIZE + 1, _SIZE):
                    madvise(ctypes.c_void_p(page), ctypes.c_size_t(_SIZE), _COLLAPSE)  # refused where memory is short
