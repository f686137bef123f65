"""Callers, their keys, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class KeyScope(StrEnum):
    """A scope of an API key: an upper bound of the actions that it permits."""

    PREDICT = "predict"  # request predictions from an endpoint and read its schema
    VIEW = "view"  # read models, data, predictions, monitoring
    SCRAPE = "scrape"  # read metrics
    ANCHOR = "anchor"  # send heads of another installation's audit log
    MANAGE = "manage"  # change anything


class Action(StrEnum):
    """An action on a resource. Every route and command that goes through the API requires one.

    `policies.cedarschema` says on which resources, `roles.cedar` who may, and `scopes.cedar` with which keys.
    """

    ACCOUNTS_PROVISION = "accounts.provision"  # create, change and remove users and groups over SCIM
    AUDIT_ANCHOR = "audit.anchor"  # send heads of another installation's audit log, and read them
    AUDIT_READ = "audit.read"  # read and search the audit log
    COLLECTION_SEARCH = "collection.search"  # search a collection's chunks
    COLUMN_PSEUDONYM = "column.pseudonym"  # see which rows are of one person: pseudonyms of values that identify one
    COLUMN_REVEAL = "column.reveal"  # see values that identify a person
    CONSOLE_OPEN = "console.open"  # sign in, and open lists, which show what one may read
    COST_READ = "cost.read"  # see what was used and what it cost, by whom
    ENDPOINT_DESCRIBE = "endpoint.describe"  # read an endpoint's schema and statistics from the gateway
    ENDPOINT_PREDICT = "endpoint.predict"  # request predictions and explanations
    ENDPOINT_READ = "endpoint.read"  # see health, quality, drift, fairness and capacity
    ENDPOINT_ROLLOUT = "endpoint.rollout"  # stop, go on with or end a rollout
    EVIDENCE_MEASURE = "evidence.measure"  # measure the evidence of all frameworks again
    FEATURES_ENTITY = "features.entity"  # see an entity's feature values
    FEATURES_READ = "features.read"  # see a view's definition, freshness and distributions
    FLEET_READ = "fleet.read"  # see devices and their packages
    GATEWAY_OPEN = "gateway.open"  # read the gateway's own metadata and its list of endpoints
    INCIDENT_READ = "incident.read"  # see incidents
    INCIDENT_WRITE = "incident.write"  # own, silence, judge and close incidents
    JOB_READ = "job.read"  # see jobs and their logs
    KEYS_MANAGE = "keys.manage"  # create and revoke API keys
    KEYS_READ = "keys.read"  # list API keys, without secrets
    METRICS_SCRAPE = "metrics.scrape"  # read metrics
    MODEL_APPROVE = "model.approve"  # approve versions
    MODEL_PROMOTE = "model.promote"  # promote versions
    MODEL_READ = "model.read"  # see versions, cards, evaluations and the history of decisions
    MODEL_ROLLBACK = "model.rollback"  # move the champion back
    PIPELINE_APPROVE = "pipeline.approve"  # approve a waiting step
    PIPELINE_READ = "pipeline.read"  # see pipelines, runs and logs
    PIPELINE_RUN = "pipeline.run"  # start, retry and cancel runs
    PREDICTION_READ = "prediction.read"  # see, replay and explain logged predictions
    PROJECT_READ = "project.read"  # see pages about the whole project: status, lineage, commits, search
    RUN_READ = "run.read"  # see training runs
    RUN_WRITE = "run.write"  # name runs and write notes
    SESSIONS_END = "sessions.end"  # end console sessions of other people
    SESSIONS_READ = "sessions.read"  # list console sessions
    STREAM_READ = "stream.read"  # see streams and dead letters
    TABLE_READ = "table.read"  # see a source's schema, checks, profile and versions
    TABLE_ROWS = "table.rows"  # see rows
    TEAM_CHARGE = "team.charge"  # name a group that pays for work that one starts
    TENANT_SEARCH = "tenant.search"  # have a tenant's documents searched, by collections and by chains of answers
    TOOL_APPROVE = "tool.approve"  # see and decide calls of tools that wait for a person


class Kind(StrEnum):
    """A kind of principal."""

    USER = "user"
    SERVICE = "service"  # an account of a program
    KEY = "key"


class Role(StrEnum):
    """A role of `roles.cedar`, bound to an account or a group for the project or one of its resources."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    ENGINEER = "engineer"
    APPROVER = "approver"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    PROVISIONER = "provisioner"
    ANCHORER = "anchorer"
    ADMINISTRATOR = "administrator"


PROJECT = "project"  # the resource above every other


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A role for a resource: `project`, or a kind and a name such as `model/late-arrival`."""

    role: Role
    resource: str = PROJECT


EVERY_ROLE = frozenset({Binding(Role.ADMINISTRATOR)})  # the roles of a key without an owner


@dataclass(frozen=True, slots=True)
class Account:
    """A user or a service account.

    Attributes:
        name: For people. Only those of service accounts are unique.
        issuer, subject: Identity at an OIDC provider, unique together; both empty for accounts without one.
        provider_groups: Groups of the provider's last token.
    """

    id: str
    kind: Kind
    name: str
    email: str = ""
    issuer: str = ""
    subject: str = ""
    provider_groups: tuple[str, ...] = ()
    created_at: int = 0  # UTC epoch microseconds
    disabled_at: int | None = None
    disabled_by: str = ""  # empty before it was recorded


@dataclass(frozen=True, slots=True)
class BoundName:
    """A name that an account has in records: a user of a machine, or an identity at a provider. Outlives the account.

    Attributes:
        by: Who bound it; for what a provider said, its issuer.
    """

    name: str
    account_id: str
    at: int  # UTC epoch microseconds
    by: str


@dataclass(frozen=True, slots=True)
class AccountGroup:
    """A group of accounts.

    Attributes:
        provider_group: Group of the OIDC provider whose holders are members too; empty for none.
        members: Ids of accounts.
    """

    name: str
    provider_group: str = ""
    created_at: int = 0  # UTC epoch microseconds
    members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DirectoryUser:
    """A user of an organisation's directory. Name, e-mail and whether it is disabled are its account's.

    Attributes:
        user_name: Unique whatever the case of its letters.
        external_id: Id in the directory.
    """

    account_id: str
    user_name: str
    external_id: str = ""


@dataclass(frozen=True, slots=True)
class DirectoryGroup:
    """A group of an organisation's directory: its members hold the group of the provider of this name.

    Attributes:
        name: Unique whatever the case of its letters.
        members: Ids of accounts.
    """

    id: str
    name: str
    external_id: str = ""
    members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Grant:
    """A role granted to an account or a group.

    Attributes:
        kind: `user`, `service` or `group`.
        who: Id of the account, or name of the group.
    """

    kind: str
    who: str
    role: Role
    resource: str = PROJECT
    granted_at: int = 0  # UTC epoch microseconds
    granted_by: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """An account with the groups and roles that it has, its groups' roles included."""

    id: str
    kind: Kind
    name: str
    groups: frozenset[str] = frozenset()
    roles: frozenset[Binding] = frozenset()
    disabled_at: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored: an HMAC of its token, never the secret."""

    id: str
    name: str
    scopes: frozenset[KeyScope]
    digest: bytes  # HMAC-SHA-256 of the whole token under the installation's pepper
    created_at: int  # UTC epoch microseconds
    expires_at: int
    revoked_at: int | None = None
    created_by: str = ""  # the person who made it, or whose key made it; empty for older keys
    owner: str = ""  # id of the account whose roles it has; empty for a key that has every role
    holder: Holder | None = None  # the owner as its store read it; `None` if there is none, or it was removed

    @property
    def person(self) -> str:
        """The person or service that acts with it: the owner, as `user:ID` or `service:ID`, or its maker; or empty."""
        if not self.owner:
            return self.created_by
        return f"{Kind.USER if self.holder is None else self.holder.kind}:{self.owner}"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    Attributes:
        id: Id of the key, or of the account of a person who signed in.
        owner: Id of a key's account; empty for a key without an owner, and for an account itself.
    """

    id: str
    name: str
    scopes: frozenset[KeyScope]
    kind: Kind = Kind.KEY
    owner: str = ""
    groups: frozenset[str] = frozenset()
    roles: frozenset[Binding] = frozenset()

    @property
    def account(self) -> str:
        """Id of the account that acts: the key's owner, or the person. Empty for a key without an owner."""
        return self.owner if self.kind is Kind.KEY else self.id


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One audited action. `subject` is a person whom it is about, as text that can be erased without a trace."""

    at: int  # UTC epoch microseconds
    actor: str
    action: str
    resource: str
    detail: str = ""
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event with its number in the log: its place in the tree, from 0, by which a search goes on too."""

    number: int
    event: AuditEvent


class AuditRecord(NamedTuple):
    """An event as it is stored, with what makes it a leaf of the tree. A tuple, because millions are read at once."""

    number: int
    at: int
    actor: str
    action: str
    resource: str
    detail: str
    commitment: bytes | None  # to the event's subject; None if it never had one
    leaf: bytes  # hash of the leaf as it was appended
    salt: bytes | None  # by which the commitment was made; None once the subject is erased
    subject: str | None

    @property
    def event(self) -> AuditEvent:
        return AuditEvent(self.at, self.actor, self.action, self.resource, self.detail, self.subject)

    @property
    def without_subject(self) -> AuditRecord:
        return self._replace(salt=None, subject=None)


@dataclass(frozen=True, slots=True)
class AuditTree:
    """The log's tree as it is stored; none of it is checked.

    Attributes:
        origin: Name of the log.
        size: Number of events, as far as the tree has them.
        frontier: Roots of the complete subtrees that it consists of, the largest first.
        note: Head of the tree, signed; empty if no process with the key has written yet.
        first, last: Smallest and largest number of a stored event; `None` if there are none.
        damaged: Why the stored row is none of a tree; empty if it is one. What cannot be read of it is empty.
    """

    origin: str
    size: int
    frontier: tuple[bytes, ...]
    note: str
    first: int | None
    last: int | None
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedHead:
    """A head of another installation's audit log.

    Attributes:
        public: The key that signed it.
        number: Dense by key, from 0.
        refused: Why it does not continue the one before; empty if it does.
    """

    public: bytes
    number: int
    size: int
    note: str
    received_at: int
    received_by: str
    refused: str


@dataclass(frozen=True, slots=True)
class AnchorState:
    """How many events of the audit log are anchored at a place, and since when it is tried to anchor further ones."""

    place: str
    events: int
    since: int


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events a search finds: those that have every given part, whatever the case of its letters.

    Attributes:
        action: Beginning of the action: `keys` finds `keys.create`.
        since: UTC epoch microseconds, included; `None` for the beginning.
        until: UTC epoch microseconds, excluded; `None` for no end.
        subject: The whole subject, letter by letter.
    """

    actor: str = ""
    action: str = ""
    resource: str = ""
    detail: str = ""
    since: int | None = None
    until: int | None = None
    subject: str = ""

    def matches(self, event: AuditEvent) -> bool:
        """Return whether the filter finds an event."""
        parts = ((self.actor, event.actor), (self.resource, event.resource), (self.detail, event.detail))
        return (
            (self.since is None or self.since <= event.at)
            and (self.until is None or event.at < self.until)
            and event.action.lower().startswith(self.action.lower())
            and all(part.lower() in text.lower() for part, text in parts)
            and self.subject in ("", event.subject)
        )


@dataclass(frozen=True, slots=True)
class Session:
    """Session of a person who logged in with the key `principal_id`. The key is checked on every request."""

    id: str
    principal_id: str
    opened_at: int  # UTC epoch microseconds
    expires_at: int


class Wrapped(NamedTuple):
    """A data key, encrypted by a key service. `version` is that of the master key, as the service names it."""

    content: bytes
    version: str


class DataKey(NamedTuple):
    """A key that encrypts contents. Ciphertext names its `id`, 32 hexadecimal digits."""

    id: str
    secret: bytes  # 32 bytes


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A data key as the catalog has it.

    Attributes:
        purpose: What it encrypts, such as `predictions`.
        number: Place among the keys of its purpose, from 1; the last encrypts, all decrypt.
        created_at: UTC epoch microseconds.
    """

    id: str
    purpose: str
    number: int
    wrapped: Wrapped = field(repr=False)
    created_at: int


@dataclass(frozen=True, slots=True)
class StoredSubject:
    """The key of a subject as the catalog has it.

    Attributes:
        subject: Digest of its name, 32 bytes.
        wrapped: Envelope of the secret; empty once it is destroyed.
        destroyed_at: UTC epoch microseconds, as `created_at`; `None` while the key is there.
    """

    id: str
    subject: bytes
    wrapped: bytes = field(repr=False)
    created_at: int
    destroyed_at: int | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure of subjects, which are known here by digests of their names.

    Attributes:
        began_at: UTC epoch microseconds, as `done_at`; that is `None` as long as it is not finished.
        receipt: Signed receipt, JSON; empty as long as it is not finished.
    """

    id: str
    entity: str
    subjects: tuple[bytes, ...]
    began_at: int
    done_at: int | None = None
    receipt: str = ""


@dataclass(frozen=True, slots=True)
class LegalHold:
    """A subject that must not be erased, known by the digest of its name."""

    subject: bytes
    entity: str
    reason: str
    held_at: int  # UTC epoch microseconds
    held_by: str


@dataclass(frozen=True, slots=True)
class UserSession:
    """Console session of a person who signed in at an identity provider.

    Attributes:
        checked_at: When the provider last said that the person is there, UTC epoch microseconds.
        sealed: The provider's tokens, encrypted.
    """

    id: str
    account_id: str
    opened_at: int  # UTC epoch microseconds
    expires_at: int
    checked_at: int
    sealed: bytes
