"""What people decide about versions, in a catalog on a real Postgres server: the same suites as on SQLite."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from mainspring.registry.adapters.catalog import CatalogApprovals, CatalogDeletions, CatalogTrustedKeys, CatalogWaivers
from mainspring.registry.conformance import (
    ApprovalsConformance,
    DeletionsConformance,
    TrustedKeysConformance,
    WaiversConformance,
)


class TestApprovals(ApprovalsConformance):
    @pytest.fixture
    def approvals(self, engine: sa.Engine) -> CatalogApprovals:
        return CatalogApprovals(engine)


class TestDeletions(DeletionsConformance):
    @pytest.fixture
    def deletions(self, engine: sa.Engine) -> CatalogDeletions:
        return CatalogDeletions(engine)


class TestTrustedKeys(TrustedKeysConformance):
    @pytest.fixture
    def trusted(self, engine: sa.Engine) -> CatalogTrustedKeys:
        return CatalogTrustedKeys(engine)


class TestWaivers(WaiversConformance):
    @pytest.fixture
    def waivers(self, engine: sa.Engine) -> CatalogWaivers:
        return CatalogWaivers(engine)
