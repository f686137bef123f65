"""The prediction log on this machine: one segment file a process, written with one system call a batch."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mainspring.core.errors import Unavailable
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.ids import new_id
from mainspring.ledger import frames
from mainspring.ledger.model import Prediction

SUFFIX = ".segment"
UNNAMED = ".new"


class SegmentLog:
    """Appends frames to a segment of its own, which it holds by `flock` for as long as it writes there.

    `append` returns after `write`: the kernel has the bytes, so they outlive this process. A background thread calls
    `fsync` within `sync_within_s` of the first byte that needs it: so much a power failure can cost. Threads may share
    a log.

    Args:
        folder: Where the segments are; made if missing.
        max_bytes: A segment that has grown this large is closed and another begun.
        max_age_s: So is one that was begun this long ago, at the next append.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = 64 << 20, max_age_s: float = 600.0, sync_within_s: float = 0.5
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._sync_within_s = sync_within_s
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._failure: OSError | None = None
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open()
        self._syncer = threading.Thread(target=self._sync_forever, name="ledger-sync", daemon=True)
        self._syncer.start()

    def append(self, predictions: Sequence[Prediction]) -> None:
        if not predictions:
            return
        frame = frames.encode(predictions)
        with self._lock, disk_errors(self._folder):
            if self._closed.is_set():
                raise Unavailable("The prediction log is closed.")
            if self._failure is not None:
                raise Unavailable(f"The prediction log cannot be made durable: {self._failure}.")
            if self._size >= self._max_bytes or time.monotonic() - self._begun >= self._max_age_s:
                self._rotate()
            self._write(frame)
        self._dirty.set()

    def close(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            os.fsync(self._descriptor)
            os.close(self._descriptor)
        self._dirty.set()
        self._syncer.join()

    def _write(self, content: bytes) -> None:
        """Write all of `content`, or cut off what was written of it."""
        written = 0
        try:
            while written < len(content):
                written += os.write(self._descriptor, content[written:] if written else content)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written

    def _open(self) -> None:
        while not self._try_open():
            pass

    def _try_open(self) -> bool:
        """Begin a segment. False if a compactor took its file for a dead writer's before it was locked."""
        path = self._folder / f"{new_id()}{SUFFIX}"
        beside = path.with_suffix(UNNAMED)
        self._descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._begun = time.monotonic()
        try:
            # The name appears when the lock is held: a segment that nobody holds never grows again.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._write(frames.MAGIC)
            beside.rename(path)
            sync_folder(self._folder)
        except FileNotFoundError:
            os.close(self._descriptor)
            return False
        except OSError:
            beside.unlink(missing_ok=True)
            os.close(self._descriptor)
            raise
        return True

    def _rotate(self) -> None:
        full, size, begun = self._descriptor, self._size, self._begun
        try:
            self._open()
        except OSError:
            self._descriptor, self._size, self._begun = full, size, begun
            raise
        os.fsync(full)
        os.close(full)

    def _sync_forever(self) -> None:
        while True:
            self._dirty.wait()
            if self._closed.wait(self._sync_within_s):
                return
            self._dirty.clear()
            with self._lock:
                if self._closed.is_set():
                    return
                # A duplicate may be synced without holding up the writers, also while the segment rotates.
                descriptor = os.dup(self._descriptor)
            try:
                os.fsync(descriptor)
            except OSError as error:
                self._failure = error
                return
            finally:
                os.close(descriptor)
