"""Keys and audit events in memory: for tests, and for a process that should leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from mainspring.core.errors import Conflict, NotFound
from mainspring.security.model import ApiKey, AuditEvent


class MemoryKeyStore:
    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}
        self._lock = threading.Lock()

    def add(self, key: ApiKey) -> None:
        with self._lock:
            if key.id in self._keys:
                raise Conflict(f"There is a key {key.id} already.")
            self._keys[key.id] = key

    def find(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    def all(self) -> list[ApiKey]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    def mark(self) -> str:
        keys = self.all()
        return f"{len(keys)} {sum(key.revoked_at is not None for key in keys)}"

    def revoke(self, key_id: str, at: int) -> None:
        with self._lock:
            key = self._keys.get(key_id)
            if key is None:
                raise NotFound(f"There is no key {key_id}.", fix="run `mainspring keys list`.")
            if key.revoked_at is None:
                self._keys[key_id] = replace(key, revoked_at=at)


class MemoryEndedSessions:
    def __init__(self) -> None:
        self._ended: dict[str, int] = {}  # id -> when it would have expired

    def add(self, session_id: str, expires_at: int, now: int) -> None:
        self._ended = {key: until for key, until in self._ended.items() if until > now} | {session_id: expires_at}

    def holds(self, session_id: str) -> bool:
        return session_id in self._ended


class MemoryAuditLog:
    def __init__(self) -> None:
        self._events: list[AuditEvent] = []

    def append(self, events: Sequence[AuditEvent]) -> None:
        self._events.extend(events)

    def read(self, limit: int = 100) -> list[AuditEvent]:
        return self._events[: -limit - 1 : -1]
