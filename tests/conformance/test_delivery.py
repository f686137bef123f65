"""Every store of rollouts, against the shared suite."""

import pytest
import sqlalchemy as sa

from mainspring.delivery.adapters.catalog import CatalogRollouts
from mainspring.delivery.conformance import RolloutStoreConformance


class TestCatalogRollouts(RolloutStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogRollouts:
        return CatalogRollouts(catalog)
