"""Where the declared budgets stand, by the cost of what was used."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.errors import MainspringError
from mainspring.core.money import Money
from mainspring.core.nearest import meant
from mainspring.core.time import DAY
from mainspring.cost.budgets.declaring import Budget
from mainspring.cost.budgets.forecasting import MOST_DAYS
from mainspring.cost.budgets.judging import EXCEEDED, LEVELS, WITHIN, Standing, judge
from mainspring.cost.budgets.scopes import spending
from mainspring.cost.machine import exchanged
from mainspring.operations.cost.reporting import cost_parts
from mainspring.operations.cost.teams import known_teams
from mainspring.project import Project

_LONGEST_MONTH = 31 * DAY


def standings(project: Project, budgets: Iterable[Budget] | None = None) -> list[Standing]:
    """Return where budgets stand in this month, by the machine's clock: first the exceeded, then those
    that are warned of; of one level the fullest first.

    Args:
        budgets: By default the declared ones.

    Raises:
        MixedCurrencies: One is in another currency than the machine's price, and the profile states no rate.
    """
    chosen = list(project.definitions.budgets.values() if budgets is None else budgets)
    if not chosen:
        return []
    now = project.wall.now()
    today = now // DAY * DAY
    parts, rates = cost_parts(project, today - max(MOST_DAYS * DAY, _LONGEST_MONTH), now + 1)
    found = []
    for budget in chosen:
        days, unpriced = spending(budget, parts)
        currency = budget.amount.currency
        if rates is not None and rates.currency != currency:
            exchange = project.settings.prices.exchange
            days = {day: exchanged(Money(rates.currency, each), currency, exchange).nanos for day, each in days.items()}
        found.append(judge(budget, days, now, unpriced=bool(unpriced) or rates is None))
    return sorted(found, key=lambda each: (-LEVELS.index(each.level), -each.share, each.budget))


def notices(project: Project) -> list[str]:
    """Return sentences on declared budgets that are warned of or exceeded, or that nothing is counted of."""
    of_teams = [each for each in project.definitions.budgets.values() if each.team]
    known = known_teams(project) if of_teams else set()
    said = [
        f"The budget {each.name!r} is of the team {each.team!r}, which is neither declared nor a group of accounts, so "
        f"nothing is charged to it: {meant(each.team, known)}"
        for each in of_teams
        if each.team not in known
    ]
    try:
        found = standings(project)
    except MainspringError as error:
        return [*said, f"The budgets cannot be judged: {error}"]
    for each in found:
        if each.level != WITHIN:
            acts = f" It begins with {', '.join(each.act)}." if each.level == EXCEEDED and each.act else ""
            said.append(f"The budget {each.budget!r} is {each.level}: {each.why}{acts}")
        if each.unpriced:
            said.append(
                f"The budget {each.budget!r} counts only what has a price: the profile's [prices] lack some "
                "(`mainspring prices show`)."
            )
    return said
