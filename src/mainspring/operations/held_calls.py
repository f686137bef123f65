"""Calls of tools by language models that wait for a person: see and decide them."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Denied, NotFound
from mainspring.core.time import format_instant
from mainspring.delivery.approving import check_apart
from mainspring.llm.held_calls import STANDS_US, HeldCall, Status
from mainspring.operations.auditing import audit
from mainspring.operations.models.curating import approver_of, decider, people
from mainspring.project import Project
from mainspring.security.model import Action, Principal


def described(call: HeldCall) -> dict[str, Any]:
    """Return a call as JSON values, its times as text."""
    decided = None if call.decided_at is None else format_instant(call.decided_at)
    return {**msgspec.to_builtins(call), "asked_at": format_instant(call.asked_at), "decided_at": decided}


def held_calls(project: Project, *, all_: bool = False, principal: Principal | None = None) -> list[HeldCall]:
    """Return the calls of the last day that wait, or with `all_` those of the last 30 days, of the language models for
    which who asks may decide.

    Args:
        principal: Who asks; by default the user of this process.
    """
    since = 0 if all_ else project.wall.now() - STANDS_US
    found = project.held_calls.all(since=since, waiting=not all_)
    may = {model for model in {each.model for each in found} if _may(project, model, principal)}
    return [each for each in found if each.model in may]


def decide(
    project: Project, call: str, *, approve: bool, reason: str = "", principal: Principal | None = None
) -> HeldCall:
    """Approve a call, so that its caller may make it once within a day, or deny it.

    Args:
        principal: Who decides; by default the user of this process.

    Raises:
        NotFound: There is no such call.
        Conflict: It does not wait any more.
        Denied: Who decides may not, or is not known to be another person than the caller, where the profile asks for
            approvals by others (`approvals`) or has an identity provider.
    """
    found = project.held_calls.get(call)
    if found is None:
        raise NotFound(f"There is no held call {call[:140]!r}.", fix="run `mainspring llm approvals`.")
    who = _decider(project, found.model, principal)
    if approve and (project.settings.approvals or project.settings.sign_in is not None):
        check_apart(who, [found.caller], people(project), f"asked for the call {call}", "approve it")
    status: Status = "approved" if approve else "denied"
    action = "llm.approve" if approve else "llm.deny"
    with project.audit.together():
        if not project.held_calls.decide(call, status, by=who, at=project.wall.now()):
            raise Conflict(f"The call {call} does not wait any more.", fix="run `mainspring llm approvals --all`.")
        detail = f"{found.tool} of {found.model} for {found.caller}: {found.digest} {reason}".strip()
        audit(project, action, f"call/{call}", detail, who=who)
    decided = project.held_calls.get(call)
    return found if decided is None else decided


def _decider(project: Project, model: str, principal: Principal | None) -> str:
    if principal is None:
        return decider(project, None, Action.TOOL_APPROVE, f"endpoint/{model}")
    project.authoriser.check(principal, Action.TOOL_APPROVE, f"endpoint/{model}")
    return approver_of(principal)


def _may(project: Project, model: str, principal: Principal | None) -> bool:
    try:
        _decider(project, model, principal)
    except Denied:
        return False
    return True
