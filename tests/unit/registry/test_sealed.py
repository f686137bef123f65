"""Encrypted bundles: what a reader of the store sees, moves and changes."""

from __future__ import annotations

import pytest

from mainspring.core.errors import Corrupt
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.adapters.sealed import SealedBlobs
from mainspring.security.data_keys import OneKey

FILES = {"manifest.json": b"{}", "model.onnx": b"weights" * 100_000, "empty": b""}
DIGEST, OTHER = "a" * 64, "b" * 64
KEY = OneKey()


def test_the_store_has_ciphertext_and_readers_have_files() -> None:
    store = MemoryBlobs()
    SealedBlobs(store, KEY, encrypt=True).put(DIGEST, FILES)
    assert b"weights" not in b"".join(store.get(DIGEST).values())
    for encrypt in (True, False):  # the setting is for what is written
        assert SealedBlobs(store, KEY, encrypt=encrypt).get(DIGEST) == FILES
    with pytest.raises(Corrupt):
        SealedBlobs(store, OneKey(bytes(32)), encrypt=True).get(DIGEST)


def test_files_from_before_are_read() -> None:
    store = MemoryBlobs()
    SealedBlobs(store, KEY, encrypt=False).put(DIGEST, FILES)
    assert store.get(DIGEST) == FILES
    assert SealedBlobs(store, KEY, encrypt=True).get(DIGEST) == FILES


def test_a_file_opens_in_no_other_place() -> None:
    store = MemoryBlobs()
    blobs = SealedBlobs(store, KEY, encrypt=True)
    blobs.put(DIGEST, FILES)
    sealed = store.get(DIGEST)
    for digest, files in (
        (OTHER, sealed),
        (DIGEST, {**sealed, "model.onnx": sealed["manifest.json"]}),
        (DIGEST, {**sealed, "model.onnx": sealed["model.onnx"][:-1]}),
    ):
        moved = MemoryBlobs()
        moved.put(digest, files)
        with pytest.raises(Corrupt):
            SealedBlobs(moved, KEY, encrypt=True).get(digest)
