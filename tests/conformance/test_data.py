"""Every adapter of the data package's ports, against the shared suites."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.conformance import LakeTablesConformance, SnapshotsConformance


class TestMemoryLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self) -> MemoryLake:
        return MemoryLake()


class TestDeltaLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self, tmp_path: Path) -> DeltaLake:
        return DeltaLake(tmp_path / "a lake, 100% ûnusual")


class TestCatalogSnapshots(SnapshotsConformance):
    @pytest.fixture
    def snapshots(self, catalog: sa.Engine) -> CatalogSnapshots:
        return CatalogSnapshots(catalog)
