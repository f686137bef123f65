"""Console sessions of people who signed in at an identity provider.

The cookie is as that of other sessions. Beyond it a row in the catalog has to be there, so that sessions can be ended,
one by one or all of a person; it has the provider's tokens, sealed. Every `CHECK_US` a request of the session asks the
provider whether the person is still there.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mainspring.core.errors import Conflict, Denied, Unavailable
from mainspring.core.ids import new_id
from mainspring.core.time import MINUTE, SECOND, Clock
from mainspring.security.model import Account, Kind, Session, UserSession
from mainspring.security.oidc import Attempt, Identity, Provider, Tokens
from mainspring.security.ports import Accounts, UserSessions
from mainspring.security.sessions import LIFETIME, Sessions

CHECK_US = 45 * SECOND
AWAY_US = 15 * MINUTE  # how long sessions go on without an answer of the provider
ATTEMPT_US = 10 * MINUTE
_NONCE_BYTES = 12
_PURPOSE = "sign-in"
_ENDED = "Your session has ended."


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
        ended: Called with the id of an account whose session the provider has ended, and the reason.
        redirect: Address of this console to which the provider sends browsers back.
        secret: Secret of this installation, for the tokens' seals.
    """

    def __init__(
        self,
        provider: Provider,
        accounts: Accounts,
        sessions: Sessions,
        store: UserSessions,
        clock: Clock,
        *,
        secret: bytes,
        redirect: str,
        ended: Callable[[str, str], None],
    ) -> None:
        self.redirect = redirect
        self._ended = ended
        self._provider = provider
        self._accounts = accounts
        self._sessions = sessions
        self._store = store
        self._clock = clock
        self._cipher = AESGCM(hmac.digest(secret, b"tokens of user sessions", hashlib.sha256))
        self._checking = [threading.Lock() for _ in range(64)]  # by session: one request asks, the others wait for it

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
        account, new = account_of(self._accounts, identity, self._clock.now())
        return SignedIn(account, self._open(account, tokens), begun.wanted, new)

    def _open(self, account: Account, tokens: Tokens) -> str:
        cookie, session = self._sessions.open_for_user(account.id)
        now = session.opened_at
        sealed = self._seal(session.id, tokens)
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
        if self._clock.now() - kept.checked_at >= CHECK_US:
            with self._checking[hash(kept.id) % len(self._checking)]:
                self._check(kept.id)
        return kept.account_id

    def _check(self, session_id: str) -> None:
        kept, now = self._store.find(session_id), self._clock.now()
        if kept is None:
            raise Denied(_ENDED, fix="sign in again.")
        if now - kept.checked_at < CHECK_US:
            return  # another request has asked
        try:
            tokens = self._asked(kept)
        except Unavailable:
            if now - kept.checked_at >= AWAY_US:
                raise
            return
        except Denied as denied:
            if self._store.remove(session_id):
                self._ended(kept.account_id, denied.what)
            raise
        self._store.check(session_id, now, self._seal(session_id, tokens))

    def _asked(self, kept: UserSession) -> Tokens:
        """Ask the provider for new tokens, or where it gave none to refresh with, about the person."""
        tokens, account = self._unsealed(kept), self._accounts.find(kept.account_id)
        if tokens is None or account is None:
            raise Denied(_ENDED, fix="sign in again.")
        if not tokens.refresh:
            if not self._provider.present(tokens.access, account.subject):
                raise Denied(_ENDED, fix="sign in again.")
            return tokens
        fresh = self._provider.refresh(tokens.refresh)
        if fresh.identity:
            identity = self._provider.identify(fresh, None)
            if (identity.issuer, identity.subject) != (account.issuer, account.subject):
                raise Denied("The identity provider answers for another person.", fix="sign in again.")
            account_of(self._accounts, identity, self._clock.now())
        return fresh

    def close(self, session: Session) -> str:
        """End a session, and return the address that ends it at the provider too; empty if there is none."""
        self._store.remove(session.id)
        return self._provider.end_session(self.redirect.removesuffix("callback").rstrip("/"))

    def _seal(self, session_id: str, tokens: Tokens) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        content = msgspec.json.encode(_Kept(tokens.access, tokens.refresh))
        return nonce + self._cipher.encrypt(nonce, content, session_id.encode())

    def _unsealed(self, kept: UserSession) -> Tokens | None:
        nonce, content = kept.sealed[:_NONCE_BYTES], kept.sealed[_NONCE_BYTES:]
        try:
            found = msgspec.json.decode(self._cipher.decrypt(nonce, content, kept.id.encode()), type=_Kept)
        except (InvalidTag, ValueError):  # of another installation's secret
            return None
        return Tokens("", found.access, found.refresh, 0)


def account_of(accounts: Accounts, identity: Identity, now: int) -> tuple[Account, bool]:
    """Return the account of a person, with the provider's newest words on it, and whether it was made now.

    It is found by issuer and subject alone. A new one has no role.

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
    if said != found:
        accounts.describe(said.id, said.name, said.email, said.provider_groups)
    return said, False
