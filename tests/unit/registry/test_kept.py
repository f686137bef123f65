"""Blobs that are kept on this machine, while their store is there and when it is away."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from kit.serving import KEY, bundle
from mainspring.core.errors import Unavailable
from mainspring.registry.adapters.folder import FolderBlobs
from mainspring.registry.adapters.kept import KeptBlobs
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles


class Bucket(MemoryBlobs):
    """A store that can be away, and counts what is read from it."""

    away = False
    reads = 0

    def get(self, digest: str) -> Mapping[str, bytes]:
        if self.away:
            raise Unavailable("The bucket does not answer.")
        self.reads += 1
        return super().get(digest)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_a_bundle_that_was_read_is_there_when_its_store_is_away(bucket: Bucket, tmp_path: Path) -> None:
    made, other = bundle(), bundle(1.0)
    for each in (made, other):
        Bundles(bucket, KEY.public).save(each)
    assert Bundles(KeptBlobs(bucket, FolderBlobs(tmp_path)), KEY.public).load(made.digest).files == made.files
    bucket.away = True
    again = Bundles(KeptBlobs(bucket, FolderBlobs(tmp_path)), KEY.public)
    assert again.load(made.digest).files == made.files
    with pytest.raises(Unavailable):
        again.load(other.digest)


def test_a_damaged_copy_is_read_anew(bucket: Bucket, tmp_path: Path) -> None:
    made = bundle()
    Bundles(bucket, KEY.public).save(made)
    bundles = Bundles(KeptBlobs(bucket, FolderBlobs(tmp_path)), KEY.public)
    bundles.load(made.digest)
    (tmp_path / made.digest / "model.onnx").write_bytes(b"damaged")
    assert bundles.load(made.digest).files == made.files
    assert bundles.load(made.digest).files == made.files
    assert bucket.reads == 2


def test_only_the_youngest_are_kept(bucket: Bucket, tmp_path: Path) -> None:
    kept = KeptBlobs(bucket, FolderBlobs(tmp_path))
    bundles = Bundles(kept, KEY.public)
    made = [bundle(float(bias)) for bias in range(18)]
    for each in made:
        bundles.save(each)
        bundles.load(each.digest)
    assert len(list(tmp_path.glob("[0-9a-f]*"))) == 16
    assert (tmp_path / made[-1].digest).exists()
    assert kept.delete(made[-1].digest)
    assert not (tmp_path / made[-1].digest).exists()


class Unreadable(FolderBlobs):
    """A folder on a disk that fails."""

    def get(self, digest: str) -> Mapping[str, bytes]:
        raise OSError(errno.EIO, digest)


def test_a_bundle_is_read_from_its_store_where_this_machines_disk_fails(bucket: Bucket, tmp_path: Path) -> None:
    made = bundle()
    Bundles(bucket, KEY.public).save(made)
    assert Bundles(KeptBlobs(bucket, Unreadable(tmp_path)), KEY.public).load(made.digest).files == made.files
