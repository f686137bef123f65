"""Approval gates: a second approver, other than the author, must approve a version."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mainspring.core.errors import Denied, Invalid
from mainspring.delivery.model import GateResult
from mainspring.registry.model import Approval, ModelVersion
from mainspring.security.people import IMPORTED, KEY, LOCAL, People
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


def check_approver(approver: str, version: ModelVersion, authors: Sequence[str], people: People) -> None:
    """Raise if `approver` is not known to be another person than the authors of a version.

    Raises:
        Denied: The approver is an author or a program, or one of them is unknown.
    """
    name = f"{version.model}:{version.version}"
    if not authors:
        raise Denied(
            f"The author of {name} is unknown, so nobody can be verified to be another person.",
            authenticated=True,
            fix="train or register it again: since this release the run records its author.",
        )
    check_apart(approver, authors, people, f"is the author of {name}", f"approve {name}")


def check_apart(who: str, others: Sequence[str], people: People, role: str, act: str) -> None:
    """Raise if `who` is not known to be another person than `others`.

    Args:
        role: What the others are: `is the author of late:3`.
        act: Action in question: `approve late:3`.

    Raises:
        Denied: It is one of them or a program, or one of them is unknown.
    """
    trouble = people.unclear(who, others)
    if people.same(who, others):
        what, fix = f"{who} {role}, as far as is known, and cannot {act}.", "let somebody else do it."
    elif people.program(who):
        what, fix = f"{who} belongs to a program, which cannot {act}.", "let a person do it."
    elif people.disabled(who):
        what, fix = (
            f"{who} belongs to a disabled account, and cannot {act}.",
            "let somebody else do it.",
        )
    elif trouble is not None:
        what = f"{trouble[0]} {trouble[1]}, so {who} may be the one who {role}, and cannot {act}."
        bind = f"bind ACCOUNT {shlex.quote(trouble[0])}"
        fix = (
            f"let another administrator run `mainspring users {bind}` once, or `mainspring service-accounts {bind}` "
            "where only programs are that user, such as workers; or start again, signed in with `mainspring login`."
        )
        if trouble[0].startswith(KEY):
            fix = "use a key that was made by `mainspring keys create`."
        elif not trouble[0].startswith((LOCAL, IMPORTED)):
            fix = "train or register it again."
    else:
        return
    raise Denied(what, authenticated=True, fix=fix)


def counted(
    version: ModelVersion, authors: Sequence[str], approvals: Sequence[Approval], people: People
) -> tuple[str, ...]:
    """Return the approvers whose approvals of a version count, sorted: one for each person.

    Approvals of another bundle do not count, nor those by somebody not known to be another person than the authors.
    """
    found: list[str] = []
    for each in approvals:
        right = each.digest == version.digest and authors and people.apart(each.approver, authors)
        if right and not people.same(each.approver, found):
            found.append(each.approver)
    return tuple(sorted(found))


def verdict(
    count: int,
    version: ModelVersion,
    authors: Sequence[str],
    approvals: Sequence[Approval],
    people: People,
) -> GateResult:
    """Return the gate's result: whether enough people approved a version; see `counted`."""
    who = counted(version, authors, approvals, people)
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
            f"approved by {', '.join(who) or 'nobody'}; somebody other than the author must run "
            f"`mainspring models approve {name}`"
        )
        if missing
        else "",
    )
