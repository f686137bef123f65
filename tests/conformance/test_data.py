"""Every adapter of the data package's ports, against the shared suites."""

from pathlib import Path

import pytest

from mainspring.core.catalog import metadata, open_engine
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake, MemorySnapshots
from mainspring.data.conformance import LakeTablesConformance, SnapshotsConformance


class TestMemoryLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self) -> MemoryLake:
        return MemoryLake()


class TestDeltaLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self, tmp_path: Path) -> DeltaLake:
        return DeltaLake(tmp_path / "a lake, 100% ûnusual")


class TestMemorySnapshots(SnapshotsConformance):
    @pytest.fixture
    def snapshots(self) -> MemorySnapshots:
        return MemorySnapshots()


class TestCatalogSnapshots(SnapshotsConformance):
    @pytest.fixture(params=["file", "memory"])
    def snapshots(self, request: pytest.FixtureRequest, tmp_path: Path):
        engine = open_engine(f"sqlite:///{tmp_path}/catalog.db" if request.param == "file" else "sqlite://")
        metadata.create_all(engine)
        yield CatalogSnapshots(engine)
        engine.dispose()
