"""Every place for windows behaves alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.core.catalog import metadata, open_engine
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.incidents import CatalogIncidents
from mainspring.monitoring.adapters.service import CatalogService
from mainspring.monitoring.conformance import MonitorStoreConformance
from mainspring.monitoring.incidents.conformance import IncidentStoreConformance
from mainspring.monitoring.model import Window
from mainspring.monitoring.ports import MonitorStore
from mainspring.monitoring.service.conformance import ServiceStoreConformance
from mainspring.monitoring.service.ports import ServiceStore


class TestCatalogMonitors(MonitorStoreConformance):
    @pytest.fixture
    def monitors(self, catalog: sa.Engine) -> MonitorStore:
        return CatalogMonitors(catalog)

    def test_another_process_sees_what_was_saved(self, tmp_path: Path) -> None:
        address = f"sqlite:///{tmp_path / 'catalog.db'}"
        engine = open_engine(address)
        metadata.create_all(engine)
        window = Window(
            endpoint="a", start=1, end=2, predictions=0, p50_ms=None, p99_ms=None, labels=0, coverage=0.0,
            lag_p50_s=None, quality={}, columns=(), versions={},
        )  # fmt: skip
        CatalogMonitors(engine).save([window])
        engine.dispose()
        assert CatalogMonitors(open_engine(address)).windows("a") == [window]


class TestCatalogIncidents(IncidentStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogIncidents:
        return CatalogIncidents(catalog, "lake")

    @pytest.fixture
    def elsewhere(self, catalog: sa.Engine) -> CatalogIncidents:
        return CatalogIncidents(catalog, "another")


class TestCatalogService(ServiceStoreConformance):
    @pytest.fixture
    def service(self, catalog: sa.Engine) -> ServiceStore:
        return CatalogService(catalog)
