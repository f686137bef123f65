"""Parts of a drawing with two logarithmic axes: a latency against a load or a price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDE, _TALL = 640, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 30


@dataclass(frozen=True, slots=True)
class Scale:
    """Logarithmic mapping of a range of values to a range of positions."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / (math.log(self.high / self.low) or 1.0)
        return self.start + (self.end - self.start) * share

    @property
    def ticks(self) -> list[float]:
        """The powers of ten inside, or 1, 2 and 5 times each if those are few."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        tens = [10.0**power for power in range(first, last + 1)]
        found = [value for value in tens if self.low <= value <= self.high]
        if len(found) < 3:
            found = [n * ten for ten in tens for n in (1, 2, 5) if self.low <= n * ten <= self.high]
        return found


def scales(xs: Sequence[float], ys: Sequence[float]) -> tuple[Scale, Scale]:
    """Return the axes of values above 0."""
    return (
        Scale(min(xs) / 1.15, max(xs) * 1.15, _LEFT, _WIDE - _RIGHT),
        Scale(min(ys) / 1.3, max(ys) * 1.3, _TALL - _BOTTOM, _TOP),
    )


def drawing(inside: Markup, said: str) -> Markup:
    """Return the drawing; `said` tells it to those who do not see it."""
    return Markup('<svg class="load" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDE, _TALL, said, inside
    )


def across(y: float, text: str) -> Markup:
    """Return a line of the grid with its label."""
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="tick end" x="{}" y="{:.1f}">{}</text>'
    ).format(_LEFT, _WIDE - _RIGHT, y, y, _LEFT - 7, y + 4, text)


def below(x: float, text: str) -> Markup:
    """Return a label of the horizontal axis."""
    return Markup('<text class="tick middle" x="{:.1f}" y="{}">{}</text>').format(x, _TALL - _BOTTOM + 18, text)


def level(y: float, name: str) -> Markup:
    """Return a level that is not to be exceeded, with its name."""
    return Markup(
        '<line class="level" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="tick" x="{}" y="{:.1f}">{}</text>'
    ).format(_LEFT, _WIDE - _RIGHT, y, y, _LEFT + 4, y - 5, name)
