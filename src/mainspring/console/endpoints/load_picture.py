"""Latency against load, as a picture that needs no script: both scales logarithmic, the deadline drawn across."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.serving.model import Baseline, Point

_WIDE, _TALL = 640, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 30


@dataclass(frozen=True, slots=True)
class _Scale:
    """From a range of values to a range of places, logarithmic."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / (math.log(self.high / self.low) or 1.0)
        return self.start + (self.end - self.start) * share

    @property
    def ticks(self) -> list[float]:
        """The powers of ten inside, or 1, 2 and 5 of each where those are few."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        tens = [10.0**power for power in range(first, last + 1)]
        found = [value for value in tens if self.low <= value <= self.high]
        if len(found) < 3:
            found = [n * ten for ten in tens for n in (1, 2, 5) if self.low <= n * ten <= self.high]
        return found


def load_picture(baseline: Baseline) -> Markup:
    """Return p50 and p99 of every load that was tried; empty where nothing was answered."""
    points = [each for each in baseline.points if each.p50_us and each.p99_us]
    if not points:
        return Markup("")
    loads = [each.offered for each in points]
    values = [each.p50_us or 1.0 for each in points] + [each.p99_us or 1.0 for each in points]
    values.append(float(baseline.deadline_us))
    x = _Scale(min(loads) / 1.15, max(loads) * 1.15, _LEFT, _WIDE - _RIGHT)
    y = _Scale(min(values) / 1.3, max(values) * 1.3, _TALL - _BOTTOM, _TOP)
    inside = Markup("").join(
        [
            *(_across(y(tick), f"{tick / 1000:,g} ms") for tick in y.ticks),
            *(_below(x(tick), f"{tick:,g}") for tick in x.ticks),
            _deadline(y(baseline.deadline_us)),
            _line("second", [(x(each.offered), y(each.p99_us or 1.0)) for each in points]),
            _line("first", [(x(each.offered), y(each.p50_us or 1.0)) for each in points]),
            *(_dot(each, x, y) for each in points),
        ]
    )
    said = f"p50 and p99 of {len(points)} loads against the deadline; the numbers are in the table below."
    return Markup('<svg class="load" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDE, _TALL, said, inside
    )


def _across(y: float, text: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="tick end" x="{}" y="{:.1f}">{}</text>'
    ).format(_LEFT, _WIDE - _RIGHT, y, y, _LEFT - 7, y + 4, text)


def _below(x: float, text: str) -> Markup:
    return Markup('<text class="tick middle" x="{:.1f}" y="{}">{}</text>').format(x, _TALL - _BOTTOM + 18, text)


def _deadline(y: float) -> Markup:
    return Markup(
        '<line class="level" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="tick" x="{}" y="{:.1f}">deadline</text>'
    ).format(_LEFT, _WIDE - _RIGHT, y, y, _LEFT + 4, y - 5)


def _line(tone: str, places: Sequence[tuple[float, float]]) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return Markup('<polyline class="{}" points="{}"/>').format(tone, path)


def _dot(each: Point, x: _Scale, y: _Scale) -> Markup:
    told = f"{each.offered:,.0f} requests/s: {each.in_time:.1%} in time"
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.4"><title>{}</title></circle>').format(
        "second" if each.met else "alert", x(each.offered), y(each.p99_us or 1.0), told
    )
