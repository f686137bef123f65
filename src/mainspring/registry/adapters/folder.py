"""Blobs in a local folder: one subfolder per blob, named by its digest."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.ids import check_id
from mainspring.registry.bundles import check_digest

_PARTIAL = ".partial-"


class FolderBlobs:
    """Blobs under `folder`, private to the user.

    A blob is written to a temporary folder, synced, and renamed into place as a whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        place = self._folder / check_digest(digest)
        names = [check_id(name, "file of a blob") for name in files]
        with disk_errors(place):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._renew(place):
                return
            self._remove_abandoned()
            with self._folder_beside(digest) as beside:
                for name in names:
                    _write(beside / name, files[name])
                sync_folder(beside)
                _rename(beside, place)
                sync_folder(self._folder)

    def get(self, digest: str) -> Mapping[str, bytes]:
        what = f"The blob {check_digest(digest)[:12]}"
        folder = _open(self._folder / digest, os.O_DIRECTORY, what, "a folder")
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
            return {name: _read(name, folder, what) for name in names}
        finally:
            os.close(folder)

    def all(self) -> list[str]:
        return sorted(self.stored())

    def stored(self) -> dict[str, int]:
        found = {}
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(Invalid, FileNotFoundError):  # a foreign file, or removed meanwhile
                    found[check_digest(entry.name)] = entry.stat(follow_symlinks=False).st_mtime_ns // 1000
        return found

    def delete(self, digest: str, *, stored_before: int | None = None) -> bool:
        place = self._folder / check_digest(digest)
        gone = self._folder / f"{_PARTIAL}{digest}-{uuid4().hex}"
        try:
            with self._alone():
                if stored_before is not None and place.lstat().st_mtime_ns // 1000 >= stored_before:
                    return False
                place.rename(gone)  # a reader sees the blob whole or not at all
        except FileNotFoundError:
            return False
        if gone.is_symlink():
            gone.unlink()
        shutil.rmtree(gone, ignore_errors=True)  # `sweep` removes any remains
        sync_folder(self._folder)
        return True

    def sweep(self, before: int) -> int:  # noqa: ARG002
        """Remove every temporary folder that no process locks, whatever its age: its writer is dead."""
        return self._remove_abandoned()

    def _renew(self, place: Path) -> bool:
        """Update the modification time of a blob; return whether the blob exists."""
        with self._alone():
            try:
                os.utime(place, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the exclusive lock for removing and renewing blobs."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _folder_beside(self, digest: str) -> Iterator[Path]:
        """Yield a temporary folder, locked while its writer lives; remove it at the end unless it was renamed."""
        while True:
            beside = self._folder / f"{_PARTIAL}{digest}-{uuid4().hex}"
            beside.mkdir(mode=0o700)
            try:
                descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # removed as abandoned before it was locked
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if beside.exists():
                break
            os.close(descriptor)
        try:
            yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            os.close(descriptor)

    def _remove_abandoned(self) -> int:
        """Remove the temporary folders of dead writers, recognised by their free locks; return their number."""
        removed = 0
        for path in self._folder.glob(f"{_PARTIAL}*"):
            with suppress(OSError):  # a foreign file, or removed meanwhile
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
                finally:
                    os.close(descriptor)
        return removed


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(beside: Path, place: Path) -> None:
    try:
        beside.rename(place)
    except OSError as error:  # a concurrent writer stored the same blob
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _read(name: str, folder: int, what: str) -> bytes:
    what = f"{what}: the file {name!r}"
    descriptor = _open(name, os.O_NONBLOCK, what, "a plain file", folder)  # a pipe would block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(what, "a plain file")
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _open(path: Path | str, flags: int, what: str, kind: str, folder: int | None = None) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except FileNotFoundError:
        raise NotFound(f"{what} does not exist.") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise
        raise _refused(what, kind) from error


def _refused(what: str, kind: str) -> Corrupt:
    return Corrupt(f"{what} is not {kind}.", fix="remove it; links, folders and pipes are not allowed inside a blob.")
