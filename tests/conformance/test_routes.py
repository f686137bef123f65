"""Every adapter of serving's ports, against the shared suite."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mainspring.core.catalog import metadata, open_engine
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.adapters.memory import MemoryRoutes
from mainspring.serving.conformance import RoutesConformance
from mainspring.serving.ports import Routes


class TestMemoryRoutes(RoutesConformance):
    @pytest.fixture
    def routes(self) -> Routes:
        return MemoryRoutes()

    @pytest.fixture
    def same(self, routes: Routes) -> Callable[[], Routes]:
        return lambda: routes


class TestCatalogRoutes(RoutesConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path):
        engine = open_engine(f"sqlite:///{tmp_path}/catalog.db")
        metadata.create_all(engine)
        yield engine
        engine.dispose()

    @pytest.fixture
    def routes(self, engine) -> Routes:
        return CatalogRoutes(engine)

    @pytest.fixture
    def same(self, engine) -> Callable[[], Routes]:
        return lambda: CatalogRoutes(engine)
