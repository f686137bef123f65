"""Blobs in an object store: S3 and compatible stores, Google Cloud Storage, Azure.

Under one prefix, a writer first creates its files as `parts/<digest>-<id>/<file>` and never overwrites any. It then
creates `whole/<digest>`, which names the parts that form the blob, so a blob exists as a whole or not at all, and one
of several concurrent writers wins. `condemned/<digest>` exists while a blob is being removed. A writer of the same blob
renews `whole/` and then checks for `condemned/`; a remover creates `condemned/` and then checks the age of `whole/`. So
one of the two always sees the other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.ids import check_id, new_id
from mainspring.core.json_content import decoded
from mainspring.core.object_store_url import NO_BUCKET, open_store, said_by_store
from mainspring.core.settings import Url
from mainspring.core.time import SECOND
from mainspring.registry.bundles import check_digest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_WHOLE, _PARTS, _CONDEMNED = "whole", "parts", "condemned"
_PART = re.compile(r"([0-9a-f]{64})-[0-9a-z]{26}")
_AT_ONCE = 8  # requests
_WAIT_S = 30  # maximum wait for a removal to end
_POLL_S = 0.2


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `whole/<digest>`: the prefix of the blob's files, and the size of each in bytes."""

    parts: str
    files: dict[str, int]


def open_objects(url: Url) -> ObjectBlobs:
    """Open the blob store at `s3://bucket/prefix?endpoint=https://...&region=...`, `gs://` or `az://container/prefix`.

    Credentials come from the environment variables of the provider's own tools (`AWS_ACCESS_KEY_ID` and so on).

    Raises:
        Invalid: The address has an unknown option, or would send credentials unencrypted to another machine.
    """
    return ObjectBlobs(open_store(url), url.shown)


class ObjectBlobs:
    """Blobs in `store`, an obstore store with a prefix of its own. `place` is its name in messages."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._place = place

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        check_digest(digest)
        for name in files:
            check_id(name, "file of a blob")
        end = time.monotonic() + _WAIT_S
        while not self._put_once(digest, files):
            if time.monotonic() > end:
                raise Conflict(
                    f"The blob {digest[:12]} is being removed from {self._place}.",
                    fix="run the command again; after an interrupted removal, run `mainspring models gc`.",
                )
            time.sleep(_POLL_S)

    def _put_once(self, digest: str, files: Mapping[str, bytes]) -> bool:
        """Store or renew the blob; return False if it is being removed, or was damaged, and `put` must retry."""
        with self._errors():
            marker = self._marker(digest)
            if marker is None:
                self._create(digest, files)
            else:  # written again to renew its modification time
                obstore.put(self._store, f"{_WHOLE}/{digest}", msgspec.json.encode(marker), use_multipart=False)
            if self._there(f"{_CONDEMNED}/{digest}"):
                return False
            marker = self._marker(digest)
            if marker is None:
                return False
            if self._sizes(marker.parts) != marker.files:  # removed between the first look and the renewal, or damaged
                obstore.delete(self._store, f"{_WHOLE}/{digest}")
                return False
            return True

    def _create(self, digest: str, files: Mapping[str, bytes]) -> None:
        parts = f"{digest}-{new_id()}"
        try:
            self._each(lambda name: self._create_object(f"{_PARTS}/{parts}/{name}", files[name]), files)
            marker = Marker(parts, {name: len(content) for name, content in files.items()})
            self._create_object(f"{_WHOLE}/{digest}", msgspec.json.encode(marker))
            found = self._marker(digest)
        except BaseException:
            with suppress(Exception):  # `sweep` removes any remains
                self._remove_parts(parts)
            raise
        if found is not None and found.parts != parts:  # a concurrent writer won
            self._remove_parts(parts)

    def get(self, digest: str) -> Mapping[str, bytes]:
        what = f"The blob {check_digest(digest)[:12]}"
        with self._errors():
            marker = self._marker(digest)
            names = [] if marker is None else [check_name(name, what) for name in self._sizes(marker.parts)]
            if marker is None or not names:
                raise NotFound(f"{what} does not exist.")
            try:
                contents = self._each(lambda name: self._read(f"{_PARTS}/{marker.parts}/{name}"), names)
            except FileNotFoundError:
                raise NotFound(f"{what} was removed during the read.") from None
            return dict(zip(names, contents, strict=True))

    def all(self) -> list[str]:
        return sorted(self.stored())

    def stored(self) -> dict[str, int]:
        found = {}
        with self._errors():
            for each in self._list(_WHOLE):
                digest = each["path"].rpartition("/")[2]
                with suppress(Invalid):  # a foreign object
                    found[check_digest(digest)] = _instant(each)
        return found

    def delete(self, digest: str, *, stored_before: int | None = None) -> bool:
        check_digest(digest)
        condemned = f"{_CONDEMNED}/{digest}"
        with self._errors():
            obstore.put(self._store, condemned, b"", use_multipart=False)
            try:
                marker = self._marker(digest)
                if marker is None:
                    return False
                head = obstore.head(self._store, f"{_WHOLE}/{digest}")
                if stored_before is not None and _instant(head) >= stored_before:
                    return False
                obstore.delete(self._store, f"{_WHOLE}/{digest}")  # from here on the blob is invisible
                self._remove_parts(marker.parts)
                return True
            except FileNotFoundError as error:  # a concurrent remover won
                if NO_BUCKET.search(str(error)):
                    raise
                return False
            finally:
                obstore.delete(self._store, condemned)

    def sweep(self, before: int) -> int:
        with self._errors():
            for each in self._list(_CONDEMNED):
                if _instant(each) < before:
                    obstore.delete(self._store, each["path"])
            newest: dict[str, int] = {}
            for each in self._list(_PARTS):
                parts = each["path"].split("/")[1]
                newest[parts] = max(newest.get(parts, 0), _instant(each))
            left = 0
            for parts, at in newest.items():
                digest = _PART.fullmatch(parts)
                if digest is None or at >= before:
                    continue
                marker = self._marker(digest[1])
                if marker is None or marker.parts != parts:
                    self._remove_parts(parts)
                    left += 1
            return left

    def _marker(self, digest: str) -> Marker | None:
        try:
            content = self._read(f"{_WHOLE}/{digest}")
        except FileNotFoundError as error:
            if NO_BUCKET.search(str(error)):
                raise
            return None
        try:
            marker = decoded(content, Marker)
        except msgspec.DecodeError as error:
            raise _damaged(f"The blob {digest[:12]} has a damaged entry: {error}.") from error
        found = _PART.fullmatch(marker.parts)
        if found is None or found[1] != digest:
            raise _damaged(f"The entry of the blob {digest[:12]} points to another place, {marker.parts[:80]!r}.")
        return marker

    def _sizes(self, parts: str) -> dict[str, int]:
        prefix = f"{_PARTS}/{parts}/"
        return {each["path"].removeprefix(prefix): each["size"] for each in self._list(f"{_PARTS}/{parts}")}

    def _list(self, prefix: str) -> Iterator[Any]:
        for page in obstore.list(self._store, prefix):
            yield from page

    def _read(self, path: str) -> bytes:
        return bytes(obstore.get(self._store, path).bytes())

    def _there(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def _create_object(self, path: str, content: bytes) -> None:
        # A retried request may have created it already; the caller reads back which writer won.
        with suppress(AlreadyExistsError):
            obstore.put(self._store, path, content, mode="create", use_multipart=False)

    def _remove_parts(self, parts: str) -> None:
        paths = [each["path"] for each in self._list(f"{_PARTS}/{parts}")]
        self._each(lambda path: obstore.delete(self._store, path), paths)

    def _each(self, act: Any, over: Any) -> list[Any]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(act, over))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate the store's errors inside the block into Mainspring's."""
        try:
            yield
        except (BaseError, FileNotFoundError, PermissionError) as error:
            raise said_by_store(error, self._place, "blobs") from error


def check_name(name: str, what: str) -> str:
    """Return a file name read from the store, if it is valid.

    Raises:
        Corrupt: No blob can hold a file of that name.
    """
    try:
        return check_id(name, "file of a blob")
    except Invalid:
        raise _damaged(f"{what} has a file {name[:80]!r}, which is not allowed in a blob.") from None


def _instant(found: Any) -> int:
    return int(found["last_modified"].timestamp() * SECOND)


def _damaged(what: str) -> Corrupt:
    return Corrupt(what, fix="restore the bundle from a backup, or train the model again.")
