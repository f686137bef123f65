"""Judgement of budgets by the monitor: a budget that is warned of is a ticket, one that is exceeded a page."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.time import HOUR
from mainspring.cost.budgets.judging import EXCEEDED, WITHIN, Standing
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import BUDGET, Signal
from mainspring.project import Project

_JUDGED_HOURS = 24


def judged(project: Project, standings: Sequence[Standing]) -> Judged:
    """Return the judgement of the last day's hours, by the machine's clock.

    Spending only grows within a month. So a budget that is exceeded now has been since its open incident began.
    """
    now = project.wall.now()
    last = now // HOUR * HOUR
    hours = [(start, start + HOUR) for start in range(last - _JUDGED_HOURS * HOUR, last + HOUR, HOUR)]
    open_ = {each.cause.name: each.last for each in project.incidents.open() if each.cause.kind == BUDGET}
    signals = [
        _signal(standing, start, end)
        for standing in standings
        if standing.level != WITHIN
        for start, end in hours
        if start >= max(standing.begin, min(last, open_.get(standing.budget, last)))
    ]
    return Judged("", BUDGET, tuple(hours), tuple(signals))


def _signal(standing: Standing, start: int, end: int) -> Signal:
    exceeded = standing.level == EXCEEDED
    return Signal(
        channel=BUDGET, endpoint="", statistic=standing.level, column=standing.budget, start=start, end=end,
        severity=2.0 if exceeded else 1.0, page=exceeded, value=standing.spent.units, expected=standing.amount.units,
        detail=f"The budget {standing.budget!r} is {standing.level}: {standing.why}",
    )  # fmt: skip
