"""Errors for decisions that exist already, or do not exist."""

from __future__ import annotations

from mainspring.core.errors import Conflict, NotFound
from mainspring.registry.model import Approval, Deletion, TrustedKey


def approved_already(approval: Approval) -> Conflict:
    return Conflict(
        f"{approval.approver} has approved {approval.model}:{approval.version} already.",
        fix="let somebody else approve it, if more are needed.",
    )


def not_approved(model: str, version: str, approver: str) -> NotFound:
    return NotFound(
        f"There is no approval of {model}:{version} by {approver} that could be withdrawn.",
        fix=f"`mainspring models show {model}:{version}` lists those that stand.",
    )


def marked_already(deletion: Deletion) -> Conflict:
    return Conflict(
        f"The version {deletion.model}:{deletion.version} is marked for deletion already.",
        fix=f"`mainspring models restore {deletion.model}:{deletion.version}` takes that back.",
    )


def trusted_already(key: TrustedKey) -> Conflict:
    return Conflict(
        f"The key {key.public.hex()[:16]}… or the name {key.name!r} is among the trusted keys already.",
        fix="`mainspring models trust` lists them; --forget NAME takes one away.",
    )
