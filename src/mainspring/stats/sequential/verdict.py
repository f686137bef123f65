"""Decision of a look: several guards and goals, each with its evidence, become one value with its reasons.

Guards share `alpha`: the chance that a candidate which is no worse than tolerated in any guard is called worse in one,
at any look. Success needs no share: the candidate must be shown to be no worse in every guard and better in every
goal, so the chance of success although one of these is untrue is at most `alpha` (an intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from mainspring.core.errors import Invalid


class Value(StrEnum):
    """Kind of a decision."""

    BREACH = "breach"  # a guard is worse than tolerated: roll back
    SUCCEED = "succeed"  # every guard is no worse than tolerated, every goal better
    FUTILE = "futile"  # no improvement of the size that matters, or the time is over
    CONTINUE = "continue"


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence on one guard.

    Attributes:
        log_worse: Log e-value against "no worse than tolerated".
        log_fine: Log e-value against "worse than tolerated"; `None` if success does not need it, as of a sample ratio.
        share: Part of alpha, relative to the other guards'.
    """

    name: str
    log_worse: float
    log_fine: float | None = None
    share: float = 1.0


class Aimed(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence on one goal.

    Attributes:
        log_better: Log e-value against "no better".
        most: Upper bound of the improvement, of a confidence sequence at 1 - alpha; infinite if nothing is known.
        effect: Smallest improvement that matters; 0 or less if any does.
    """

    name: str
    log_better: float
    most: float = math.inf
    effect: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Decision of one look.

    Attributes:
        because: Names of the guards or goals that decided; of "continue", those that success still waits for.
        reached: By name of a guard, how much of the log e-value of a breach was reached: 1 is a breach.
        gained: By name of a guard or goal, how much of the log e-value of success was reached.
    """

    value: Value
    because: tuple[str, ...]
    reached: dict[str, float]
    gained: dict[str, float]


def verdict(guards: Sequence[Guarded], goals: Sequence[Aimed] = (), *, alpha: float, expired: bool = False) -> Verdict:
    """Return the decision of one look.

    A breach precedes success, success precedes futility.

    Args:
        expired: Whether the longest time of the plan is over.

    Raises:
        Invalid: There is no guard and no goal, two have one name, `alpha` or a share is out of its range, or an
            e-value is not a number.
    """
    _check(guards, goals, alpha)
    limits = breach_limits(guards, alpha)
    reached = {each.name: each.log_worse / limits[each.name] for each in guards}
    needed = math.log(1 / alpha)
    of_success = {each.name: each.log_fine for each in guards if each.log_fine is not None}
    of_success |= {each.name: each.log_better for each in goals}
    gained = {name: log_e / needed for name, log_e in of_success.items()}

    def decided(value: Value, because: Sequence[str]) -> Verdict:
        return Verdict(value=value, because=tuple(because), reached=reached, gained=gained)

    breached = sorted((name for name, part in reached.items() if part >= 1), key=lambda name: -reached[name])
    if breached:
        return decided(Value.BREACH, breached)
    missing = [name for name, part in gained.items() if part < 1]
    if gained and not missing:
        return decided(Value.SUCCEED, list(gained))
    futile = [each.name for each in goals if each.most < each.effect]
    if futile or expired:
        return decided(Value.FUTILE, futile or missing)
    return decided(Value.CONTINUE, missing)


def breach_limits(guards: Sequence[Guarded], alpha: float) -> dict[str, float]:
    """Return by name the log e-value at which each guard is breached."""
    total = sum(each.share for each in guards)
    return {each.name: math.log(total / (alpha * each.share)) for each in guards}


def _check(guards: Sequence[Guarded], goals: Sequence[Aimed], alpha: float) -> None:
    names = [each.name for each in guards] + [each.name for each in goals]
    if not names:
        raise Invalid("A decision needs a guard or a goal.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(f"Two guards or goals have the name {twice[0]!r}.", fix="give each a name of its own.")
    if not 0 < alpha < 1:
        raise Invalid(f"An alpha of {alpha} is not an error rate.", fix="give a number between 0 and 1, such as 0.05.")
    for guard in guards:
        if not 0 < guard.share < math.inf:
            raise Invalid(
                f"The guard {guard.name!r} has the share {guard.share} of alpha.", fix="give a positive number."
            )
    values = [each.log_worse for each in guards] + [each.log_fine or 0.0 for each in guards]
    values += [value for goal in goals for value in (goal.log_better, goal.most, goal.effect)]
    if any(math.isnan(value) for value in values):
        raise Invalid(f"An e-value or bound of {', '.join(names)} is not a number.")
