"""Vector indexes in this process, and in files, as their port says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.conformance import VectorIndexConformance, VectorStoreConformance


class TestMemory(VectorIndexConformance, VectorStoreConformance):
    @pytest.fixture
    def store(self) -> MemoryVectorStore:
        return MemoryVectorStore()


class _Embedded(VectorIndexConformance, VectorStoreConformance):
    approximate_above: int | None = None

    @pytest.fixture
    def store(self, tmp_path: Path) -> EmbeddedVectorStore:
        return EmbeddedVectorStore(tmp_path / "vectors", approximate_above=self.approximate_above)

    @pytest.fixture
    def beside(self, tmp_path: Path) -> EmbeddedVectorStore:
        return EmbeddedVectorStore(tmp_path / "vectors", approximate_above=self.approximate_above)

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Callable[[], Iterable[bytes]]:
        return lambda: (path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


class TestExact(_Embedded):
    """Searches of an embedded index below a size."""


class TestApproximate(_Embedded):
    """Searches of an embedded index with a graph."""

    approximate_above = 200
    least_recall = 0.98
    entries = 8_000
