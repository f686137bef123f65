"""Every store of rollouts and of gates' evaluations, against the shared suites."""

import pytest
import sqlalchemy as sa

from mainspring.delivery.adapters.catalog import CatalogEvaluations, CatalogRollouts
from mainspring.delivery.conformance import EvaluationsConformance, RolloutStoreConformance


class TestCatalogRollouts(RolloutStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogRollouts:
        return CatalogRollouts(catalog)


class TestCatalogEvaluations(EvaluationsConformance):
    @pytest.fixture
    def evaluations(self, catalog: sa.Engine) -> CatalogEvaluations:
        return CatalogEvaluations(catalog)
