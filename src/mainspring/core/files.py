"""Atomic files: written beside, synced, renamed; private by default."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mainspring.core.errors import StorageFull

_FULL_BELOW = 1 << 20  # bytes; a write that failed was larger than the free space, and a page is far smaller than this


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn a full disk or quota below the block into `StorageFull`, which names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(f"No space left for {path}.", fix="free some space and run the command again.") from error
        raise


def write_atomic(path: Path, content: bytes | Iterable[bytes], *, mode: int = 0o600) -> None:
    """Write `content`, whole or in parts, to `path` so that a reader, or a start after a crash, sees the whole old file
    or the whole new one.

    Raises:
        StorageFull: There is no room; `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([content] if isinstance(content, (bytes, bytearray, memoryview)) else content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)


def sweep(path: Path) -> None:
    """Delete partial files that killed writers of `path` left beside it. No writer may be active."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        left.unlink(missing_ok=True)


def write_once(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write `content` to `path` unless the file exists; of several concurrent writers the first wins, and its file is
    whole.

    Raises:
        StorageFull: There is no room; no file is there.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                path.hardlink_to(beside)  # unlike a rename, fails if another process was faster
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)


def make_folder(folder: Path, *, mode: int = 0o700) -> None:
    """Create a folder and its missing parents, and make their names durable."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for each in missing:
        sync_folder(each.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    _sync(path)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(path: Path) -> bool:
    """Return whether files of `path` can hardly grow: its disk is almost full, or this process has a limit for files.

    Libraries report a partial write as an input error.
    """
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return True
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _FULL_BELOW
