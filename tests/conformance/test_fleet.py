"""Every `FleetStore`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mainspring.deploy.adapters.fleet_catalog import CatalogFleet
from mainspring.deploy.fleet.conformance import FleetStoreConformance
from mainspring.project.catalog import memory_catalog


class TestCatalogFleet(FleetStoreConformance):
    @pytest.fixture
    def store(self) -> Iterator[CatalogFleet]:
        engine = memory_catalog()
        yield CatalogFleet(engine)
        engine.dispose()
