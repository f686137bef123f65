"""Standing of a budget: spent, forecast, and the level that follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainspring.core.money import Money
from mainspring.core.time import format_instant
from mainspring.cost.budgets.declaring import Budget
from mainspring.cost.budgets.forecasting import Forecast, forecast
from mainspring.security.quota import MONTH, period

LEVELS = WITHIN, WARNED, EXCEEDED = "within", "warned", "exceeded"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in its month.

    Attributes:
        begin, end: Of the month, UTC epoch microseconds.
        forecast: Of the month's end; `None` with too few days.
        unpriced: Whether some of what was used has no price, so that more was spent.
        level: "within", "warned" or "exceeded".
        why: One sentence; empty within the budget.
    """

    budget: str
    of: str
    begin: int
    end: int
    amount: Money
    spent: Money
    forecast: Forecast | None
    unpriced: bool
    level: str
    why: str
    act: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.spent.nanos / self.amount.nanos


def judge(budget: Budget, days: Mapping[int, int], now: int, *, unpriced: bool = False) -> Standing:
    """Return where a budget stands.

    Args:
        days: Start of a day (UTC) -> what was spent, in billionths of the budget's currency, of past months too.
    """
    begin, end = period(MONTH, now)
    amount = budget.amount
    spent = Money(amount.currency, sum(each for day, each in days.items() if begin <= day < end and day <= now))
    ahead = forecast(days, begin, end, now)
    level, why = _level(budget, amount, spent, ahead, end)
    return Standing(
        budget=budget.name, of=budget.named, begin=begin, end=end, amount=amount, spent=spent, forecast=ahead,
        unpriced=unpriced, level=level, why=why, act=budget.act,
    )  # fmt: skip


def _level(budget: Budget, amount: Money, spent: Money, ahead: Forecast | None, end: int) -> tuple[str, str]:
    share = spent.nanos / amount.nanos
    told = f"{spent} of {amount} ({share:.0%}) are spent by {budget.named}"
    until = format_instant(end)[:10]
    if spent.nanos >= amount.nanos:
        return EXCEEDED, f"{told}; the month ends on {until}."
    if share >= budget.warn:
        return WARNED, f"{told}, and the warning is at {budget.warn:.0%}{_ahead(ahead, amount)}."
    if ahead is not None and ahead.low > amount.nanos:
        return WARNED, f"{told}{_ahead(ahead, amount)}."
    return WITHIN, ""


def _ahead(ahead: Forecast | None, amount: Money) -> str:
    if ahead is None:
        return ""
    low, expected, high = (Money(amount.currency, each) for each in (ahead.low, ahead.expected, ahead.high))
    return f"; the month's end is forecast at {expected} (nine times of ten between {low} and {high})"
