"""One segment file as its writer has it: named when it is locked, grown by whole frames, cut back where one fails."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from mainspring.core.files import disk_errors, make_folder, sync_folder
from mainspring.core.ids import new_id
from mainspring.ledger import frames

SUFFIX = ".segment"
UNNAMED = ".new"


class SegmentFile:
    """A segment that this process writes, and holds by `flock` while it does.

    Attributes:
        size: Its length, bytes.
        begun: When it was made, monotonic seconds.
        broken: It could not be synced, and the kernel forgets which of its pages that concerns: write no more to it.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.begun = time.monotonic()
        self.broken = False

    @classmethod
    def begin(cls, folder: Path) -> SegmentFile:
        """Make a segment in the folder, which is made too if it is missing.

        Raises:
            StorageFull: There is no room; nothing was left behind.
        """
        with disk_errors(folder):
            make_folder(folder)
            while (made := cls._try(folder)) is None:
                pass
        return made

    @classmethod
    def _try(cls, folder: Path) -> SegmentFile | None:
        """Make a segment; `None` if a compactor took its file for a dead writer's before it was locked."""
        path = folder / f"{new_id()}{SUFFIX}"
        beside = path.with_suffix(UNNAMED)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        made = cls(descriptor, 0)
        try:
            # The name appears when the lock is held: a segment that nobody holds never grows again.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            made.write(frames.MAGIC)
            os.fsync(descriptor)  # before it has its name: a power cut must not leave an empty segment
            beside.rename(path)
            sync_folder(folder)
        except FileNotFoundError:
            os.close(descriptor)
            return None
        except OSError:
            beside.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return made

    def write(self, content: bytes) -> None:
        """Add `content` whole, or cut off what was written of it and raise."""
        written = 0
        try:
            while written < len(content):
                written += os.write(self.descriptor, memoryview(content)[written:])
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.size += written

    def close(self) -> None:
        os.close(self.descriptor)
