"""Personal values for those who may see them: by policy on columns, with an event in the audit log before."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.model import Action, Principal
from mainspring.security.ports import visible


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
