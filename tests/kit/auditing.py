"""Audit logs with a key of the tests, and what a person with rights on the catalog does to them."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.model import AuditEvent
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import Head
from mainspring.security.verification import Damage, verify_log

KEY = SigningKey(bytes(range(32)))


def audit_log(catalog: sa.Engine | None = None, key: SigningKey = KEY) -> CatalogAuditLog:
    """Return the log of a catalog, by default of a new one in memory."""
    return CatalogAuditLog(memory_catalog() if catalog is None else catalog, lambda: key)


def event(number: int) -> AuditEvent:
    """Return an event that differs from those of other numbers in all but its action."""
    return AuditEvent(1_000 * number, f"local:ana{number % 3}", "promote", f"model/late-{number}", f"naïve {number}")


def filled(catalog: sa.Engine, count: int, at_once: int = 100) -> CatalogAuditLog:
    """Return a log of so many events, appended in batches."""
    log = audit_log(catalog)
    for begin in range(0, count, at_once):
        log.append([event(number) for number in range(begin, min(begin + at_once, count))])
    return log


def found(log: CatalogAuditLog, anchored: Iterable[Head] = ()) -> list[tuple[str, int | None, int | None]]:
    """Return what a verification finds: kind, first and last event of each damage."""
    return [_brief(each) for each in verify_log(log, KEY.public, anchored).damage]


def _brief(damage: Damage) -> tuple[str, int | None, int | None]:
    return damage.kind, damage.first, damage.last


def tamper(catalog: sa.Engine, *statements: str) -> None:
    """Run statements of SQL on the catalog, in one transaction."""
    with catalog.begin() as connection:
        for each in statements:
            connection.execute(sa.text(each))
