"""Conformance suite of blob stores."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.ports import Blobs

A, B = "a" * 64, "b" * 64


class BlobsConformance:
    """The fixture `blobs` is an empty store."""

    def test_what_is_put_comes_back(self, blobs: Blobs) -> None:
        files = {"model.onnx": bytes(range(256)), "manifest.json": b"", "signature": b"s"}
        blobs.put(A, files)
        assert dict(blobs.get(A)) == files

    def test_a_blob_never_changes(self, blobs: Blobs) -> None:
        blobs.put(A, {"x": b"1"})
        blobs.put(A, {"x": b"2", "y": b"3"})
        assert dict(blobs.get(A)) == {"x": b"1"}

    def test_put_at_once_is_there_once(self, blobs: Blobs) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: blobs.put(A, {"x": b"1" * 100_000, "y": b"2"}), range(16)))
        assert dict(blobs.get(A)) == {"x": b"1" * 100_000, "y": b"2"}
        assert blobs.all() == [A]

    def test_of_different_puts_at_once_one_is_there_whole(self, blobs: Blobs) -> None:
        made = [{"x": bytes([number]) * 10_000, f"y{number}": b"2"} for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda files: blobs.put(A, files), made))
        assert dict(blobs.get(A)) in made

    def test_all_and_delete(self, blobs: Blobs) -> None:
        assert blobs.all() == []
        blobs.put(B, {"x": b"1"})
        blobs.put(A, {"x": b"1"})
        assert sorted(blobs.all()) == [A, B]
        assert blobs.delete(A)
        assert not blobs.delete(A)
        assert blobs.all() == [B]
        with pytest.raises(NotFound):
            blobs.get(A)
        blobs.put(A, {"x": b"another"})
        assert dict(blobs.get(A)) == {"x": b"another"}

    def test_a_blob_is_as_old_as_its_last_put(self, blobs: Blobs) -> None:
        blobs.put(A, {"x": b"1"})
        (at,) = blobs.stored().values()
        assert not blobs.delete(A, stored_before=at)
        assert dict(blobs.get(A)) == {"x": b"1"}
        end = time.monotonic() + 30
        while blobs.stored()[A] == at and time.monotonic() < end:  # some stores' clocks tick once a second
            blobs.put(A, {"x": b"1"})
        assert at < blobs.stored()[A]
        assert not blobs.delete(A, stored_before=at + 1)
        assert blobs.delete(A, stored_before=blobs.stored()[A] + 1)
        assert blobs.stored() == {}
        assert not blobs.delete(A, stored_before=at)

    def test_what_is_put_while_it_is_removed_is_there_afterwards(self, blobs: Blobs) -> None:
        """A conditional removal never deletes a blob that was put again after its age was read."""
        blobs.put(A, {"x": b"1"})
        for _ in range(5):
            with ThreadPoolExecutor(2) as pool:
                before = max(blobs.stored().values(), default=0)
                put = pool.submit(blobs.put, A, {"x": b"1"})
                gone = pool.submit(blobs.delete, A, stored_before=before + 1)
                put.result()
                gone.result()
            if not gone.result() or A in blobs.all():
                assert dict(blobs.get(A)) == {"x": b"1"}
            else:  # the put was within the same tick of the store's clock
                blobs.put(A, {"x": b"1"})

    def test_sweeping_leaves_whole_blobs_alone(self, blobs: Blobs) -> None:
        blobs.put(A, {"x": b"1"})
        blobs.sweep(blobs.stored()[A] + 10 * SECOND)
        assert dict(blobs.get(A)) == {"x": b"1"}

    @pytest.mark.parametrize("digest", ["../x", "", "A" * 64, "a" * 63, f"{'a' * 63}/", "a" * 65, f"{'a' * 64}\n"])
    def test_a_digest_is_no_path(self, blobs: Blobs, digest: str) -> None:
        with pytest.raises(Invalid):
            blobs.put(digest, {"x": b"1"})
        with pytest.raises(Invalid):
            blobs.get(digest)
        with pytest.raises(Invalid):
            blobs.delete(digest)

    @pytest.mark.parametrize("name", ["../x", "", "/x", "a/b", ".x"])
    def test_a_file_is_no_path(self, blobs: Blobs, name: str) -> None:
        with pytest.raises(Invalid):
            blobs.put(A, {name: b"1"})
        assert blobs.all() == []
