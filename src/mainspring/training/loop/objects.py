"""Checkpoints under a prefix of an S3 bucket, by way of a scratch folder of this machine.

Objects appear as a whole. The object `owner` says which training has the prefix: each checkpoint renews it, on the
condition that it is as this training left it, so that one that was taken over stores no more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mainspring.core.errors import Conflict, Invalid, MainspringError, MissingExtra, StorageFull
from mainspring.core.files import disk_errors
from mainspring.core.object_store_url import Bucket, open_store, store_errors
from mainspring.core.settings import Url
from mainspring.training.loop.shelf import CORRUPT, FolderShelf, Shelf

_OWNER = "owner"
_MULTIPART = 32 << 20  # bytes of an object that is sent in several requests
T = TypeVar("T")


def shelf_of(checkpoints: Path | str, folder: str) -> Shelf:
    """Return the files in a folder of `checkpoints`, which is itself one, or an address `s3://bucket/prefix`."""
    if isinstance(checkpoints, str) and "://" in checkpoints:
        return ObjectShelf(checkpoints, folder)
    return FolderShelf(Path(checkpoints) / folder)


def below(checkpoints: Path | str, name: str) -> Path | str:
    """Return the address of a folder, or of a prefix, in a place of checkpoints."""
    if isinstance(checkpoints, str) and "://" in checkpoints:
        address, mark, options = checkpoints.partition("?")
        return f"{address.rstrip('/')}/{name}{mark}{options}"
    return Path(checkpoints) / name


def remove_all(checkpoints: Path | str) -> None:
    """Remove all files of a place of checkpoints."""
    if isinstance(checkpoints, str) and "://" in checkpoints:
        shelf = ObjectShelf(checkpoints, "")
        for name in shelf.names():
            shelf.remove(name)
    else:
        shutil.rmtree(checkpoints, ignore_errors=True)


class ObjectShelf:
    """A prefix at `s3://bucket/prefix?endpoint=https://...&region=...`.

    Credentials come from the environment variables of the provider's own tools (`AWS_ACCESS_KEY_ID` and so on). The
    scratch folder has room for this process's part of a checkpoint, and for what it reads of one.

    Raises:
        Invalid: The address is none of S3, has an unknown option, or would send credentials in clear.
        MissingExtra: obstore is not installed.
    """

    def __init__(self, address: str, folder: str) -> None:
        url = Url(address)
        if url.scheme != "s3":
            raise Invalid(f"Checkpoints cannot lie at {url.shown}.", fix="use a folder, or s3://bucket/prefix.")
        try:
            import obstore
        except ModuleNotFoundError as error:
            raise MissingExtra("Checkpoints in an object store", "objects") from error
        bucket = Bucket.parse(url)
        self._api: Any = obstore
        self._store = open_store(url, folder)
        self._shown = f"{url.scheme}://{bucket.name}/{bucket.prefix}/{folder}"
        self._folder = Path(tempfile.mkdtemp(prefix="mainspring-checkpoints-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._owned: dict[str, Any] | None = None

    def shown(self, name: str = "") -> str:
        return f"{self._shown}/{name}"

    @contextmanager
    def hold(self) -> Iterator[None]:
        with store_errors(self._shown, "checkpoints"):
            self._own(None)
        yield

    def names(self) -> list[str]:
        with store_errors(self._shown, "checkpoints"):
            return sorted(each["path"] for page in self._api.list(self._store) for each in page)

    def put(self, name: str, write: Callable[[Path], T], *, last: bool = False) -> T:
        path = self._folder / f"{name}.{os.urandom(6).hex()}"
        try:
            with disk_errors(path):
                done = write(path)
            with store_errors(self._shown, "checkpoints"):
                if last and self._owned is not None:
                    self._own(self._owned)
                self._api.put(self._store, name, path, use_multipart=path.stat().st_size > _MULTIPART)
        except (Conflict, StorageFull, OSError):
            raise
        except MainspringError as error:  # training goes on without this checkpoint
            raise OSError(error.what) from error
        finally:
            path.unlink(missing_ok=True)
        return done

    def _own(self, before: dict[str, Any] | None) -> None:
        """Become the owner, or stay so if nobody else became it since."""
        from obstore.exceptions import PreconditionError

        mode, own = "overwrite" if before is None else before, os.urandom(16)
        try:
            done = self._api.put(self._store, _OWNER, own, mode=mode, use_multipart=False)
        except PreconditionError as error:
            done = self._api.get(self._store, _OWNER)
            if bytes(done.bytes()) != own:  # else the answer to the first of two tries was lost
                raise Conflict(
                    f"Another training uses the checkpoints in {self._shown} by now.",
                    fix="stop one of the two, or give it another prefix.",
                ) from error
            done = done.meta
        self._owned = {name: done[name] for name in ("e_tag", "version") if done.get(name)}

    def has(self, name: str) -> bool:
        with store_errors(self._shown, "checkpoints"):
            try:
                self._api.head(self._store, name)
            except FileNotFoundError:
                return False
            return True

    def local(self, name: str) -> Path:
        path = self._folder / name
        if path.exists() and name.count(".") > 1:  # a part, of which there is never another of that name
            return path
        try:
            with store_errors(self._shown, "checkpoints"), path.open("wb") as file:
                for piece in self._api.get(self._store, name).stream(min_chunk_size=1 << 20):
                    file.write(piece)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def remove(self, name: str) -> None:
        with store_errors(self._shown, "checkpoints"), suppress(FileNotFoundError):
            self._api.delete(self._store, name)

    def set_aside(self, name: str) -> None:
        with store_errors(self._shown, "checkpoints"), suppress(FileNotFoundError):
            self._api.rename(self._store, name, f"{name.partition('.')[0]}{CORRUPT}")
