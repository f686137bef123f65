"""Callers, their keys, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    """An action on an installation. Every route and command requires one."""

    PREDICT = "predict"  # request predictions from an endpoint and read its schema
    VIEW = "view"  # read models, data, predictions, monitoring
    SCRAPE = "scrape"  # read metrics
    MANAGE = "manage"  # change anything


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored: an HMAC of its token, never the secret."""

    id: str
    name: str
    scopes: frozenset[Action]
    digest: bytes  # HMAC-SHA-256 of the whole token under the installation's pepper
    created_at: int  # UTC epoch microseconds
    expires_at: int
    revoked_at: int | None = None
    created_by: str = ""  # the person who made it, or whose key made it; empty for older keys


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
class AuditEntry:
    """An event with its number in the log: its place in the tree, from 0, by which a search goes on too."""

    number: int
    event: AuditEvent


class AuditRecord(NamedTuple):
    """An event as it is stored, with what makes it a leaf of the tree. A tuple, because millions are read at once."""

    number: int
    at: int
    actor: str
    action: str
    resource: str
    detail: str
    commitment: bytes | None  # to the event's subject; None if it never had one
    leaf: bytes  # hash of the leaf as it was appended
    salt: bytes | None  # by which the commitment was made; None once the subject is erased
    subject: str | None


@dataclass(frozen=True, slots=True)
class AuditTree:
    """The log's tree as it is stored; none of it is checked.

    Attributes:
        origin: Name of the log.
        size: Number of events, as far as the tree has them.
        frontier: Roots of the complete subtrees that it consists of, the largest first.
        note: Head of the tree, signed; empty if no process with the key has written yet.
        first, last: Smallest and largest number of a stored event; `None` if there are none.
    """

    origin: str
    size: int
    frontier: tuple[bytes, ...]
    note: str
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events a search finds: those that have every given part, whatever the case of its letters.

    Attributes:
        action: Beginning of the action: `keys` finds `keys.create`.
        since: UTC epoch microseconds, included.
        until: UTC epoch microseconds, excluded; `None` for no end.
    """

    actor: str = ""
    action: str = ""
    resource: str = ""
    detail: str = ""
    since: int = 0
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """Session of a person who logged in with the key `principal_id`. The key is checked on every request."""

    id: str
    principal_id: str
    opened_at: int  # UTC epoch microseconds
    expires_at: int
