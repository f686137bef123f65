"""Refused log-ins in the audit log: few events, and no attempt uncounted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from kit.auditing import KEY, audit_log
from mainspring.core.errors import Unavailable
from mainspring.core.time import MINUTE, SECOND, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.model import AuditEvent
from mainspring.security.refused import Refusals


def refusals(audit: CatalogAuditLog, clock: ManualClock) -> Refusals:
    return Refusals(audit, clock, action="login.refused", resource="console")


def counted(audit: CatalogAuditLog) -> int:
    """Return how many attempts the log tells of."""
    more = [re.match(r"([\d,]+) more ", event.detail) for event in audit.read(10_000)]
    return sum(int(found[1].replace(",", "")) if found else 1 for found in more)


def test_of_an_address_and_a_minute_the_first_is_written_and_the_others_are_counted() -> None:
    audit, clock = audit_log(), ManualClock(100 * MINUTE)
    refused = refusals(audit, clock)
    begun = sum(refused.add("10.0.0.1", "That is not an API key.") for _ in range(5000))
    assert begun == 1  # a flood is not a flood of timers
    assert [(event.actor, event.detail) for event in audit.read()] == [
        ("unknown at 10.0.0.1", "That is not an API key.")
    ]
    clock.advance(MINUTE)
    refused.flush()
    newest = audit.read(1)[0]
    assert newest.detail == "4,999 more in the minute from 1970-01-01T01:40:00Z: That is not an API key."
    refused.flush()
    assert counted(audit) == 5000


def test_counts_are_written_within_the_minute_too_each_attempt_once() -> None:
    audit, clock = audit_log(), ManualClock(100 * MINUTE)
    refused = refusals(audit, clock)
    assert [refused.add("10.0.0.1", "no") for _ in range(5)] == [False, True, False, False, False]
    clock.advance(10 * SECOND)
    refused.flush()
    assert (counted(audit), len(audit.read())) == (5, 2)  # what a kill takes now was counted since
    assert [refused.add("10.0.0.1", "no") for _ in range(3)] == [True, False, False]
    refused.flush()
    refused.flush()
    assert (counted(audit), len(audit.read())) == (8, 3)
    clock.advance(MINUTE)
    refused.add("10.0.0.1", "no")
    assert (counted(audit), len(audit.read())) == (9, 4)


def test_a_flood_from_many_addresses_is_bounded_and_counted() -> None:
    audit, clock = audit_log(), ManualClock(100 * MINUTE)
    refused = refusals(audit, clock)
    for number in range(3000):
        refused.add(f"10.0.{number // 250}.{number % 250}", "That is not an API key.")
        clock.advance(MINUTE // 3000)
    refused.flush()
    assert len(audit.read(10_000)) < 300
    assert counted(audit) == 3000


def test_the_counts_of_a_minute_come_with_the_next_attempt() -> None:
    audit, clock = audit_log(), ManualClock(100 * MINUTE)
    refused = refusals(audit, clock)
    for _ in range(3):
        refused.add("10.0.0.1", "no")
    clock.advance(90 * SECOND)
    refused.add("10.0.0.2", "no")
    assert [event.actor for event in audit.read()] == [
        "unknown at 10.0.0.2", "unknown at 10.0.0.1", "unknown at 10.0.0.1"
    ]  # fmt: skip
    assert counted(audit) == 4


def test_what_cannot_be_written_now_is_written_later() -> None:
    class Away(CatalogAuditLog):
        away = False

        def append(self, events: Sequence[AuditEvent]) -> None:
            if self.away:
                raise Unavailable("The catalog does not answer.")
            super().append(events)

    audit, clock = Away(memory_catalog(), lambda: KEY), ManualClock(100 * MINUTE)
    refused = refusals(audit, clock)
    for _ in range(3):
        refused.add("10.0.0.1", "no")
    clock.advance(MINUTE)
    audit.away = True
    with pytest.raises(Unavailable):
        refused.flush()
    audit.away = False
    refused.flush()
    assert counted(audit) == 3
