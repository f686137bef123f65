"""Every adapter of serving's ports, against the shared suite."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from mainspring.serving.adapters.catalog import CatalogBaselines, CatalogRoutes, CatalogSimulations
from mainspring.serving.conformance import RoutesConformance
from mainspring.serving.conformance.baselines import BaselinesConformance
from mainspring.serving.conformance.simulations import SimulationsConformance
from mainspring.serving.ports import Baselines, Routes


class TestCatalogRoutes(RoutesConformance):
    @pytest.fixture
    def routes(self, catalog: sa.Engine) -> Routes:
        return CatalogRoutes(catalog)

    @pytest.fixture
    def same(self, catalog: sa.Engine) -> Callable[[], Routes]:
        return lambda: CatalogRoutes(catalog)


class TestCatalogBaselines(BaselinesConformance):
    @pytest.fixture
    def baselines(self, catalog: sa.Engine) -> Baselines:
        return CatalogBaselines(catalog)


class TestCatalogSimulations(SimulationsConformance):
    @pytest.fixture
    def simulations(self, catalog: sa.Engine) -> CatalogSimulations:
        return CatalogSimulations(catalog)
