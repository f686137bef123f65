"""A mark that processes share: it differs after each change of what it stands for, and costs no system call to read."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

_BYTES = 8


class Mark:
    """Some bytes of a file, mapped into memory. They say that something changed, and nothing else: any are good.

    A reader takes the mark before it reads what changes; a writer changes it after the commit. Then a reader whose mark
    is still there has read the last commit.
    """

    def __init__(self, path: Path) -> None:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(opened).st_size < _BYTES:
                os.ftruncate(opened, _BYTES)
            self._bytes = mmap.mmap(opened, _BYTES)
        finally:
            os.close(opened)

    def value(self) -> bytes:
        return self._bytes[:]

    def change(self) -> None:
        self._bytes[:] = os.urandom(_BYTES)
