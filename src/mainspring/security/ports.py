"""What security needs of a backend: a place for keys, and for audit events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mainspring.security.model import Action, ApiKey, AuditEvent, Principal


class KeyStore(Protocol):
    """API keys by id."""

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

    def revoke(self, key_id: str, at: int) -> None:
        """Mark a key as revoked from `at`.

        Raises:
            NotFound: There is no such key.
        """
        ...


class AuditLog(Protocol):
    """An append-only list of what was done."""

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Add events, in order, durably."""
        ...

    def read(self, limit: int = 100) -> list[AuditEvent]:
        """Return the newest events, newest first."""
        ...


class Authoriser(Protocol):
    """The one place that says yes or no."""

    def check(self, principal: Principal, action: Action, resource: str) -> None:
        """Return if `principal` may do `action` on `resource` (`endpoint/late-arrival`, `console`).

        Raises:
            Denied: They may not; `authenticated` is True.
        """
        ...
