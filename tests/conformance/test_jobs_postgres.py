"""Jobs on a real Postgres server, in a catalog as projects have it."""

import pytest
import sqlalchemy as sa

from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.conformance import JobStoreConformance


class TestPostgres(JobStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogJobs:
        return CatalogJobs(engine)
