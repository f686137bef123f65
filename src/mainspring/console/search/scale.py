"""Scales that map a value to 0 to 1 along an axis: linear, logarithmic, or categorical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mainspring.console import formats

_LOG_FROM = 50.0  # how many times the least the greatest is, from where on orders of magnitude are even
_ROOM = 0.06
_FENCE = 1.5  # interquartile ranges beyond a quartile, from where on a value is drawn at the edge (Tukey's fence)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis. Values outside [low, high] are drawn at its ends."""

    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()  # of values without an order

    def place(self, value: Any) -> float | None:
        """Return 0 to 1; `None` for what has no place."""
        if self.names:
            text = name_of(value)
            return (self.names.index(text) + 0.5) / len(self.names) if text in self.names else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (self.log and value <= 0):
            return None
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, float(value)))
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5

    @property
    def ends(self) -> tuple[str | Markup, ...]:
        """Labels of the axis: each name, or the two ends."""
        return self.names or formats.ends(self.low, self.high)


def axis_of(values: Sequence[Any]) -> Axis | None:
    """Return an axis for the values of a parameter; `None` where there is but one, or there are too many names."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values) and numbers:
        low, high = float(min(numbers)), float(max(numbers))
        if low == high:
            return None
        return Axis(low, high, log=low > 0 and high / low >= _LOG_FROM)
    names = tuple(sorted({name_of(value) for value in values}))
    return Axis(0, 1, names=names) if 1 < len(names) <= 12 else None


def judged_axis(values: Sequence[float], maximize: bool) -> tuple[Axis, int]:
    """Return the axis of what trials are judged by, and how many of the worse ones lie outside.

    A few trials that are far worse than the rest would press all others together.
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    lower, upper = (ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.75))
    fence = _FENCE * (upper - lower)
    if fence > 0:
        low, high = (max(low, lower - fence), high) if maximize else (low, min(high, upper + fence))
    outside = sum(value < low or value > high for value in ordered)
    room = (high - low) * _ROOM or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room), outside


def name_of(value: Any) -> str:
    """Return a parameter's value as a name."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
