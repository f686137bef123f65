"""A local cache in front of a remote blob store. Blobs are immutable, so a cached copy never becomes stale."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.registry.bundles import MANIFEST, sha256
from mainspring.registry.model import Manifest
from mainspring.registry.ports import Blobs

_MOST = 16  # blobs in the cache; the least recently read are evicted

_log = logging.getLogger(__name__)


class KeptBlobs:
    """`Blobs` of `store`, with `near` as a read-through cache.

    A damaged copy in `near` is read again from `store`. A blob that another machine deleted from `store` may still be
    served from `near`.
    """

    def __init__(self, store: Blobs, near: Blobs) -> None:
        self._store = store
        self._near = near
        self.put, self.all, self.stored, self.sweep = store.put, store.all, store.stored, store.sweep

    def get(self, digest: str) -> Mapping[str, bytes]:
        with suppress(MainspringError, OSError):
            files = self._near.get(digest)
            if _whole(digest, files):
                self._keep(digest, files)
                return files
            _log.warning("The local copy of bundle %s is damaged: it is fetched again.", digest[:12])
        with suppress(MainspringError, OSError):
            self._near.delete(digest)
        files = self._store.get(digest)
        if _whole(digest, files):
            self._keep(digest, files)
        return files

    def delete(self, digest: str, *, stored_before: int | None = None) -> bool:
        deleted = self._store.delete(digest, stored_before=stored_before)
        if deleted:
            self._near.delete(digest)
        return deleted

    def _keep(self, digest: str, files: Mapping[str, bytes]) -> None:
        try:
            self._near.put(digest, files)
            youngest_first = sorted(self._near.stored().items(), key=lambda each: -each[1])
            for old, _ in youngest_first[_MOST:]:
                self._near.delete(old)
        except (MainspringError, OSError) as error:
            _log.warning("Bundle %s was not copied to this machine: %s", digest[:12], error)


def _whole(digest: str, files: Mapping[str, bytes]) -> bool:
    """Return whether the manifest matches `digest` and every listed file matches its hash; the signature is not
    checked.
    """
    content = files.get(MANIFEST, b"")
    if sha256(content) != digest:
        return False
    try:
        listed = msgspec.json.decode(content, type=Manifest).files
    except msgspec.DecodeError:
        return False
    return all(name in files and sha256(files[name]) == expected for name, expected in listed.items())
