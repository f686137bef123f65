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
        now = self._clock.now()
        content = msgspec.json.encode(Session(secrets.token_hex(16), principal_id, now, now + lifetime_us))
        return base64.urlsafe_b64encode(self._mac(purpose, content) + content).decode()

    def _read(self, purpose: str, text: str | None) -> Session | None:
        try:
            raw = base64.b64decode((text or "").encode(), altchars=b"-_", validate=True)
        except ValueError:
            return None
        mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(purpose, content)):
            return None
        session = msgspec.json.decode(content, type=Session)
        if session.expires_at <= self._clock.now() or self._ended.holds(session.id):
            return None
        return session

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
