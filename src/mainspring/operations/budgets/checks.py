"""Checks of `doctor`: prices of this machine, and whether budgets can be judged by them."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.cost.budgets.judging import EXCEEDED
from mainspring.operations.budgets.standing import standings
from mainspring.operations.findings import Finding, well
from mainspring.operations.prices import show_price
from mainspring.project import Project

_NAME = "prices"


def check_prices(project: Project) -> Iterator[Finding]:
    """Yield nothing where neither prices nor budgets are stated. An old price is said, and is no fault."""
    budgets = project.definitions.budgets
    found = show_price(project)
    if found.rates is None:
        if budgets:
            fix = 'state a price: [profiles.NAME.prices], then machine = "0.40 EUR" or instance = "..."'
            yield Finding(check=_NAME, ok=False, detail=f"{len(budgets)} budgets count nothing without prices", fix=fix)
        return
    said = "; ".join([f"an hour costs {found.rates.machine_hour:.4g} {found.rates.currency}", *found.warnings])
    yield well(_NAME, said)
    for each in standings(project):
        if each.unpriced:
            fix = "state what is missing in the profile's prices (`mainspring prices show`)"
            detail = f"the budget {each.budget} does not count all: some of what was used has no price"
            yield Finding(check=_NAME, ok=False, detail=detail, fix=fix)
        elif each.level == EXCEEDED:
            fix = "`mainspring budgets` has what it holds back; raise it, or wait for the month's end"
            yield Finding(check=_NAME, ok=False, detail=f"the budget {each.budget} is exceeded: {each.why}", fix=fix)
