"""Callers, their keys, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """An action on an installation. Every route and verb names one."""

    PREDICT = "predict"  # ask an endpoint for predictions and read its schema
    VIEW = "view"  # look at models, data, predictions, monitors
    SCRAPE = "scrape"  # read metrics
    MANAGE = "manage"  # change anything


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is stored: never its secret, only an HMAC of it."""

    id: str
    name: str
    scopes: frozenset[Action]
    digest: bytes  # HMAC-SHA-256 of the whole token under the installation's pepper
    created_at: int  # UTC epoch microseconds
    expires_at: int
    revoked_at: int | None = None
    created_by: str = ""  # the person who made it, or whose key made it; empty for keys from before this was kept


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller."""

    id: str
    name: str
    scopes: frozenset[Action]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One audited action."""

    at: int  # UTC epoch microseconds
    actor: str
    action: str
    resource: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A person in a browser who has shown the key `principal_id`. Whether that key still stands is asked each time."""

    id: str
    principal_id: str
    opened_at: int  # UTC epoch microseconds
    expires_at: int
