"""Every adapter of the data package's ports, against the shared suites."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.depth import DEEP
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.conformance import LakeTablesConformance, SnapshotsConformance
from mainspring.data.sealed import SealedLake
from mainspring.security.data_keys import OneKey


class TestMemoryLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self) -> MemoryLake:
        return MemoryLake()


class TestDeltaLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self, tmp_path: Path) -> DeltaLake:
        return DeltaLake(tmp_path / "a lake, 100% ûnusual")


@pytest.mark.parametrize("kind", ["memory", "delta"] if DEEP else ["memory"])
class TestSealedLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self, kind: str, tmp_path: Path) -> SealedLake:
        lake = MemoryLake() if kind == "memory" else DeltaLake(tmp_path)
        return SealedLake(lake, OneKey(), lambda _, __: ("depDelay",))


class TestCatalogSnapshots(SnapshotsConformance):
    @pytest.fixture
    def snapshots(self, catalog: sa.Engine) -> CatalogSnapshots:
        return CatalogSnapshots(catalog)
