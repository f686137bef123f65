"""Atomic files: written beside, synced, renamed; private by default."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

from mainspring.core.errors import StorageFull

_AT_ONCE = 8  # files that are written and synced
_IN_TURN = 256
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
    beside = _beside(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            parts = [bytes(content)] if isinstance(content, (bytes, bytearray, memoryview)) else content
            _write_synced(beside, parts, mode)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_many(files: Iterable[tuple[Path, Iterable[bytes]]]) -> None:
    """Write files as `write_atomic` does, some at once, as a disk syncs many in the time of one.

    They get their names in the order given. Parts are read in other threads, of some files at once.

    Raises:
        StorageFull: There is no room; the files are there up to some one.
    """
    from concurrent.futures import ThreadPoolExecutor

    given = iter(files)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while some := [*islice(given, _IN_TURN)]:
            _write_some(pool, some)


def _write_some(pool: ThreadPoolExecutor, files: Sequence[tuple[Path, Iterable[bytes]]]) -> None:
    from concurrent.futures import FIRST_EXCEPTION, wait

    folders = dict.fromkeys(path.parent for path, _ in files)
    made = dict.fromkeys(above for each in folders for above in [each, *each.parents] if not above.exists())
    beside = [_beside(path) for path, _ in files]
    with disk_errors(files[0][0].parent):
        for each in sorted(made):  # the outermost first
            each.mkdir(mode=0o700, exist_ok=True)
    try:
        running = [pool.submit(_write_beside, path, to, parts) for to, (path, parts) in zip(beside, files, strict=True)]
        _, left = wait(running, return_when=FIRST_EXCEPTION)
        wait([each for each in left if not each.cancel()])
        for future in running:
            if not future.cancelled():
                future.result()
        for to, (path, _) in zip(beside, files, strict=True):
            to.replace(path)
    finally:
        for to in beside:
            to.unlink(missing_ok=True)
    for _ in pool.map(sync_folder, dict.fromkeys([*folders, *(each.parent for each in made)])):
        pass


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")


def _write_beside(path: Path, beside: Path, parts: Iterable[bytes]) -> None:
    with disk_errors(path):
        _write_synced(beside, parts, 0o600)


def _write_synced(path: Path, parts: Iterable[bytes], mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


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
