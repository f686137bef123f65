"""Every adapter of security's ports, against the shared suites."""

from pathlib import Path

import pytest

from mainspring.core.catalog import metadata, open_engine
from mainspring.security.adapters.catalog import CatalogAuditLog, CatalogEndedSessions, CatalogKeyStore
from mainspring.security.adapters.memory import MemoryAuditLog, MemoryEndedSessions, MemoryKeyStore
from mainspring.security.conformance import (
    AuditLogConformance,
    AuthoriserConformance,
    EndedSessionsConformance,
    KeyStoreConformance,
)
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.ports import AuditLog, Authoriser, EndedSessions, KeyStore


@pytest.fixture
def engine(tmp_path: Path):
    engine = open_engine(f"sqlite:///{tmp_path}/catalog.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


class TestMemoryKeyStore(KeyStoreConformance):
    @pytest.fixture
    def store(self) -> KeyStore:
        return MemoryKeyStore()


class TestCatalogKeyStore(KeyStoreConformance):
    @pytest.fixture
    def store(self, engine) -> KeyStore:
        return CatalogKeyStore(engine)


class TestMemoryEndedSessions(EndedSessionsConformance):
    @pytest.fixture
    def ended(self) -> EndedSessions:
        return MemoryEndedSessions()


class TestCatalogEndedSessions(EndedSessionsConformance):
    @pytest.fixture
    def ended(self, engine) -> EndedSessions:
        return CatalogEndedSessions(engine)


class TestMemoryAuditLog(AuditLogConformance):
    @pytest.fixture
    def log(self) -> AuditLog:
        return MemoryAuditLog()


class TestCatalogAuditLog(AuditLogConformance):
    @pytest.fixture
    def log(self, engine) -> AuditLog:
        return CatalogAuditLog(engine)


class TestCedarAuthoriser(AuthoriserConformance):
    @pytest.fixture
    def authoriser(self) -> Authoriser:
        return CedarAuthoriser()
