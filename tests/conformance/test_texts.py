"""Text indexes in this process, and in files, as their port says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

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
