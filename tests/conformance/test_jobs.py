"""Every store of jobs, against the shared suite."""

import pytest
import sqlalchemy as sa

from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.conformance import JobStoreConformance


class TestCatalogJobs(JobStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogJobs:
        return CatalogJobs(catalog)
