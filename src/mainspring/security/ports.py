"""Ports of security: stores of keys, ended sessions and audit events, authorisation, and encryption."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from mainspring.core.errors import Unavailable
from mainspring.security.model import (
    Account,
    AccountGroup,
    Action,
    AnchorState,
    ApiKey,
    AuditEntry,
    AuditEvent,
    AuditFilter,
    AuditRecord,
    AuditTree,
    BoundName,
    DataKey,
    DirectoryGroup,
    DirectoryUser,
    Erasure,
    Grant,
    Holder,
    LegalHold,
    Principal,
    ReceivedHead,
    StoredKey,
    StoredSubject,
    UserSession,
    Wrapped,
)

T = TypeVar("T")
ITSELF, ADOPTED = "mainspring", "audit.adopt"  # actor and action where a log takes over a head that is not its key's
ERASED = "audit.erase"  # action; the detail names the numbers of the events
TREE_HEIGHTS = (8, 16, 24)  # of the complete subtrees whose roots an audit log stores: 256 leaves, 65,536, ...


class Unchecked(Unavailable):
    """A key is not known here, and the catalog has not been checked for it yet. `checked` is done once it has been."""

    def __init__(self, what: str, checked: Future[None]) -> None:
        super().__init__(what)
        self._checked = checked

    async def wait(self, longest_s: float) -> None:
        """Wait until the catalog was checked, at most `longest_s` seconds. Several callers may wait together."""
        await asyncio.wait([asyncio.wrap_future(self._checked)], timeout=max(0.0, longest_s))

    def block(self, longest_s: float) -> None:
        """Do as `wait` does, in a thread of its own."""
        wait([self._checked], timeout=longest_s)


class FindsKeys(Protocol):
    """Key lookup, the part of a key store that authentication needs."""

    def find(self, key_id: str) -> ApiKey | None:
        """Return the key, revoked and expired ones included.

        Raises:
            Unchecked: The catalog must be checked first, for which this call does not wait.
            Unavailable: The catalog does not respond.
        """
        ...


class KeyStore(Protocol):
    """API keys by id. A key is returned with its `holder`, whatever was stored as such."""

    def add(self, key: ApiKey) -> None:
        """Store a new key.

        Raises:
            Conflict: Its id is taken.
        """
        ...

    def find(self, key_id: str) -> ApiKey | None:
        """Return the key, revoked and expired ones included."""
        ...

    def all(self) -> list[ApiKey]:
        """Return all keys, oldest first."""
        ...

    def mark(self) -> str:
        """Return a text that changes whenever a key is added or revoked, or an account, group or grant changes.

        Cheap compared with `all`.
        """
        ...

    def revoke(self, key_id: str, at: int) -> None:
        """Mark a key as revoked from `at`.

        Raises:
            NotFound: There is no such key.
        """
        ...


class FindsHolders(Protocol):
    """Account lookup, the part of an account store that authentication needs."""

    def holder(self, account_id: str) -> Holder | None:
        """Return an account with its groups and roles, disabled ones included; `None` if there is none."""
        ...

    def service(self, name: str) -> Holder | None:
        """Return a service account by its name, as `holder` does an account by its id."""
        ...


class Accounts(FindsHolders, Protocol):
    """Users, service accounts, their groups, and the roles granted to them."""

    def services(self) -> dict[str, Holder]:
        """Return all service accounts by name, as `service` does one."""
        ...

    def add(self, account: Account) -> None:
        """Store a new account.

        Raises:
            Conflict: Its id, the name of a service account, or its identity at the provider is taken.
        """
        ...

    def describe(self, account_id: str, name: str, email: str, provider_groups: Sequence[str]) -> None:
        """Replace what the identity provider says of an account, and nothing else.

        Raises:
            NotFound: There is no such account.
        """
        ...

    def set_disabled(self, account_id: str, at: int | None, by: str = "") -> None:
        """Replace an account's `disabled_at` and `disabled_by`, and nothing else.

        Raises:
            NotFound: There is no such account.
        """
        ...

    def remove(self, account_id: str) -> None:
        """Remove an account with its memberships and grants; its keys lose their holder.

        Raises:
            NotFound: There is no such account.
        """
        ...

    def find(self, account_id: str) -> Account | None:
        """Return an account."""
        ...

    def of_subject(self, issuer: str, subject: str) -> Account | None:
        """Return the account of an identity at a provider."""
        ...

    def all(self) -> list[Account]:
        """Return all accounts, oldest first."""
        ...

    def bind(self, bound: BoundName) -> None:
        """Bind a name to an account, beside others that it may be bound to; for the same account it is bound anew.

        Raises:
            NotFound: There is no such account.
        """
        ...

    def names(self) -> list[BoundName]:
        """Return all bound names with their accounts, ordered; those of removed accounts, and identities, included."""
        ...

    def groups(self) -> list[AccountGroup]:
        """Return all groups by name. `members` are those added here, without those by `provider_group`."""
        ...

    def add_group(self, group: AccountGroup) -> None:
        """Store a new group without members.

        Raises:
            Conflict: Its name is taken.
        """
        ...

    def remove_group(self, name: str) -> None:
        """Remove a group with its memberships and grants.

        Raises:
            NotFound: There is no such group.
        """
        ...

    def add_member(self, group: str, account_id: str) -> None:
        """Add an account to a group; nothing changes if it is a member.

        Raises:
            NotFound: There is no such group or account.
        """
        ...

    def remove_member(self, group: str, account_id: str) -> None:
        """Remove an account from a group.

        Raises:
            NotFound: It is not a member.
        """
        ...

    def grants(self) -> list[Grant]:
        """Return all grants, ordered by who, role and resource."""
        ...

    def grant(self, grant: Grant) -> None:
        """Grant a role; nothing changes if it is granted for the same resource.

        Raises:
            NotFound: There is no such account or group.
        """
        ...

    def revoke(self, grant: Grant) -> None:
        """Revoke a role for a resource.

        Raises:
            NotFound: It is not granted.
        """
        ...


class Directory(Protocol):
    """Users and groups of an organisation's directory. Each change is whole or not at all."""

    def add_user(self, account: Account, user: DirectoryUser) -> None:
        """Store a user of an account, and the account unless there is one of this id.

        Raises:
            Conflict: The user name or the account's identity is taken, or the account has a user.
        """
        ...

    def save_user(self, user: DirectoryUser) -> None:
        """Replace a user.

        Raises:
            NotFound: The account has none.
            Conflict: The user name is taken.
        """
        ...

    def users(
        self, attribute: str = "", value: str = "", *, begin: int = 0, limit: int = 100
    ) -> tuple[int, list[DirectoryUser]]:
        """Return how many users have a value of an attribute, or how many there are, and a page of them, ordered.

        Args:
            attribute: `id`, `userName` (whatever the case of its letters) or `externalId`; empty for all users.
        """
        ...

    def add_group(self, group: DirectoryGroup) -> None:
        """Store a group.

        Raises:
            Conflict: Its id or name is taken.
        """
        ...

    def save_group(self, group: DirectoryGroup) -> None:
        """Replace a group and its members.

        Raises:
            NotFound: There is none of this id.
            Conflict: The name is taken.
        """
        ...

    def remove_group(self, group_id: str) -> None:
        """Remove a group.

        Raises:
            NotFound: There is none.
        """
        ...

    def groups(
        self, attribute: str = "", value: str = "", *, begin: int = 0, limit: int = 100
    ) -> tuple[int, list[DirectoryGroup]]:
        """Do as `users`, by `id`, `displayName` or `externalId`."""
        ...


class AuditLog(Protocol):
    """An append-only list of audit events, and the Merkle tree over them."""

    def together(self) -> AbstractContextManager[None]:
        """Context in which what this thread writes to the catalog and the events that it appends take effect together
        at the end, or, after an exception or a kill, not at all. Other processes do not write meanwhile.
        """
        ...

    def append(self, events: Sequence[AuditEvent], *, unless_among: int = 0) -> int | None:
        """Add events, in order, durably, with their places in the tree and its new head, or nothing of it; return the
        number of the last one, `None` if none was added.

        A head that this installation's key did not sign is taken over, and the first event added says so.

        Args:
            unless_among: Events that are among so many of the newest are left out. Of processes that add the same event
                at once, one does.

        Raises:
            Corrupt: The tree's head is not that of the tree, the tree is older than one that this object wrote, or an
                event has the next number already.
        """
        ...

    def read(self, limit: int = 100) -> list[AuditEvent]:
        """Return the newest events, newest first."""
        ...

    def search(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """Return matching events, newest first.

        Args:
            before: Return only events with a smaller number.
        """
        ...

    def check(self) -> None:
        """Raise if nothing could be appended.

        Raises:
            Corrupt: As for `append`.
        """
        ...

    def erase(self, subject: str, at: int, actor: str) -> int:
        """Erase a subject from all events about it, with what its commitments were made by; return how many.

        The events stay, and so do their places in the tree. With the erasure, or not at all, an event is appended that
        names their numbers: an event that lacks its subject and is named by none was tampered with.

        Args:
            at: Instant of that event.
            actor: Actor of that event.

        Raises:
            Corrupt: As for `append`.
        """
        ...

    def tree(self) -> AuditTree | None:
        """Return the tree, `None` if nothing was ever appended."""
        ...

    def records(self, begin: int, end: int) -> list[AuditRecord]:
        """Return the stored events with numbers from `begin` to before `end`, in order, those that are there."""
        ...

    def hashes(self, height: int, begin: int, end: int) -> list[bytes | None]:
        """Return the stored roots of complete subtrees, `None` where one is missing.

        Args:
            height: 0 for leaves; other heights are those of `TREE_HEIGHTS`.
            begin: Number of the first subtree among those of its height.
            end: Number after that of the last.
        """
        ...


class Anchors(Protocol):
    """Heads of the audit log at a place that whoever can write to the catalog does not change with it."""

    def append(self, note: str, proof: Sequence[bytes], /) -> None:
        """Keep a head durably, after those that are there.

        Args:
            proof: Consistency proof (RFC 9162, 2.1.4) from the newest head of this log that is there; empty for the
                first.
        """
        ...

    def read(self) -> Iterator[str]:
        """Yield all heads, the last that came first.

        Raises:
            Corrupt: They are damaged.
        """
        ...


class ReceivedHeads(Protocol):
    """Heads of other installations' audit logs, as they came, the refused ones included."""

    def add(self, head: ReceivedHead) -> None:
        """Keep a head.

        Raises:
            Conflict: There is one of its number.
        """
        ...

    def of(
        self, public: bytes, *, taken: bool = False, before: int | None = None, limit: int = 1
    ) -> list[ReceivedHead]:
        """Return the newest heads of a key, newest first.

        Args:
            taken: Leave out refused ones.
            before: Return only those with a smaller number.
        """
        ...

    def refused(self, since: int) -> list[ReceivedHead]:
        """Return refused heads that came at an instant or later, oldest first."""
        ...


class AnchorStates(Protocol):
    """How far the audit log is anchored, by place."""

    def save(self, state: AnchorState) -> None:
        """Replace the state of a place."""
        ...

    def all(self) -> dict[str, AnchorState]:
        """Return all states by place."""
        ...


class Credentials(Protocol):
    """Place of the command line's sign-in: one for each user of a machine and each project. Never printed."""

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        ...

    def load(self) -> bytes | None:
        """Return what is kept, `None` if nothing is.

        Raises:
            Invalid: Others can read it.
            Unavailable: The place does not answer.
        """
        ...

    def save(self, content: bytes) -> None:
        """Keep text in UTF-8 instead of what is there."""
        ...

    def delete(self) -> bool:
        """Delete what is kept; return whether there was something."""
        ...


class EndedSessions(Protocol):
    """Console sessions that were ended early, until they would have expired."""

    def add(self, session_id: str, expires_at: int, now: int) -> bool:
        """Record a session's end durably; return whether it was not ended before. Of several at once, one returns true.

        Sessions that have expired at `now` may be deleted.
        """
        ...

    def holds(self, session_id: str) -> bool:
        """Return whether a session was ended. Cheap, because it is called for every request of a session."""
        ...


class UserSessions(Protocol):
    """Console sessions of people who signed in. One that is not here has ended."""

    def add(self, session: UserSession, now: int) -> None:
        """Store a new session durably. Sessions that have expired at `now` are deleted."""
        ...

    def find(self, session_id: str) -> UserSession | None:
        """Return a session. Cheap, because it is called for every request of one."""
        ...

    def of(self, account_id: str) -> list[UserSession]:
        """Return the sessions of an account, oldest first."""
        ...

    def all(self) -> list[UserSession]:
        """Return all sessions, oldest first, also those that have expired and are not deleted yet."""
        ...

    def check(self, session_id: str, checked_at: int, sealed: bytes) -> None:
        """Replace the time of the last check and what is sealed. Nothing changes for a session that has ended."""
        ...

    def remove(self, session_id: str) -> bool:
        """End a session; return whether it was there."""
        ...

    def remove_all(self, account_id: str) -> int:
        """End all sessions of an account; return how many there were."""
        ...


class Authoriser(Protocol):
    """Port of authorisation decisions."""

    @property
    def mark(self) -> object:
        """An object that is another one once the policies have changed; cheap."""
        ...

    def check(self, principal: Principal, action: Action, resource: str) -> None:
        """Raise if `principal` is not allowed `action` on `resource` (`endpoint/late-arrival`, `project`).

        Raises:
            Denied: The action is not allowed; `authenticated` is True. The message is the same whether or not there is
                such a resource.
        """
        ...

    def allows(self, principal: Principal, action: Action, resource: str) -> bool:
        """Return whether `principal` is allowed `action` on `resource`."""
        ...

    def allows_everywhere(self, principal: Principal, action: Action) -> bool:
        """Return whether it is known that `principal` is allowed `action` on every resource."""
        ...


def visible(
    authoriser: Authoriser,
    principal: Principal,
    action: Action,
    kind: str,
    items: Iterable[T],
    name: Callable[[T], str],
) -> list[T]:
    """Return the items of a list on which `principal` is allowed `action`, in their order. Every list uses it.

    Args:
        kind: Kind of the resources: `model`.
        name: Returns the name of an item's resource.
    """
    if authoriser.allows_everywhere(principal, action):
        return list(items)
    return [item for item in items if authoriser.allows(principal, action, f"{kind}/{name(item)}")]


class KeyService(Protocol):
    """A holder of master keys, which never leave it, that encrypts data keys under them. Thread-safe.

    A context is a text that is authenticated, not stored: what was wrapped in one is unwrapped in that one only. Every
    method may raise `Unavailable` where the service does not answer, and `Denied` where it refuses the caller.
    """

    def version(self) -> str:
        """Return the version of the master key under which `wrap` encrypts."""
        ...

    def wrap(self, keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        """Encrypt keys of 1 to 4,096 bytes, each in its context, under the current master key."""
        ...

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        """Decrypt keys that were wrapped under any version of the master key.

        Raises:
            Corrupt: One was changed, was wrapped in another context or by another service, or its version is unknown.
        """
        ...

    def rotate(self) -> str:
        """Make a new version of the master key, and return its name. Older ones still unwrap.

        Raises:
            Invalid: Its versions are made elsewhere; the message says how.
        """
        ...

    def describe(self) -> str:
        """Return where the master keys are and in how many versions, without secrets, for a person."""
        ...


class DataKeyStore(Protocol):
    """Wrapped data keys. Durable; of callers at once each sees a change whole or not at all."""

    def add(self, key: StoredKey) -> StoredKey:
        """Store a key, unless its purpose has one of that number; return the one that is there."""
        ...

    def newest(self, purpose: str) -> StoredKey | None:
        """Return the key of a purpose with the highest number."""
        ...

    def find(self, ids: Sequence[str]) -> list[StoredKey | None]:
        """Return the keys in the order asked; `None` for an unknown id."""
        ...

    def all(self) -> list[StoredKey]:
        """Return all keys by purpose, then number."""
        ...

    def rewrap(self, keys: Sequence[StoredKey], wrapped: Sequence[Wrapped]) -> int:
        """Replace what is stored of keys by another wrapping of the same secrets; return how many were replaced.

        Args:
            keys: As they were read: one that was changed since stays as it is.
        """
        ...


class SubjectKeyStore(Protocol):
    """Wrapped keys of subjects. Durable; of callers at once each sees a change whole or not at all."""

    def add(self, keys: Sequence[StoredSubject]) -> None:
        """Store the keys of those subjects that have none and were not destroyed."""
        ...

    def find(self, subjects: Sequence[bytes]) -> list[StoredSubject | None]:
        """Return the keys of subjects by their digests, in the order asked; `None` for an unknown one."""
        ...

    def subjects(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the digests of the subjects of keys, in the order asked; `None` where an id is no subject's."""
        ...

    def destroy(self, subjects: Sequence[bytes], at: int) -> None:
        """Delete what is wrapped of subjects, with or without a key, and mark them as destroyed for ever.

        Args:
            at: UTC epoch microseconds; of those that are destroyed already the first instant stays.
        """
        ...

    def destroyed(self) -> list[bytes]:
        """Return the digests of all destroyed subjects."""
        ...


class Erasures(Protocol):
    """Erasures of subjects with their receipts, and legal holds. Durable."""

    def begin(self, erasure: Erasure) -> None:
        """Record that an erasure begins."""
        ...

    def finish(self, erasure_id: str, receipt: str, at: int) -> None:
        """Store the receipt of an erasure."""
        ...

    def all(self, limit: int = 100) -> list[Erasure]:
        """Return erasures, the newest first."""
        ...

    def unfinished(self) -> list[Erasure]:
        """Return erasures that began and did not end, the newest first."""
        ...

    def mark(self) -> str:
        """Return a text that changes whenever an erasure begins or ends."""
        ...

    def hold(self, hold: LegalHold) -> None:
        """Hold a subject; an older hold of it is replaced."""
        ...

    def release(self, subject: bytes) -> bool:
        """End the hold of a subject; return whether there was one."""
        ...

    def holds(self) -> list[LegalHold]:
        """Return all holds, the oldest first."""
        ...


class PrivacyBudgets(Protocol):
    """Spent privacy budgets of sources, in millionths of epsilon. Durable; any process may spend.

    A catalog that is restored from a backup gives nothing back.
    """

    def spend(self, source: str, millionths: int, budget: int) -> bool:
        """Spend, unless more than the budget were spent then; return whether it was."""
        ...

    def spent(self, source: str) -> int:
        """Return what was spent, 0 of a source that is not known."""
        ...


class Keys(Protocol):
    """Data keys as those who encrypt and decrypt see them. Thread-safe."""

    def newest(self, purpose: str) -> DataKey:
        """Return the key that encrypts for a purpose, made if there is none.

        Raises:
            Unavailable: The key service, or the catalog, does not answer, and no copy of the key is valid any more.
        """
        ...

    def secrets(self, ids: Sequence[str]) -> list[bytes]:
        """Return the secrets of keys, for decryption.

        Raises:
            Corrupt: A key is unknown, or cannot be unwrapped.
            Unavailable: As `newest`.
        """
        ...
