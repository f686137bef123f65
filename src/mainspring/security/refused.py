"""Refused attempts to log in, in the audit log: a flood of them is a few events a minute, and all are counted."""

from __future__ import annotations

import threading

from mainspring.core.time import MINUTE, Clock, format_instant
from mainspring.security.attempts import network
from mainspring.security.model import AuditEvent
from mainspring.security.ports import AuditLog

_MOST_KINDS = 200  # of (address, reason), a minute
_OTHERS = "other addresses"


class Refusals:
    """Notes refused attempts in the audit log.

    Of an address, a reason and a minute the first is written at once, the others as one event with their count when the
    minute is over.

    Args:
        action, resource: Of the events.
    """

    def __init__(self, audit: AuditLog, clock: Clock, *, action: str, resource: str) -> None:
        self._audit, self._clock = audit, clock
        self._action, self._resource = action, resource
        self._changing = threading.Lock()
        self._counts: dict[tuple[int, str, str], int] = {}  # (minute, address, reason) -> attempts after the first

    def add(self, address: str, reason: str) -> bool:
        """Note an attempt. The reason must not have what was typed: that may be a password.

        Returns:
            Whether a count was begun, to be flushed when the minute is over.
        """
        now = self._clock.now()
        with self._changing:
            kind = (now // MINUTE, network(address) or "an unknown address", reason)
            if kind not in self._counts and sum(each[0] == kind[0] for each in self._counts) >= _MOST_KINDS:
                kind = (kind[0], _OTHERS, "refused")
            self._write(now, now // MINUTE)
            if kind not in self._counts:
                self._audit.append([self._event(now, kind[1], reason)])
                self._counts[kind] = 0
                return False
            self._counts[kind] += 1
            return self._counts[kind] == 1

    def flush(self, *, whole: bool = False) -> None:
        """Write the counts of the minutes that are over; if `whole`, of the present one too."""
        now = self._clock.now()
        with self._changing:
            self._write(now, now // MINUTE + whole)

    def _write(self, now: int, before: int) -> None:
        # A clock that was ahead leaves minutes that are still to come: they are over as well.
        over = {kind: count for kind, count in self._counts.items() if kind[0] < before or kind[0] > now // MINUTE}
        events = [
            self._event(now, address, f"{count:,} more in the minute from {format_instant(minute * MINUTE)}: {reason}")
            for (minute, address, reason), count in over.items()
            if count
        ]
        if events:
            self._audit.append(events)
        for kind in over:
            del self._counts[kind]

    def _event(self, at: int, address: str, detail: str) -> AuditEvent:
        return AuditEvent(at, f"unknown at {address}", self._action, self._resource, detail)
