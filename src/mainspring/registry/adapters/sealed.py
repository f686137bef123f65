"""Encryption in front of a blob store. Digests and signatures are over the plain files, so nothing else notices."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.registry.ports import Blobs
from mainspring.security import envelopes
from mainspring.security.ports import Keys

BUNDLES = "bundles"  # purpose of the data keys, and name of the store in envelopes


class SealedBlobs:
    """`Blobs` of `store`, each file in an envelope for its blob and name. Files that are none are read as they are.

    Args:
        encrypt: Whether new blobs are encrypted; all can be read.
    """

    def __init__(self, store: Blobs, keys: Keys, *, encrypt: bool) -> None:
        self._store = store
        self._keys = keys
        self._encrypt = encrypt
        self.all, self.stored, self.delete, self.sweep = store.all, store.stored, store.delete, store.sweep

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        if self._encrypt:
            key = self._keys.newest(BUNDLES)
            files = {name: envelopes.seal(key, BUNDLES, f"{digest}/{name}", each) for name, each in files.items()}
        self._store.put(digest, files)

    def get(self, digest: str) -> Mapping[str, bytes]:
        files = self._store.get(digest)
        sealed = [name for name, content in files.items() if content.startswith(envelopes.MAGIC)]
        if not sealed:
            return files
        secrets = self._keys.secrets([envelopes.key_of(files[name]) for name in sealed])
        opened = {
            name: envelopes.unseal(secret, BUNDLES, f"{digest}/{name}", files[name])
            for name, secret in zip(sealed, secrets, strict=True)
        }
        return {**files, **opened}
