"""Vector indexes in this process, and in files, as their port says."""

from __future__ import annotations

import pytest

from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.conformance import VectorIndexConformance, VectorStoreConformance


class TestMemory(VectorIndexConformance, VectorStoreConformance):
    @pytest.fixture
    def store(self) -> MemoryVectorStore:
        return MemoryVectorStore()
