"""The registry's adapters against its conformance suites."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.core.errors import Conflict
from mainspring.registry.adapters.catalog import CatalogApprovals, CatalogDeletions, CatalogTrustedKeys, CatalogWaivers
from mainspring.registry.adapters.folder import FolderBlobs
from mainspring.registry.adapters.memory import MemoryBlobs, MemoryTracking, MemoryVersions
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.adapters.mlflow_versions import MlflowVersions
from mainspring.registry.adapters.objects import ObjectBlobs
from mainspring.registry.adapters.sealed import SealedBlobs
from mainspring.registry.conformance import (
    ApprovalsConformance,
    BlobsConformance,
    DeletionsConformance,
    TrackingConformance,
    TrustedKeysConformance,
    VersionsConformance,
    WaiversConformance,
)
from mainspring.registry.model import AliasMove
from mainspring.security.data_keys import OneKey


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MLflow database without runs: making one takes a second, copying it does not."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    store = MlflowTracking(f"sqlite:///{path}", path.parent / "runs")
    assert store.search() == []
    store.close()
    return path.read_bytes()


@pytest.fixture
def store_url(tmp_path: Path, empty_store: bytes) -> str:
    (tmp_path / "tracking.db").write_bytes(empty_store)
    return f"sqlite:///{tmp_path / 'tracking.db'}"


class TestMemoryTracking(TrackingConformance):
    @pytest.fixture
    def tracking(self) -> MemoryTracking:
        return MemoryTracking()


class TestMlflowTracking(TrackingConformance):
    @pytest.fixture
    def tracking(self, store_url: str, tmp_path: Path) -> MlflowTracking:
        return MlflowTracking(store_url, tmp_path / "runs")


class TestMemoryVersions(VersionsConformance):
    @pytest.fixture
    def versions(self) -> MemoryVersions:
        return MemoryVersions()


@pytest.mark.parametrize("catalog", ["file"], indirect=True)
class TestMlflowVersions(VersionsConformance):
    @pytest.fixture
    def versions(self, store_url: str, catalog: sa.Engine) -> MlflowVersions:
        return MlflowVersions(store_url, catalog)


@pytest.mark.parametrize("catalog", ["memory"], indirect=True)
def test_versions_in_mlflow_take_a_catalog_in_memory(store_url: str, catalog: sa.Engine) -> None:
    versions = MlflowVersions(store_url, catalog)
    version = versions.register("late", "a" * 64, "run", {}, 1)
    versions.set_alias(AliasMove("late", "champion", None, version.version, "ana", "", 2))
    versions.set_alias(AliasMove("late", "champion", version.version, version.version, "ana", "again", 3))
    with pytest.raises(Conflict, match="champion"):
        versions.remove("late", version.version)


class TestMemoryBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self) -> MemoryBlobs:
        return MemoryBlobs()


class TestSealedBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self) -> SealedBlobs:
        return SealedBlobs(MemoryBlobs(), OneKey(), encrypt=True)


class TestFolderBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> FolderBlobs:
        return FolderBlobs(tmp_path / "blobs")


class TestS3Blobs(BlobsConformance):
    @pytest.fixture
    def blobs(self, s3_blobs: ObjectBlobs) -> ObjectBlobs:
        return s3_blobs


class TestObjectBlobs(BlobsConformance):
    """The same without a server: another store's clock, and no latency between two requests."""

    @pytest.fixture
    def blobs(self) -> ObjectBlobs:
        from obstore.store import MemoryStore

        return ObjectBlobs(MemoryStore(), "memory")


class TestCatalogApprovals(ApprovalsConformance):
    @pytest.fixture
    def approvals(self, catalog: sa.Engine) -> CatalogApprovals:
        return CatalogApprovals(catalog)


class TestCatalogDeletions(DeletionsConformance):
    @pytest.fixture
    def deletions(self, catalog: sa.Engine) -> CatalogDeletions:
        return CatalogDeletions(catalog)


class TestCatalogTrustedKeys(TrustedKeysConformance):
    @pytest.fixture
    def trusted(self, catalog: sa.Engine) -> CatalogTrustedKeys:
        return CatalogTrustedKeys(catalog)


class TestCatalogWaivers(WaiversConformance):
    @pytest.fixture
    def waivers(self, catalog: sa.Engine) -> CatalogWaivers:
        return CatalogWaivers(catalog)
