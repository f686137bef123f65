"""Jobs on a real Postgres server, a catalog of a project's own among others in one database."""

import secrets
from collections.abc import Iterator

import pytest

from kit.servers import PostgresServer
from mainspring.core.locks import MemoryLocks
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.conformance import JobStoreConformance
from mainspring.project.catalog import open_catalog


class TestPostgres(JobStoreConformance):
    @pytest.fixture
    def store(self, postgres_server: PostgresServer) -> Iterator[CatalogJobs]:
        engine = open_catalog(postgres_server.url, MemoryLocks(), f"p{secrets.token_hex(6)}")
        yield CatalogJobs(engine)
        engine.dispose()
