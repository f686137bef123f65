"""Every store of jobs, against the shared suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.adapters.memory import MemoryJobs
from mainspring.jobs.conformance import JobStoreConformance
from mainspring.project.catalog import open_catalog


class TestMemory(JobStoreConformance):
    @pytest.fixture
    def store(self) -> MemoryJobs:
        return MemoryJobs()


class TestSqlite(JobStoreConformance):
    """On the tables that a migration makes, in a file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[CatalogJobs]:
        engine = open_catalog(Url(f"sqlite:///{tmp_path}/catalog.db"), MemoryLocks())
        yield CatalogJobs(engine)
        engine.dispose()
