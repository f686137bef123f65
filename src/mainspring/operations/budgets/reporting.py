"""Budgets as commands show them: where they stand, and what holds."""

from __future__ import annotations

import msgspec

from mainspring.core.money import NANOS
from mainspring.core.time import format_instant
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.signals import BUDGET
from mainspring.operations.budgets.standing import standings
from mainspring.operations.defending import live
from mainspring.project import Project


class BudgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in this month, in units of its currency.

    Attributes:
        of: Whose spending counts.
        until: End of the month.
        share: Of the amount that is spent.
        expected, low, high: Forecast of the month's end, and bounds that nine months of ten keep to; null with under a
            week of complete days.
        unpriced: Whether something was used whose price is unknown: more was spent.
        level: "within", "warned" or "exceeded".
        act: Declared actions.
        holds: Actions in force.
        incident: Id of its open incident; empty without one.
    """

    budget: str
    of: str
    until: str
    currency: str
    amount: float
    spent: float
    share: float
    expected: float | None
    low: float | None
    high: float | None
    unpriced: bool
    level: str
    why: str
    act: list[str]
    holds: list[str]
    incident: str


def budgets(project: Project) -> list[BudgetReport]:
    """Return the declared budgets, in the order of `standings`. Raises as it does."""
    open_ = {each.cause.name: each for each in project.incidents.open() if each.cause.kind == BUDGET}
    found, now = [], project.wall.now()
    for each in standings(project):
        incident: Incident | None = open_.get(each.budget)
        ahead = each.forecast
        found.append(
            BudgetReport(
                budget=each.budget,
                of=each.of,
                until=format_instant(each.end),
                currency=each.amount.currency,
                amount=each.amount.units,
                spent=each.spent.units,
                share=each.share,
                expected=None if ahead is None else ahead.expected / NANOS,
                low=None if ahead is None else ahead.low / NANOS,
                high=None if ahead is None else ahead.high / NANOS,
                unpriced=each.unpriced,
                level=each.level,
                why=each.why,
                act=list(each.act),
                holds=[] if incident is None else [taken.action for taken in live(incident, now)],
                incident="" if incident is None else incident.id,
            )
        )
    return found
