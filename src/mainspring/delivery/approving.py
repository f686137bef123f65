"""Approvals as a gate: somebody other than the author said that a version may go live."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.errors import Denied, Invalid
from mainspring.delivery.model import GateResult
from mainspring.registry.model import Approval, ModelVersion
from mainspring.training.model import Gate

APPROVED = "approved"  # the kind of gate


def needed(gates: Sequence[Gate], always: int) -> int:
    """Return how many approvals a version needs: what its model's gates ask for, at least what the profile does.

    Raises:
        Invalid: A gate asks for no whole number of them.
    """
    asked = [gate.value for gate in gates if gate.kind == APPROVED]
    if any(value != int(value) or value < 1 for value in asked):
        raise Invalid(
            f"A gate asks for {min(asked):g} approvals.", fix="write approved(by=1), or another whole number."
        )
    return max([always, *map(int, asked)])


def check_approver(approver: str, version: ModelVersion, authors: Sequence[str]) -> None:
    """Return if `approver` may approve a version.

    Raises:
        Denied: They made it, or nobody knows who did.
    """
    name = f"{version.model}:{version.version}"
    if not authors:
        raise Denied(
            f"Nobody knows who made {name}, so nobody can be told to be another.",
            authenticated=True,
            fix="train or register it again: since this release the run says who did.",
        )
    if approver in authors:
        raise Denied(
            f"{approver} made {name} and cannot approve it.", authenticated=True, fix="let somebody else approve it."
        )


def verdict(count: int, version: ModelVersion, authors: Sequence[str], approvals: Sequence[Approval]) -> GateResult:
    """Return whether enough people approved a version. An author's word, or one for another bundle, does not count."""
    who = {each.approver for each in approvals if each.digest == version.digest} - set(authors)
    missing = max(0, count - len(who))
    name = f"{version.model}:{version.version}"
    return GateResult(
        gate=f"approved by {count}",
        against="approvals",
        value=None if missing else float(len(who)),
        needed=None if missing else float(count),
        passed=not missing,
        short_by=float(missing),
        note=f"{', '.join(sorted(who)) or 'nobody'} approved it; somebody other than its author runs "
        f"`mainspring models approve {name}`"
        if missing
        else "",
    )
