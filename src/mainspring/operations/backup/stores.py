"""Stores of a repository's objects: a folder, or a prefix in an object store. An object is whole or not there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.core.errors import Conflict, Corrupt, Invalid, MissingExtra
from mainspring.core.files import disk_errors, make_folder, write_atomic
from mainspring.core.locks import FileLocks
from mainspring.core.object_store_url import OPTIONS, open_store, store_errors
from mainspring.core.settings import Url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LOCKS = ".locks"
_NO_FILE = (errno.ENOTDIR, errno.ENXIO, errno.ELOOP)
_LARGEST = 1 << 30  # bytes of an object, which is read whole


class ObjectStored(Protocol):
    """Objects by name; a name is made here of letters, digits, `-`, `.` and `/`, and never of what somebody sent.

    Attributes:
        shown: The store's address without secrets.
    """

    shown: str

    def put(self, name: str, content: bytes) -> None:
        """Write an object, durably, replacing one of its name.

        Raises:
            StorageFull: No space.
        """
        ...

    def get(self, name: str) -> bytes:
        """Return the content of an object.

        Raises:
            FileNotFoundError: There is none.
            Corrupt: It is far too large.
        """
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with a folder's, such as `pieces/`, in no order."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is no error."""
        ...

    def alone(self) -> AbstractContextManager[object]:
        """Exclude the writers of this machine.

        Raises:
            Conflict: One writes.
        """
        ...


class FolderObjects:
    """Objects as files of a folder, which only its owner may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shown = str(folder)

    def put(self, name: str, content: bytes) -> None:
        path = self._folder / name
        with disk_errors(path):
            for folder in reversed([self._folder / each for each in PurePath(name).parents]):  # from the outermost
                if not folder.is_dir():
                    make_folder(folder)
        write_atomic(path, content)

    def get(self, name: str) -> bytes:
        try:  # a pipe would block
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise FileNotFoundError(name) from error
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(name)
            _expect_size(f"{name} of {self.shown}", found.st_size)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)

    def names(self, prefix: str) -> Iterator[str]:
        for folder, _, files in os.walk(self._folder / prefix):
            within = Path(folder).relative_to(self._folder)
            yield from (str(within / each) for each in files if not each.endswith(".partial"))

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with FileLocks(self._folder / _LOCKS).hold("backup", wait_s=0):
            for each in self._folder.rglob(".*.partial"):
                each.unlink(missing_ok=True)  # of a writer that was killed
            yield


class BucketObjects:
    """Objects under a prefix of S3, of a store compatible with it, of Google Cloud Storage or of Azure."""

    def __init__(self, store: ObjectStore, shown: str) -> None:
        import obstore

        self._api: Any = obstore
        self._store = store
        self.shown = shown

    def put(self, name: str, content: bytes) -> None:
        with self._errors():
            self._api.put(self._store, name, content, use_multipart=False)

    def get(self, name: str) -> bytes:
        with self._errors():
            found = self._api.get(self._store, name)
            _expect_size(f"{name} of {self.shown}", found.meta["size"])
            return bytes(found.bytes())

    def names(self, prefix: str) -> Iterator[str]:
        with self._errors():
            for page in self._api.list(self._store, prefix.rstrip("/")):
                yield from (each["path"] for each in page)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), self._errors():
            self._api.delete(self._store, name)

    def alone(self) -> AbstractContextManager[object]:
        return nullcontext()  # the project's own lock excludes its other machines

    def _errors(self) -> AbstractContextManager[None]:
        return store_errors(self.shown, "the repository of backups")


def _expect_size(what: str, size: int) -> None:
    if size > _LARGEST:
        raise Corrupt(f"{what} has {size} bytes, which no object of a backup has.", fix="delete it.")


def open_objects(address: str, of: str = "A repository of backups") -> ObjectStored:
    """Open the store at a folder, or at `s3://bucket/prefix?endpoint=...&region=...`, `gs://` or `az://`.

    Args:
        of: What is kept there, for messages.

    Raises:
        Invalid: It is another address, or would send credentials in clear to another machine.
        Conflict: It is a file.
        MissingExtra: obstore is not installed.
    """
    if not address.strip():
        raise Invalid(f"{of} has no address.", fix="name a folder, or s3://bucket/prefix.")
    if "://" not in address:
        folder = Path(address).resolve()
        if folder.exists() and not folder.is_dir():
            raise Conflict(f"{folder} is a file.", fix="name a folder, or s3://bucket/prefix.")
        return FolderObjects(folder)
    url = Url(address)
    if url.scheme not in OPTIONS:
        raise Invalid(f"{of} cannot lie at {url.shown}.", fix="name a folder, or s3://bucket/prefix.")
    try:
        store = open_store(url)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{of} in an object store", "objects") from error
    return BucketObjects(store, url.shown)
