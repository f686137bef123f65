"""Console sessions of people who signed in at an identity provider.

The cookie is as that of other sessions. Beyond it a row in the catalog has to be there, so that sessions can be ended,
one by one or all of a person; it has the provider's tokens, in an envelope. Every `CHECK_US` a request of the session
asks the provider whether the person is still there.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from mainspring.core.errors import Conflict, Corrupt, Denied, Unavailable
from mainspring.core.ids import new_id
from mainspring.core.time import MINUTE, SECOND, Clock
from mainspring.security import envelopes
from mainspring.security.model import Account, DataKey, Kind, Session, UserSession
from mainspring.security.oidc import Attempt, Identity, Provider, Tokens
from mainspring.security.ports import Accounts, Keys, UserSessions
from mainspring.security.sessions import LIFETIME, Sessions

SESSIONS = "sessions"  # purpose of the data keys, and name of the store in envelopes
CHECK_US = 45 * SECOND
AWAY_US = 15 * MINUTE  # how long sessions go on without an answer of the provider
RETRY_US = 10 * SECOND  # after a failed try, before a request of another session tries; of the same one, twice as long
ATTEMPT_US = 10 * MINUTE
_PURPOSE = "sign-in"
_ENDED = "Your session has ended."
_KEEP_FAILED = 4096


class _Kept(msgspec.Struct, frozen=True):
    """The provider's tokens of a session, as they are sealed."""

    access: str
    refresh: str


class _Begun(msgspec.Struct, frozen=True):
    """An attempt to sign in, as its cookie has it."""

    id: str
    state: str
    nonce: str
    verifier: str
    wanted: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person who has just signed in: the session's cookie, the page that was wanted."""

    account: Account
    cookie: str
    wanted: str
    new: bool  # whether the account was made now


class SignIns:
    """Sign-in at one provider, and the sessions that follow.

    Args:
        record: Called with the account, action, resource and detail of an audit event.
        redirect: Address of this console to which the provider sends browsers back.
        keys: Encrypt the tokens. Without them nobody signs in, and a session counts as one whose provider is away.
    """

    def __init__(
        self,
        provider: Provider,
        accounts: Accounts,
        sessions: Sessions,
        store: UserSessions,
        clock: Clock,
        *,
        keys: Keys,
        redirect: str,
        record: Callable[[str, str, str, str], object],
    ) -> None:
        self.redirect = redirect
        self._record = record
        self._provider = provider
        self._accounts = accounts
        self._sessions = sessions
        self._store = store
        self._clock = clock
        self._keys = keys
        self._checking = [threading.Lock() for _ in range(64)]  # by session: one request asks
        self._failed: dict[str, int] = {}  # by session, when its last try failed
        self._away: int | None = None  # when the last try of any session failed

    def begin(self, wanted: str) -> tuple[str, str]:
        """Return the provider's address for a browser, and the cookie that it has to bring back.

        Raises:
            Unavailable, Invalid: The provider does not answer, or as it must not.
        """
        address, attempt = self._provider.begin(self.redirect, wanted)
        begun = _Begun(secrets.token_hex(16), attempt.state, attempt.nonce, attempt.verifier, wanted)
        return address, self._sessions.seal(_PURPOSE, msgspec.json.encode(begun), ATTEMPT_US)

    def finish(self, cookie: str | None, answer: Mapping[str, str]) -> SignedIn:
        """Open the session of the person with whom a browser came back. An attempt is used once.

        Raises:
            Denied: The attempt is another browser's, is used or too old, the provider refuses, or the person is not
                admitted or is disabled here.
            Unavailable: The provider does not answer.
        """
        content = self._sessions.unseal(_PURPOSE, cookie)
        if content is None:
            raise Denied(
                "The sign-in does not belong to this browser, or took over ten minutes.",
                fix=f"open the console at {self.redirect.removesuffix('/login/callback')} and begin again.",
            )
        begun = msgspec.json.decode(content, type=_Begun)
        if not self._sessions.use(begun.id, ATTEMPT_US):
            raise Denied("The sign-in was used before.", fix="begin again at the log-in page.")
        attempt = Attempt(begun.state, begun.nonce, begun.verifier, begun.wanted)
        identity, tokens = self._provider.finish(attempt, self.redirect, answer)
        account, new = self._account_of(identity)
        return SignedIn(account, self._open(account, tokens), begun.wanted, new)

    def _open(self, account: Account, tokens: Tokens) -> str:
        key = self._keys.newest(SESSIONS)
        cookie, session = self._sessions.open_for_user(account.id)
        now = session.opened_at
        sealed = _sealed(key, session.id, tokens)
        self._store.add(UserSession(session.id, account.id, now, now + LIFETIME, now, sealed), now)
        return cookie

    def account(self, session: Session) -> str:
        """Return the id of the account of a session, after a check at the provider where that is due.

        Raises:
            Denied: The session was ended here or at the provider.
        """
        kept = self._store.find(session.id)
        if kept is None:
            raise Denied(_ENDED, fix="sign in again.")
        now = self._clock.now()
        if now - kept.checked_at >= CHECK_US and not self._rests(kept, now):
            asking = self._checking[hash(kept.id) % len(self._checking)]
            # While another request asks, this one goes on by the last answer, unless that is too old.
            if asking.acquire(blocking=now - kept.checked_at >= AWAY_US):
                try:
                    self._check(kept.id)
                finally:
                    asking.release()
        return kept.account_id

    def _rests(self, kept: UserSession, now: int) -> bool:
        """Return whether a try failed so recently that the provider is not asked again yet.

        Raises:
            Unavailable: So it is, and the session's last answer is too old to go on by.
        """
        failed = self._failed.get(kept.id)
        rests = failed is not None and now - failed < 2 * RETRY_US
        rests = rests or (self._away is not None and now - self._away < RETRY_US)
        if rests and now - kept.checked_at >= AWAY_US:
            raise Unavailable(
                "The identity provider or the key service does not answer.", fix="try again in half a minute."
            )
        return rests

    def _check(self, session_id: str) -> None:
        kept, now = self._store.find(session_id), self._clock.now()
        if kept is None:
            raise Denied(_ENDED, fix="sign in again.")
        if now - kept.checked_at < CHECK_US or self._rests(kept, now):
            return  # another request has asked
        if self._away is not None:
            self._away = now  # one request tries, those of other sessions go on
        try:
            key = self._keys.newest(SESSIONS)  # before the provider voids the tokens that are kept
            tokens = self._asked(kept, key)
        except Unavailable:
            if len(self._failed) >= _KEEP_FAILED:
                self._failed.clear()
            self._failed[session_id] = self._away = self._clock.now()
            if now - kept.checked_at >= AWAY_US:
                raise
            return
        except Denied as denied:
            self._away = None
            if self._store.remove(session_id):
                self._record(kept.account_id, "console.session.ended", "console", denied.what)
            raise
        self._away = None
        self._failed.pop(session_id, None)
        self._store.check(session_id, now, _sealed(key, session_id, tokens))

    def _asked(self, kept: UserSession, key: DataKey) -> Tokens:
        """Ask the provider for new tokens, where it gave one to refresh with, and about the person."""
        tokens, account = self._unsealed(kept), self._accounts.find(kept.account_id)
        if tokens is None or account is None:
            raise Denied(_ENDED, fix="sign in again.")
        fresh = tokens
        if tokens.refresh:
            fresh = self._provider.refresh(tokens.refresh)
            # The old tokens may be void from now on, whatever fails below.
            self._store.check(kept.id, kept.checked_at, _sealed(key, kept.id, fresh))
        if fresh.identity:
            identity = self._provider.identify(fresh, None)
        else:
            last = Identity(account.issuer, account.subject, account.name, account.email, account.provider_groups)
            identity = self._provider.look_up(fresh.access, last, refreshed=bool(tokens.refresh))
        if (identity.issuer, identity.subject) != (account.issuer, account.subject):
            raise Denied("The identity provider answers for another person.", fix="sign in again.")
        self._account_of(identity)
        return fresh

    def _account_of(self, identity: Identity) -> tuple[Account, bool]:
        return account_of(self._accounts, identity, self._clock.now(), self._record)

    def close(self, session: Session) -> str:
        """End a session, and return the address that ends it at the provider too; empty if there is none."""
        self._store.remove(session.id)
        return self._provider.end_session(self.redirect.removesuffix("callback").rstrip("/"))

    def _unsealed(self, kept: UserSession) -> Tokens | None:
        try:
            (secret,) = self._keys.secrets([envelopes.key_of(kept.sealed)])
            found = msgspec.json.decode(envelopes.unseal(secret, SESSIONS, kept.id, kept.sealed), type=_Kept)
        except Corrupt:  # of an earlier version, or its key is not in this catalog
            return None
        return Tokens("", found.access, found.refresh, 0)


def _sealed(key: DataKey, session_id: str, tokens: Tokens) -> bytes:
    return envelopes.seal(key, SESSIONS, session_id, msgspec.json.encode(_Kept(tokens.access, tokens.refresh)))


def account_of(
    accounts: Accounts, identity: Identity, now: int, record: Callable[[str, str, str, str], object]
) -> tuple[Account, bool]:
    """Return the account of a person, with the provider's newest words on it, and whether it was made now.

    It is found by issuer and subject alone. A new one has no role. A change of the provider's groups is recorded.

    Raises:
        Denied: The account is disabled.
    """
    found = accounts.of_subject(identity.issuer, identity.subject)
    if found is None:
        made = Account(
            new_id(), Kind.USER, identity.name, identity.email, identity.issuer, identity.subject, identity.groups, now
        )
        try:
            accounts.add(made)
        except Conflict:  # another request of the same person was faster
            found = accounts.of_subject(identity.issuer, identity.subject)
            if found is None:
                raise
        else:
            return made, True
    if found.disabled_at is not None:
        raise Denied("Your account was disabled.", fix="ask an administrator of this installation.")
    said = replace(found, name=identity.name, email=identity.email, provider_groups=identity.groups)
    if set(said.provider_groups) != set(found.provider_groups):
        # Before the change: groups may bring roles, and none come without an event.
        groups = f"groups at the identity provider: {list(said.provider_groups)}, before {list(found.provider_groups)}"
        record(found.id, "accounts.provider-groups", f"{found.kind}/{found.id}", groups)
    if said != found:
        accounts.describe(said.id, said.name, said.email, said.provider_groups)
    return said, False
