"""Every adapter of serving's ports, against the shared suite."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mainspring.core.catalog import metadata, open_engine
from mainspring.serving.adapters.catalog import CatalogBaselines, CatalogRoutes
from mainspring.serving.adapters.memory import MemoryBaselines, MemoryRoutes
from mainspring.serving.conformance import RoutesConformance
from mainspring.serving.conformance.baselines import BaselinesConformance
from mainspring.serving.ports import Baselines, Routes


class TestMemoryRoutes(RoutesConformance):
    @pytest.fixture
    def routes(self) -> Routes:
        return MemoryRoutes()

    @pytest.fixture
    def same(self, routes: Routes) -> Callable[[], Routes]:
        return lambda: routes


@pytest.fixture
def engine(tmp_path: Path):
    engine = open_engine(f"sqlite:///{tmp_path}/catalog.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


class TestCatalogRoutes(RoutesConformance):
    @pytest.fixture
    def routes(self, engine) -> Routes:
        return CatalogRoutes(engine)

    @pytest.fixture
    def same(self, engine) -> Callable[[], Routes]:
        return lambda: CatalogRoutes(engine)


class TestMemoryBaselines(BaselinesConformance):
    @pytest.fixture
    def baselines(self) -> Baselines:
        return MemoryBaselines()


class TestCatalogBaselines(BaselinesConformance):
    @pytest.fixture
    def baselines(self, engine) -> Baselines:
        return CatalogBaselines(engine)
