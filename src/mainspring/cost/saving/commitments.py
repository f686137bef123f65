"""Level of a commitment, such as reserved machines or a savings plan, that would have cost least over recorded use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Commitment:
    """A level, and what it would have cost.

    Attributes:
        level: Units that are paid whether they are used or not.
        cost: Of all periods; `without`: with no commitment.
        worst: Cost of the window in which the commitment did worst, as compared to none; `worst_without`: the same
            without it; `worst_at`: the window's first period.
        used: Share of the committed units that were used.
        break_even: Share of the time in which a unit has to be used for its commitment to pay.
    """

    level: float
    cost: float
    without: float
    worst: float
    worst_without: float
    worst_at: int
    used: float
    break_even: float

    @property
    def saved(self) -> float:
        return self.without - self.cost


def best_commitment(
    use: Sequence[float], on_demand: float, committed: float, *, window: int = 30, whole: bool = False
) -> Commitment:
    """Return the level that costs least over the periods.

    The cost is convex and changes its slope only at levels that were used: one of those, or none, is best. A unit pays
    if it is used in a larger share of the periods than the ratio of the two prices.

    Args:
        use: Units by period, such as machines by day.
        on_demand, committed: Price of a unit and period.
        window: Periods of which the worst are looked for; at most all.
        whole: Whether only whole units can be bought.

    Raises:
        Invalid: There is no period, or a number is negative.
    """
    if not use or min(use) < 0 or on_demand <= 0 or committed < 0:
        raise Invalid(
            f"{len(use)} periods at {on_demand:g} and {committed:g} make no commitment.",
            fix="meter some days first, and state prices above 0.",
        )
    ratio = committed / on_demand
    ordered = sorted(use, reverse=True)
    # The highest level that is reached in more than `ratio` of the periods.
    place = int(ratio * len(ordered) + 1e-9)
    level = ordered[place] if place < len(ordered) else 0.0
    if whole:
        level = min((float(int(level)), float(int(level) + 1)), key=lambda each: _cost(use, each, on_demand, committed))
    extra = [_one(each, level, on_demand, committed) - each * on_demand for each in use]
    length = min(window, len(use))
    at, worst = 0, sum(extra[:length])
    lost = worst
    for place in range(1, len(use) - length + 1):
        worst += extra[place + length - 1] - extra[place - 1]
        if worst > lost:
            at, lost = place, worst
    inside = use[at : at + length]
    return Commitment(
        level=level,
        cost=_cost(use, level, on_demand, committed),
        without=sum(use) * on_demand,
        worst=_cost(inside, level, on_demand, committed),
        worst_without=sum(inside) * on_demand,
        worst_at=at,
        used=sum(min(each, level) for each in use) / (level * len(use)) if level else 0.0,
        break_even=ratio,
    )


def _one(use: float, level: float, on_demand: float, committed: float) -> float:
    return level * committed + max(0.0, use - level) * on_demand


def _cost(use: Sequence[float], level: float, on_demand: float, committed: float) -> float:
    return sum(_one(each, level, on_demand, committed) for each in use)
