"""Console sessions: cookies that stand in for an API key in a browser, and tickets that open one.

A cookie contains the session, signed with an HMAC. Only the ends of sessions are stored, so a restart neither ends nor
revives one. A session names the key it was opened with, so revoking the key ends it: every request calls
`keys.Authenticator.principal`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import msgspec

from mainspring.core.errors import Denied
from mainspring.core.time import HOUR, MINUTE, Clock
from mainspring.security.model import Principal, Session
from mainspring.security.ports import EndedSessions

LIFETIME = 12 * HOUR
TICKET_LIFETIME = 10 * MINUTE
USER = "user:"  # begins the `principal_id` of a person who signed in
_MAC_BYTES = 32


def session_secret(pepper: bytes) -> bytes:
    """Return the secret of an installation's sessions."""
    return hmac.digest(pepper, b"console sessions", hashlib.sha256)


class Sessions:
    """Console sessions: open, read and close."""

    def __init__(self, secret: bytes, clock: Clock, ended: EndedSessions, *, lifetime_us: int = LIFETIME) -> None:
        self._secret = secret
        self._clock = clock
        self._lifetime_us = lifetime_us
        self._ended = ended

    def open(self, principal: Principal) -> str:
        """Return a cookie for a person who has just logged in with a key."""
        return self._signed("session", principal.id, self._lifetime_us)

    def open_for_user(self, account_id: str) -> tuple[str, Session]:
        """Return a cookie for a person who has just signed in, and its session."""
        session = self._made(USER + account_id, self._lifetime_us)
        return self._sealed("session", msgspec.json.encode(session)), session

    def ticket(self, principal_id: str) -> str:
        """Return a text that opens one session of a key, once, within ten minutes."""
        return self._signed("ticket", principal_id, TICKET_LIFETIME)

    def redeem(self, ticket: str) -> str:
        """Return the id of the key whose session a ticket opens, and make the ticket void.

        Raises:
            Denied: It is not ours, has expired or was used. Of those who use it at once, one succeeds.
        """
        found = self._read("ticket", ticket)
        if found is None or not self._ended.add(found.id, found.expires_at, self._clock.now()):
            raise Denied(
                "The log-in link has expired, or was used before.", fix="run `mainspring console` for another link."
            )
        return found.principal_id

    def read(self, cookie: str | None) -> Session | None:
        """Return the session, `None` if it is not ours, was modified, has expired or was closed."""
        return self._read("session", cookie)

    def _signed(self, purpose: str, principal_id: str, lifetime_us: int) -> str:
        return self._sealed(purpose, msgspec.json.encode(self._made(principal_id, lifetime_us)))

    def _made(self, principal_id: str, lifetime_us: int) -> Session:
        now = self._clock.now()
        return Session(secrets.token_hex(16), principal_id, now, now + lifetime_us)

    def _read(self, purpose: str, text: str | None) -> Session | None:
        content = self._unsealed(purpose, text)
        if content is None:
            return None
        session = msgspec.json.decode(content, type=Session)
        if session.expires_at <= self._clock.now() or self._ended.holds(session.id):
            return None
        return session

    def seal(self, purpose: str, content: bytes, lifetime_us: int) -> str:
        """Return a text that a browser keeps for a while, and cannot change. It can read it."""
        expires = self._clock.now() + lifetime_us
        return self._sealed(purpose, expires.to_bytes(8, "big") + content)

    def unseal(self, purpose: str, text: str | None) -> bytes | None:
        """Return the content of such a text, `None` if it is not ours, was modified or has expired."""
        content = self._unsealed(purpose, text)
        if content is None or int.from_bytes(content[:8], "big") <= self._clock.now():
            return None
        return content[8:]

    def use(self, once: str, lifetime_us: int) -> bool:
        """Return whether this id, which cannot come back after `lifetime_us`, is used for the first time."""
        now = self._clock.now()
        return self._ended.add(once, now + lifetime_us, now)

    def _sealed(self, purpose: str, content: bytes) -> str:
        return base64.urlsafe_b64encode(self._mac(purpose, content) + content).decode()

    def _unsealed(self, purpose: str, text: str | None) -> bytes | None:
        try:
            raw = base64.b64decode((text or "").encode(), altchars=b"-_", validate=True)
        except ValueError:
            return None
        mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return content if hmac.compare_digest(mac, self._mac(purpose, content)) else None

    def close(self, session: Session) -> None:
        """End a session before its expiry, even if its cookie lives on."""
        self._ended.add(session.id, session.expires_at, self._clock.now())

    def csrf(self, session: Session) -> str:
        """Return the CSRF token, which the session's own pages send with each change."""
        return self._mac("csrf", session.id.encode()).hex()

    def check_csrf(self, session: Session, token: str | None) -> None:
        """Raise if `token` is not the session's.

        Raises:
            Denied: It is missing or another's.
        """
        if not hmac.compare_digest(self.csrf(session).encode(), (token or "").encode()):
            raise Denied(
                "The form does not belong to your session.", authenticated=True, fix="reload the page and try again."
            )

    def _mac(self, purpose: str, content: bytes) -> bytes:
        return hmac.digest(self._secret, purpose.encode() + b"\0" + content, hashlib.sha256)
