"""Events of the audit log: actor, action and subject, by the machine's clock; and the log's verification."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from mainspring.core.errors import Corrupt
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import AuditEvent

if TYPE_CHECKING:
    from mainspring.security.verification import Verdict

VERIFIED = "audit.verify"


def audit(project: Project, action: str, resource: str, detail: str = "", *, who: str | None = None) -> None:
    """Append one event to the audit log, durably.

    Args:
        action: A verb such as `train` or `keys.create`.
        resource: A kind and a name: `model/late-arrival`.
        who: By default the user of this process.
    """
    actor = local_user() if who is None else who
    project.audit.append([AuditEvent(project.wall.now(), actor, action, resource, detail)])


def verify_audit(project: Project, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Verify the audit log, and append the outcome to it.

    Args:
        progress: Called with the number of verified events, and that of all.
    """
    from mainspring.security.verification import verify_log

    verdict = verify_log(project.audit, project.signing_key.public, progress=progress)
    found = f"{len(verdict.damage)} findings" if verdict.damage else "whole"
    with suppress(Corrupt):  # the head is damaged, which the verdict says
        audit(project, VERIFIED, "audit", f"{verdict.events} events: {found}")
    return verdict
