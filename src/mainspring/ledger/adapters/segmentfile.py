"""One segment file of its writer: named once it is locked, extended by whole frames, truncated if a write fails."""

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
    """A segment that this process writes, under a `flock`.

    Attributes:
        size: Its length in bytes.
        begun: Time of its creation, monotonic seconds.
        broken: A sync failed, and the kernel forgets which pages it concerns: do not write to it again.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.begun = time.monotonic()
        self.broken = False

    @classmethod
    def begin(cls, folder: Path) -> SegmentFile:
        """Create a segment in the folder, and the folder if it is missing.

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
        """Create a segment; `None` if a compaction took its file for a dead writer's before it was locked."""
        path = folder / f"{new_id()}{SUFFIX}"
        beside = path.with_suffix(UNNAMED)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        made = cls(descriptor, 0)
        try:
            # The name appears once the lock is held, so a segment without a lock never grows again.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            made.write(frames.MAGIC)
            os.fsync(descriptor)  # before it gets its name: a power cut must not leave an empty segment
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
        """Append all of `content`, or truncate the incomplete write and raise."""
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
