"""Parts of drawings that need no script: an axis, linear or logarithmic, and an SVG that is stretched to its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mainspring.console import formats

WIDTH, HEIGHT = 600, 200


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis. Values outside [low, high] are drawn at its ends."""

    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()  # labels of unordered values

    def place(self, value: Any) -> float | None:
        """Return the position, 0 to 1; `None` for a value that cannot be drawn."""
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


def name_of(value: Any) -> str:
    """Return a value as a name."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing with its labels."""

    svg: Markup
    top: str | Markup
    bottom: str | Markup
    ends: tuple[str | Markup, ...]
    note: str = ""
    named: bool = False  # whether the ends are names of values


def grid(lines: int = 4) -> Markup:
    """Return horizontal lines at equal distances."""
    return Markup("").join(
        Markup('<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/>').format(
            WIDTH, HEIGHT * n / lines, HEIGHT * n / lines
        )
        for n in range(lines + 1)
    )


def svg(inside: Markup, height: int = HEIGHT) -> Markup:
    """Return a drawing. A line of length 0 with round ends is a dot in it, also where it is stretched."""
    return Markup(
        '<svg class="tries" viewBox="0 0 {} {}" preserveAspectRatio="none" focusable="false">{}</svg>'
    ).format(WIDTH, height, inside)
