"""Every adapter of security's ports, against the shared suites."""

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa

from kit.auditing import audit_log
from kit.key_holders import MemoryKeyring
from mainspring.core.errors import Invalid, Unavailable
from mainspring.security.adapters import accounts as accounts_module
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.adapters.credentials import FileCredentials, KeyringCredentials
from mainspring.security.adapters.data_keys import CatalogDataKeys, CatalogSubjectKeys
from mainspring.security.adapters.directory import CatalogDirectory
from mainspring.security.adapters.erasures import CatalogErasures
from mainspring.security.adapters.key_file import FileKeys
from mainspring.security.adapters.sign_ins import CatalogUserSessions
from mainspring.security.conformance import (
    AccountsConformance,
    AuditLogConformance,
    AuthoriserConformance,
    CredentialsConformance,
    DataKeyStoreConformance,
    DirectoryConformance,
    EndedSessionsConformance,
    KeyServiceConformance,
    KeyStoreConformance,
    OwnedKeysConformance,
    UserSessionsConformance,
)
from mainspring.security.model import Account, AccountGroup, Grant, Kind, Role
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.ports import (
    Accounts,
    AuditLog,
    Authoriser,
    DataKeyStore,
    EndedSessions,
    Erasures,
    KeyService,
    KeyStore,
    SubjectKeyStore,
    UserSessions,
)
from mainspring.security.subject_conformance import ErasuresConformance, SubjectKeyStoreConformance


class TestCatalogKeyStore(KeyStoreConformance, OwnedKeysConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> KeyStore:
        return CatalogKeyStore(catalog)

    @pytest.fixture
    def accounts(self, catalog: sa.Engine) -> Accounts:
        return CatalogAccounts(catalog)


class TestCatalogDirectory(DirectoryConformance):
    @pytest.fixture
    def directory(self, catalog: sa.Engine) -> CatalogDirectory:
        return CatalogDirectory(catalog)

    @pytest.fixture
    def accounts(self, catalog: sa.Engine) -> Accounts:
        return CatalogAccounts(catalog)


class TestFileCredentials(CredentialsConformance):
    @pytest.fixture
    def credentials(self, tmp_path: Path) -> FileCredentials:
        return FileCredentials(tmp_path / "keys" / "sign-in")

    def test_what_others_can_read_is_refused(self, credentials: FileCredentials, tmp_path: Path) -> None:
        credentials.save(b"x")
        (tmp_path / "keys" / "sign-in").chmod(0o644)
        with pytest.raises(Invalid, match="readable by other users"):
            credentials.load()


class TestKeyringCredentials(CredentialsConformance):
    @pytest.fixture
    def credentials(self) -> KeyringCredentials:
        return KeyringCredentials(MemoryKeyring(), "shop local")

    def test_a_locked_keyring_is_said(self) -> None:
        keyring = MemoryKeyring()
        keyring.locked = True
        with pytest.raises(Unavailable, match="does not answer: locked"):
            KeyringCredentials(keyring, "shop").load()


class TestCatalogAccounts(AccountsConformance):
    @pytest.fixture
    def accounts(self, catalog: sa.Engine) -> Accounts:
        return CatalogAccounts(catalog)

    def test_a_group_that_is_removed_meanwhile_leaves_nothing_to_its_namesake(
        self, accounts: Accounts, catalog: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others: list[Thread] = []
        expect = accounts_module._expect

        def replace_group() -> None:
            other = CatalogAccounts(catalog)
            other.remove_group("risk")
            other.add_group(AccountGroup("risk"))

        def meanwhile(*given: Any) -> None:
            expect(*given)
            if not others:
                others.append(Thread(target=replace_group))
                others[0].start()
                others[0].join(0.3)

        monkeypatch.setattr(accounts_module, "_expect", meanwhile)
        accounts.add(Account("ana", Kind.USER, "Ana"))
        accounts.add_group(AccountGroup("risk"))
        for change in (
            lambda: accounts.grant(Grant("group", "risk", Role.OPERATOR)),
            lambda: accounts.add_member("risk", "ana"),
        ):
            change()
            others.pop().join()
            assert accounts.grants() == []
            assert accounts.groups() == [AccountGroup("risk")]


class TestCatalogEndedSessions(EndedSessionsConformance):
    @pytest.fixture
    def ended(self, catalog: sa.Engine) -> EndedSessions:
        return CatalogEndedSessions(catalog)


class TestCatalogUserSessions(UserSessionsConformance):
    @pytest.fixture
    def sessions(self, catalog: sa.Engine) -> UserSessions:
        return CatalogUserSessions(catalog)


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


class TestCatalogSubjectKeys(SubjectKeyStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> SubjectKeyStore:
        return CatalogSubjectKeys(catalog)


class TestCatalogErasures(ErasuresConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> Erasures:
        return CatalogErasures(catalog)


class TestFileKeys(KeyServiceConformance):
    @pytest.fixture
    def service(self, tmp_path: Path) -> KeyService:
        return FileKeys(tmp_path / "master")
