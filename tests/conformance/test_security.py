"""Every adapter of security's ports, against the shared suites."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.auditing import audit_log
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.adapters.data_keys import CatalogDataKeys
from mainspring.security.adapters.key_file import FileKeys
from mainspring.security.conformance import (
    AccountsConformance,
    AuditLogConformance,
    AuthoriserConformance,
    DataKeyStoreConformance,
    EndedSessionsConformance,
    KeyServiceConformance,
    KeyStoreConformance,
    OwnedKeysConformance,
)
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.ports import (
    Accounts,
    AuditLog,
    Authoriser,
    DataKeyStore,
    EndedSessions,
    KeyService,
    KeyStore,
)


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


class TestCatalogDataKeys(DataKeyStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> DataKeyStore:
        return CatalogDataKeys(catalog)


class TestFileKeys(KeyServiceConformance):
    @pytest.fixture
    def service(self, tmp_path: Path) -> KeyService:
        return FileKeys(tmp_path / "master")
