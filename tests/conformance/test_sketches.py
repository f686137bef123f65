"""Every `SketchStore`."""

from pathlib import Path

import pytest

from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.conformance import SketchStoreConformance
from mainspring.monitoring.ports import SketchStore


class TestMemorySketches(SketchStoreConformance):
    @pytest.fixture
    def sketches(self) -> SketchStore:
        return MemorySketches()


class TestLakeSketches(SketchStoreConformance):
    @pytest.fixture(params=["memory", "delta"])
    def sketches(self, request: pytest.FixtureRequest, tmp_path: Path) -> SketchStore:
        return LakeSketches(MemoryLake() if request.param == "memory" else DeltaLake(tmp_path), fold_every=4)
