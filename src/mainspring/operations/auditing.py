"""Events of the audit log: actor, action and subject, by the machine's clock."""

from __future__ import annotations

from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import AuditEvent


def audit(project: Project, action: str, resource: str, detail: str = "", *, who: str | None = None) -> None:
    """Append one event to the audit log, durably.

    Args:
        action: A verb such as `train` or `keys.create`.
        resource: A kind and a name: `model/late-arrival`.
        who: By default the user of this process.
    """
    actor = local_user() if who is None else who
    project.audit.append([AuditEvent(project.wall.now(), actor, action, resource, detail)])
