"""Keys, persons, sign-in, policies and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mainspring.core.settings import Url
from mainspring.project.backends import security as backends
from mainspring.project.parts.base import Base
from mainspring.project.parts.cached import cached_property
from mainspring.project.setting_values import key_service
from mainspring.project.tenancy import own_place

if TYPE_CHECKING:
    from mainspring.ledger.ports import Seals
    from mainspring.ledger.sealing import Opener
    from mainspring.security.data_keys import DataKeys
    from mainspring.security.keys import Authenticator
    from mainspring.security.oidc import Provider
    from mainspring.security.policy_files import PolicyFiles
    from mainspring.security.ports import (
        Accounts,
        Anchors,
        AnchorStates,
        AuditLog,
        Authoriser,
        Credentials,
        DataKeyStore,
        Directory,
        EndedSessions,
        Erasures,
        KeyService,
        KeyStore,
        PrivacyBudgets,
        ReceivedHeads,
        SubjectKeyStore,
        UserSessions,
    )
    from mainspring.security.sessions import Sessions
    from mainspring.security.sign_ins import SignIns
    from mainspring.security.signing import SigningKey
    from mainspring.security.subject_keys import SubjectKeys


class SecurityParts(Base):
    """Keys, persons, sign-in, policies and the audit log."""

    @cached_property
    def pepper(self) -> bytes:
        """The secret under which tokens of API keys are hashed: what the settings give, else the state folder's own.

        Raises:
            Invalid: The settings name a file that is not there, or that others can read.
        """
        from mainspring.security import secrets

        if self.settings.pepper:
            return self.settings.pepper
        if self.settings.pepper_file is not None:
            return secrets.load(self.settings.pepper_file, "pepper")
        return secrets.load_or_create(self.settings.state / "keys" / "pepper")

    @cached_property
    def key_service(self) -> KeyService:
        """The service that holds the master keys."""
        return self._key_service(self.settings.encryption)

    def _key_service(self, at: Url) -> KeyService:
        built: KeyService = self._build("key_service", backends.KEY_SERVICES, at)
        return built

    def key_service_at(self, address: str) -> KeyService:
        """Return the key service at an address as the profile writes it.

        Raises:
            Invalid: There is no adapter for it.
        """
        return self._key_service(own_place(self.settings, "encryption", key_service(self.settings.root, address)))

    @cached_property
    def data_key_store(self) -> DataKeyStore:
        built: DataKeyStore = self._build("data_keys", backends.DATA_KEYS, self.settings.catalog)
        return built

    @cached_property
    def data_keys(self) -> DataKeys:
        """Keys that encrypt what is stored."""
        from mainspring.security.data_keys import DataKeys

        return DataKeys(
            lambda: self.data_key_store,
            self.key_service,
            self.wall,
            project=self.settings.scope,
            keep_us=self.settings.encryption_keep_us,
            copy=None if self.settings.catalog.scheme == "memory" else self.settings.state / "keys" / "data-keys",
        )

    @cached_property
    def subject_keys(self) -> SubjectKeys:
        """Keys of persons and other subjects, whose destruction erases what they encrypted."""
        from mainspring.security.subject_keys import SubjectKeys

        def store() -> SubjectKeyStore:
            return self._subject_key_store

        return SubjectKeys(store, self.data_keys, self.settings.state / "keys" / "erased", self.wall)

    @cached_property
    def _subject_key_store(self) -> SubjectKeyStore:
        built: SubjectKeyStore = self._build("subject_keys", backends.SUBJECT_KEYS, self.settings.catalog)
        return built

    @cached_property
    def erasures(self) -> Erasures:
        """Erasures of subjects with their receipts, and legal holds."""
        built: Erasures = self._build("erasures", backends.ERASURES, self.settings.catalog)
        return built

    @cached_property
    def privacy_budgets(self) -> PrivacyBudgets:
        """Spent privacy budgets of sources."""
        built: PrivacyBudgets = self._build("privacy_budgets", backends.PRIVACY_BUDGETS, self.settings.catalog)
        return built

    @cached_property
    def sealer(self) -> Seals:
        """Encrypts personal values in the prediction log."""
        from mainspring.ledger.sealing import Sealer

        return Sealer(self.data_keys)

    @cached_property
    def opener(self) -> Opener:
        """Decrypts personal values in the prediction log."""
        from mainspring.ledger.sealing import Opener
        from mainspring.security import secrets

        former = self.settings.state / "keys" / "ledger"
        return Opener(
            self.data_keys, lambda: secrets.load_or_create(former) if former.exists() else None, self.subject_keys
        )

    @cached_property
    def signing_key(self) -> SigningKey:
        from mainspring.security.signing import SigningKey

        return SigningKey.load_or_create(self.settings.state / "keys" / "signing.ed25519")

    @cached_property
    def key_store(self) -> KeyStore:
        built: KeyStore = self._build("keys", backends.KEY_STORES, self.settings.catalog)
        return built

    @cached_property
    def accounts(self) -> Accounts:
        built: Accounts = self._build("accounts", backends.ACCOUNTS, self.settings.catalog)
        return built

    @cached_property
    def directory(self) -> Directory:
        built: Directory = self._build("directory", backends.DIRECTORIES, self.settings.catalog)
        return built

    @cached_property
    def ended_sessions(self) -> EndedSessions:
        built: EndedSessions = self._build("sessions", backends.ENDED_SESSIONS, self.settings.catalog)
        return built

    @cached_property
    def user_sessions(self) -> UserSessions:
        built: UserSessions = self._build("user_sessions", backends.USER_SESSIONS, self.settings.catalog)
        return built

    def sign_ins(self, sessions: Sessions) -> SignIns | None:
        """Return the sign-in at the identity provider; `None` if the profile has none."""
        settings = self.settings.sign_in
        if settings is None:
            return None
        from mainspring.security.issuers import Issuer
        from mainspring.security.model import AuditEvent
        from mainspring.security.oidc import Provider
        from mainspring.security.sign_ins import SignIns

        return SignIns(
            Provider(settings, Issuer(settings.issuer, self.wall)),
            self.accounts,
            sessions,
            self.user_sessions,
            self.wall,
            keys=self.data_keys,
            redirect=settings.redirect or f"{self.settings.control.url}/login/callback",
            record=lambda account, action, resource, detail: self.audit.append(
                [AuditEvent(self.wall.now(), account, action, resource, detail)]
            ),
        )

    def command_line_provider(self) -> Provider | None:
        """Return the identity provider for the command line's client; `None` if the profile has none."""
        settings = self.settings.sign_in
        if settings is None:
            return None
        from mainspring.security.issuers import Issuer
        from mainspring.security.oidc import Provider

        return Provider(settings, Issuer(settings.issuer, self.wall), command_line=True)

    @cached_property
    def credentials(self) -> Credentials:
        """The sign-in of this user of the machine: in a keyring of the package `keyring`, or in a file."""
        return backends.credentials(self.settings)

    @cached_property
    def audit(self) -> AuditLog:
        built: AuditLog = self._build("audit", backends.AUDIT_LOGS, self.settings.catalog)
        return built

    @cached_property
    def anchors(self) -> Mapping[str, Anchors]:
        """Places of the audit log's heads, by their addresses: a file in the state folder, and those of the profile."""
        own = Url(f"file://{(self.settings.state / 'audit-anchors.jsonl').as_posix()}")
        places = (own, *self.settings.audit_anchors)
        return {each.shown: self._build("anchors", backends.ANCHORS, each) for each in places}

    @cached_property
    def anchor_states(self) -> AnchorStates:
        """How far the audit log is anchored, by place."""
        built: AnchorStates = self._build("anchor states", backends.ANCHOR_STATES, self.settings.catalog)
        return built

    @cached_property
    def received_heads(self) -> ReceivedHeads:
        """Heads of other installations' audit logs."""
        built: ReceivedHeads = self._build("received heads", backends.RECEIVED_HEADS, self.settings.catalog)
        return built

    @cached_property
    def authenticator(self) -> Authenticator:
        from mainspring.security.keys import Authenticator

        return Authenticator(
            self.key_store,
            self.pepper,
            self.wall,
            accounts=self.accounts,
            workloads=self.workloads(waits=True),
            people=self._person_tokens(),
        )

    def _person_tokens(self) -> Callable[[str], tuple[str, int] | None] | None:
        provider = self.command_line_provider()
        if provider is None:
            return None
        from mainspring.security.person_tokens import PersonTokens

        return PersonTokens(provider, self.accounts).identify

    def workloads(self, *, waits: bool) -> Callable[[str], tuple[str, int]] | None:
        """Return the reader of workloads' tokens; `None` if the profile has none. See `security.workloads`."""
        if not self.settings.workload_issuers:
            return None
        from mainspring.security.workloads import Workloads

        return Workloads(self.settings.workload_issuers, self.wall, waits=waits).identify

    @cached_property
    def authoriser(self) -> Authoriser:
        from mainspring.security.policy import CedarAuthoriser

        return CedarAuthoriser(self.settings.project, self.policy_files)

    @cached_property
    def policy_files(self) -> PolicyFiles:
        """The project's own policies, followed while this process runs."""
        from mainspring.security.policy_files import POLICIES, PolicyFiles

        return PolicyFiles(self.settings.root / POLICIES, self.settings.state / "policies.json")
