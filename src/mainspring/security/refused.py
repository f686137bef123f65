"""Audit of rejected log-in attempts: a flood makes few events, but each attempt is counted."""

from __future__ import annotations

import threading

from mainspring.core.time import MINUTE, Clock, format_instant
from mainspring.security.attempts import network
from mainspring.security.model import AuditEvent
from mainspring.security.ports import AuditLog

FLUSH_S = 10  # maximum time until a count is written: the most that a killed process loses
_MOST_KINDS = 200  # (address, reason) pairs per minute
_OTHERS = "other addresses"


class Refusals:
    """Writer of rejected attempts to the audit log.

    For each address, reason and minute, the first attempt is written at once. The others are written as a count, one
    event per `flush`.

    Args:
        action, resource: Action and resource of the events.
    """

    def __init__(self, audit: AuditLog, clock: Clock, *, action: str, resource: str) -> None:
        self._audit, self._clock = audit, clock
        self._action, self._resource = action, resource
        self._changing = threading.Lock()
        self._counts: dict[tuple[int, str, str], int] = {}  # (minute, address, reason) -> attempts not written yet

    def add(self, address: str, reason: str) -> bool:
        """Record an attempt. The reason must not contain the input, which may be a password.

        Returns:
            Whether a count was begun, to be flushed within `FLUSH_S`.
        """
        now = self._clock.now()
        with self._changing:
            kind = (now // MINUTE, network(address) or "an unknown address", reason)
            if kind not in self._counts and sum(each[0] == kind[0] for each in self._counts) >= _MOST_KINDS:
                kind = (kind[0], _OTHERS, "refused")
            self._write(now, self._over(now))
            if kind not in self._counts:
                self._audit.append([self._event(now, kind[1], reason)])
                self._counts[kind] = 0
                return False
            self._counts[kind] += 1
            return self._counts[kind] == 1

    def flush(self) -> None:
        """Write all counts so far."""
        now = self._clock.now()
        with self._changing:
            self._write(now, list(self._counts))

    def _over(self, now: int) -> list[tuple[int, str, str]]:
        # A clock that was ahead leaves minutes in the future, which are complete as well.
        return [kind for kind in self._counts if kind[0] != now // MINUTE]

    def _write(self, now: int, kinds: list[tuple[int, str, str]]) -> None:
        events = [
            self._event(now, address, f"{count:,} more in the minute from {format_instant(minute * MINUTE)}: {reason}")
            for minute, address, reason in kinds
            if (count := self._counts[minute, address, reason])
        ]
        if events:
            self._audit.append(events)
        self._counts |= dict.fromkeys(kinds, 0)
        for kind in self._over(now):
            del self._counts[kind]

    def _event(self, at: int, address: str, detail: str) -> AuditEvent:
        return AuditEvent(at, f"unknown at {address}", self._action, self._resource, detail)
