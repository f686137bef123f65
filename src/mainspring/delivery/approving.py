"""Approval gates: a second approver, other than the author, must approve a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.core.errors import Denied, Invalid
from mainspring.delivery.model import GateResult
from mainspring.registry.model import Approval, ModelVersion
from mainspring.training.gate_kinds import Gate

APPROVED = "approved"  # kind of the gate


def needed(gates: Sequence[Gate], always: int) -> int:
    """Return the number of approvals that a version needs: the maximum of its gates and the profile's setting.

    Raises:
        Invalid: A gate's number is not a positive whole number.
    """
    asked = [gate.value for gate in gates if gate.kind == APPROVED]
    if any(value != int(value) or value < 1 for value in asked):
        raise Invalid(
            f"A gate asks for {min(asked):g} approvals.", fix="write approved(by=1), or another whole number."
        )
    return max([always, *map(int, asked)])


def check_approver(approver: str, version: ModelVersion, authors: Sequence[str], person: str | None = None) -> None:
    """Raise if `approver` may not approve a version.

    Args:
        person: For an API key, its owner or else who created it, empty if unknown; `None` for a person.

    Raises:
        Denied: The approver is an author, an author created the approver's key, or one of the two is unknown.
    """
    name = f"{version.model}:{version.version}"
    if not authors:
        raise Denied(
            f"The author of {name} is unknown, so nobody can be verified to be another person.",
            authenticated=True,
            fix="train or register it again: since this release the run records its author.",
        )
    if approver in authors:
        raise Denied(
            f"{approver} is the author of {name} and cannot approve it.",
            authenticated=True,
            fix="let somebody else approve it.",
        )
    if person == "":
        raise Denied(
            f"The creator of {approver} is unknown, so its holder may be an author of {name}.",
            authenticated=True,
            fix="approve with a key that was created since this release, by `mainspring keys create`.",
        )
    if person in authors:
        raise Denied(
            f"{person} is the author of {name} and created {approver}, which therefore cannot approve it.",
            authenticated=True,
            fix="approve with a key that somebody else created, or as another user of this machine.",
        )


def is_another(approver: str, authors: Sequence[str], people: Mapping[str, str]) -> bool:
    """Return whether an approver is known to be another person than every author; see `check_approver`, `counted`."""
    person = people.get(approver, approver)
    return bool(authors and person) and not {approver, person} & set(authors)


def counted(
    version: ModelVersion, authors: Sequence[str], approvals: Sequence[Approval], people: Mapping[str, str]
) -> dict[str, str]:
    """Return person -> one of the names under which the person gave a valid approval of a version.

    Approvals by an author, by a key of an author, or of another bundle do not count. Several keys of one person count
    once.

    Args:
        people: For API keys among the approvers: approver -> the key's owner or else who created it, empty if unknown.
    """
    persons: dict[str, str] = {}
    for each in approvals:
        person = people.get(each.approver, each.approver)
        if each.digest == version.digest and person and person not in authors:
            persons.setdefault(person, each.approver)
    return persons


def verdict(
    count: int,
    version: ModelVersion,
    authors: Sequence[str],
    approvals: Sequence[Approval],
    people: Mapping[str, str] | None = None,
) -> GateResult:
    """Return the gate's result: whether enough people approved a version; see `counted`."""
    who = set(counted(version, authors, approvals, people or {}).values())
    missing = max(0, count - len(who))
    name = f"{version.model}:{version.version}"
    return GateResult(
        gate=f"approved by {count}",
        against="approvals",
        value=None if missing else float(len(who)),
        needed=None if missing else float(count),
        passed=not missing,
        short_by=float(missing),
        note=(
            f"approved by {', '.join(sorted(who)) or 'nobody'}; somebody other than the author must run "
            f"`mainspring models approve {name}`"
        )
        if missing
        else "",
    )
