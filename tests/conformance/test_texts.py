"""Text indexes in this process, and in files, as their port says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from mainspring.vectors.adapters.memory_text import MemoryTextStore
from mainspring.vectors.adapters.tantivy import TantivyTextStore
from mainspring.vectors.conformance_text import TextIndexConformance


class TestMemory(TextIndexConformance):
    @pytest.fixture
    def store(self) -> MemoryTextStore:
        return MemoryTextStore()


class TestTantivy(TextIndexConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> TantivyTextStore:
        return TantivyTextStore(tmp_path / "texts")

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Callable[[], Iterable[bytes]]:
        return lambda: [each.read_bytes() for each in (tmp_path / "texts").rglob("*") if each.is_file()]


def test_a_write_that_was_cut_off_before_its_commit_can_be_repeated(tmp_path: Path) -> None:
    index = TantivyTextStore(tmp_path / "texts").create("i", {})
    index.upsert(["a", "b"], ["one word", "two words"], {})
    at = tmp_path / "texts" / "i" / (tmp_path / "texts" / "i" / "current").read_text()
    before = Path(shutil.copytree(at, tmp_path / "before"))
    index.delete(["a"])
    assert list(at.glob("*.del"))
    managed = {name for folder in (at, before) for name in msgspec.json.decode((folder / ".managed.json").read_bytes())}
    shutil.copytree(before, at, dirs_exist_ok=True)  # as a kill leaves it: with the new files, and not in meta.json
    (at / ".managed.json").write_bytes(msgspec.json.encode(managed))
    index = TantivyTextStore(tmp_path / "texts").open("i")
    assert index.count() == 2
    assert index.delete(["a"]) == 1
    assert [[hit.id for hit in hits] for hits in index.search(["one", "two"], 5)] == [[], ["b"]]
