"""Every adapter of security's ports, against the shared suites."""

import pytest
import sqlalchemy as sa

from kit.auditing import audit_log
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.conformance import (
    AccountsConformance,
    AuditLogConformance,
    AuthoriserConformance,
    EndedSessionsConformance,
    KeyStoreConformance,
    OwnedKeysConformance,
)
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.ports import Accounts, AuditLog, Authoriser, EndedSessions, KeyStore


class TestCatalogKeyStore(KeyStoreConformance, OwnedKeysConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> KeyStore:
        return CatalogKeyStore(catalog)

    @pytest.fixture
    def accounts(self, catalog: sa.Engine) -> Accounts:
        return CatalogAccounts(catalog)


class TestCatalogAccounts(AccountsConformance):
    @pytest.fixture
    def accounts(self, catalog: sa.Engine) -> Accounts:
        return CatalogAccounts(catalog)


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
