"""Scopes of budgets: the parts of a cost that count for each."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.cost.budgets.declaring import ENDPOINT, MODEL, TEAM, Budget
from mainspring.cost.splitting import shares
from mainspring.cost.statement import OTHER, Part
from mainspring.cost.usage import ENDPOINT as OF_ENDPOINT
from mainspring.cost.usage import LANGUAGE_MODEL, MACHINE

_COUNTS = ("requests", "rows", "prompt", "completion", "wall")  # which cost nothing by themselves


def spending(budget: Budget, parts: Iterable[Part]) -> tuple[dict[int, int], set[str]]:
    """Return day -> billionths that a budget's scope spent, and the measures that it used without a known price.

    A project spends all that its machines cost, idle ones too, but not what other processes used. Of a part with
    several teams each has an equal share, the first ones a billionth more.
    """
    days: dict[int, int] = {}
    unpriced: set[str] = set()
    for part in parts:
        if not _counts(budget, part):
            continue
        if part.nanos is None:
            if part.measure not in _COUNTS and part.amount:
                unpriced.add(part.measure)
            continue
        nanos = part.nanos
        if budget.scope == TEAM:
            teams = part.subject.teams
            nanos = shares(nanos, [1] * len(teams))[teams.index(budget.team)]
        days[part.day] = days.get(part.day, 0) + nanos
    return days, unpriced


def _counts(budget: Budget, part: Part) -> bool:
    subject = part.subject
    if budget.scope == TEAM:
        return budget.team in subject.teams
    if budget.scope == ENDPOINT:
        return subject.kind in (OF_ENDPOINT, LANGUAGE_MODEL) and subject.id == budget.endpoint
    if budget.scope == MODEL:
        return subject.model == budget.model
    return (subject.kind, subject.id) != (MACHINE, OTHER)
