"""Personal values, and pseudonyms of them, for those who may see them, by policy on columns."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.model import Action, Principal
from mainspring.security.ports import visible

_PURPOSE = "pseudonyms"  # of the data key
_BYTES = 8


def revealed(
    project: Project,
    principal: Principal,
    source: str,
    columns: Sequence[str],
    action: str,
    resource: str,
    *,
    subject: str | None = None,
) -> tuple[str, ...]:
    """Return those of a source's personal columns whose values a caller may see, after an event that names them.

    Args:
        action: Action of the event, with its resource: `rows.reveal`, `source/customers`.
        subject: The person whom the values are about.

    Raises:
        Denied: There are such columns, and the caller may see none of them.
    """
    allowed, reveal = project.authoriser, Action.COLUMN_REVEAL
    found = visible(allowed, principal, reveal, "column", columns, lambda each: f"{source}/{each}")
    if columns and not found:
        allowed.check(principal, reveal, f"column/{source}/{columns[0]}")
    if found:
        audit(project, action, resource, ", ".join(found), subject=subject, who=principal.id)
    return tuple(found)


def pseudonyms(
    project: Project, principal: Principal, source: str, columns: Sequence[str]
) -> dict[str, Callable[[Any], str]]:
    """Return what makes pseudonyms of values, by column, for those of a source's columns whose pseudonyms a caller may
    see.

    A pseudonym is an HMAC of the column and the value as text: equal values of a column have the same, until
    `mainspring encryption rotate --data-keys` makes another key.
    """
    action = Action.COLUMN_PSEUDONYM
    found = visible(project.authoriser, principal, action, "column", columns, lambda each: f"{source}/{each}")
    secret = project.data_keys.newest(_PURPOSE).secret if found else b""
    return {column: partial(_pseudonym, secret, f"{source}/{column}") for column in found}


def _pseudonym(secret: bytes, column: str, value: Any) -> str:
    return "~" + hmac.digest(secret, f"{column}\0{value}".encode(), "sha256")[:_BYTES].hex()
