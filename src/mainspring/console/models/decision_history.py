"""History of decisions on a model's versions: alias moves, approvals, withdrawals, waivers, marks for deletion."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.project import Project
from mainspring.registry.model import AliasMove

PAGE = 50


@dataclass(frozen=True, slots=True)
class Happening:
    """One decision. For an alias, `old` is its previous version, None if there was none; for a withdrawal, `whose` is
    the approver; for a waiver and its end, the gate.
    """

    at: int  # UTC epoch microseconds
    kind: str  # alias, approval, withdrawal, waiver, waived (the end of a waiver), deletion
    alias: str
    old: str | None
    version: str
    actor: str
    reason: str
    whose: str = ""

    @property
    def back(self) -> bool:
        """True if an alias moved to an older version."""
        if self.old is None or not (self.old.isdigit() and self.version.isdigit()):
            return False
        return int(self.version) < int(self.old)


@dataclass(frozen=True, slots=True)
class History:
    """Some of a model's decisions, newest first, from the `begin`-th on."""

    rows: tuple[Happening, ...]
    begin: int
    of: int

    @property
    def next(self) -> int | None:
        """Offset of the next page; `None` on the last."""
        end = self.begin + len(self.rows)
        return end if end < self.of else None


def history(project: Project, model: str, *, alias: str = "", begin: int = 0, limit: int = PAGE) -> History:
    """Return the decisions on a model, newest first; with an alias, its moves alone."""
    found = happenings(project, model)
    if alias:
        found = [each for each in found if each.alias == alias]
    return History(tuple(found[begin : begin + limit]), begin, len(found))


def happenings(project: Project, model: str) -> list[Happening]:
    """Return all decisions on a model, newest first."""
    found = [_move(move) for move in project.versions.moves(model)]
    withdrawn = project.approvals.withdrawn(model)
    found += [
        Happening(each.at, "approval", "", None, each.version, each.approver, each.reason)
        for each in (*project.approvals.of(model), *(taken.approval for taken in withdrawn))
    ]
    found += [
        Happening(
            each.at, "withdrawal", "", None, each.approval.version, each.actor, each.reason, each.approval.approver
        )
        for each in withdrawn
    ]
    for each in project.waivers.of(model):
        found.append(Happening(each.at, "waiver", "", None, each.version, each.actor, each.reason, each.gate))
        if each.ended_at is not None:
            found.append(Happening(each.ended_at, "waived", "", None, each.version, each.ended_by, "", each.gate))
    found += [
        Happening(each.at, "deletion", "", None, each.version, each.actor, each.reason)
        for each in project.deletions.all()
        if each.model == model
    ]
    return sorted(found, key=lambda each: each.at, reverse=True)


def _move(move: AliasMove) -> Happening:
    return Happening(move.at, "alias", move.alias, move.old, move.new, move.actor, move.reason)
