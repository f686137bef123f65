"""Every adapter of security's ports, against the shared suites."""

import pytest
import sqlalchemy as sa

from kit.auditing import audit_log
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.conformance import (
    AuditLogConformance,
    AuthoriserConformance,
    EndedSessionsConformance,
    KeyStoreConformance,
)
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.ports import AuditLog, Authoriser, EndedSessions, KeyStore


class TestCatalogKeyStore(KeyStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> KeyStore:
        return CatalogKeyStore(catalog)


class TestCatalogEndedSessions(EndedSessionsConformance):
    @pytest.fixture
    def ended(self, catalog: sa.Engine) -> EndedSessions:
        return CatalogEndedSessions(catalog)


class TestCatalogAuditLog(AuditLogConformance):
    @pytest.fixture
    def log(self, catalog: sa.Engine) -> AuditLog:
        return audit_log(catalog)


class TestCedarAuthoriser(AuthoriserConformance):
    @pytest.fixture
    def authoriser(self) -> Authoriser:
        return CedarAuthoriser()
