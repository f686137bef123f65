"""Blobs in a folder of this machine: one folder a blob, named by its digest."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from mainspring.core.errors import Corrupt, NotFound
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.ids import check_id
from mainspring.registry.bundles import check_digest

_PARTIAL = ".partial-"


class FolderBlobs:
    """Blobs under `folder`, private to the user. A blob is written beside, synced, and renamed into place whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        place = self._folder / check_digest(digest)
        if place.exists():
            return
        with disk_errors(place):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = self._folder / f"{_PARTIAL}{digest}-{uuid4().hex}"
            beside.mkdir(mode=0o700)
            try:
                for name, content in files.items():
                    _write(beside / check_id(name, "file of a blob"), content)
                sync_folder(beside)
                _rename(beside, place)
                sync_folder(self._folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)

    def get(self, digest: str) -> Mapping[str, bytes]:
        place = self._folder / check_digest(digest)
        _check_kind(place, stat.S_ISDIR, f"The blob {digest[:12]}", "a folder")
        with os.scandir(place) as entries:
            names = sorted(entry.name for entry in entries)
        return {name: _read(place / name) for name in names}

    def all(self) -> list[str]:
        if not self._folder.exists():
            return []
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))

    def delete(self, digest: str) -> None:
        place = self._folder / check_digest(digest)
        gone = self._folder / f"{_PARTIAL}{digest}-{uuid4().hex}"
        try:
            place.rename(gone)  # a reader sees the blob whole or not at all
        except FileNotFoundError:
            return
        shutil.rmtree(gone)
        sync_folder(self._folder)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(beside: Path, place: Path) -> None:
    try:
        beside.rename(place)
    except OSError as error:  # somebody else stored the same blob meanwhile
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _read(path: Path) -> bytes:
    what = f"The file {path.name!r} of blob {path.parent.name[:12]}"
    _check_kind(path, stat.S_ISREG, what, "a plain file")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Corrupt(f"{what} cannot be read: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _check_kind(path: Path, wanted: object, what: str, kind: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        raise NotFound(f"{what} does not exist.") from None
    if not callable(wanted) or not wanted(mode):
        raise Corrupt(f"{what} is not {kind}.", fix="remove it; links and folders inside a blob are refused.")
