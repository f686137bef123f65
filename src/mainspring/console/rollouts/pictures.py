"""Drawings of a rollout over time, without a script: the arms' shares, confidence sequences, and e-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.plots import HEIGHT, WIDTH, Axis, Plot, grid, svg
from mainspring.core.time import DAY
from mainspring.delivery.rollout.deciding import CONTINUE
from mainspring.delivery.rollout.model import Look, Reading

_FARTHEST = 8.0  # a ratio's axis reaches so many times beyond its limit and its estimates
_EDGE_E = 3.0  # the axis of e-values ends so many times above the logarithm of the limit
_DOT = 3.0  # half the width of the band of a single look


@dataclass(frozen=True, slots=True)
class _Times:
    """Horizontal places of the instants from `begin` to `end`."""

    begin: int
    end: int

    def x(self, at: int) -> float:
        return WIDTH * min(1.0, max(0.0, (at - self.begin) / max(1, self.end - self.begin)))

    @property
    def ends(self) -> tuple[str | Markup, str | Markup]:
        ways = [formats.minute, formats.second, formats.millisecond]
        long = self.end - self.begin >= 2 * DAY
        return formats.apart(self.begin, self.end, [formats.day, *ways] if long else ways)


def shares(looks: Sequence[Look], end: int) -> Plot:
    """Return the candidate's share of the requests over time; the rest is the champion's.

    Args:
        looks: At least one, oldest first.
        end: Instant at which the drawing ends.
    """
    times = _Times(looks[0].at, max(end, *(look.at for look in looks)))
    path, marks = f"M0 {HEIGHT}", Markup("")
    for look in looks:
        path += f"H{times.x(look.at):.1f}V{HEIGHT * (1 - look.share):.1f}"
        if look.decision != CONTINUE:
            marks += Markup(
                '<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"><title>{2}</title></line>'
            ).format(times.x(look.at), HEIGHT, f"{formats.second(look.at)}: {look.decision}, {100 * look.share:g}%")
    whole = Markup('<rect class="control" x="0" y="0" width="{}" height="{}"/>').format(WIDTH, HEIGHT)
    area = Markup('<path class="candidate" d="{}H{}V{}Z"/>').format(path, WIDTH, HEIGHT)
    return Plot(svg(whole + area + marks), "100%", "0%", times.ends)


def sequence(looks: Sequence[tuple[int, Reading]], end: int) -> Plot | None:
    """Return the confidence sequence of a guard or goal over time; `None` if nothing was compared.

    A ratio has a logarithmic scale. Bounds beyond the axis are drawn at its edge.

    Args:
        looks: Instants and readings, oldest first.
    """
    known = [(at, reading) for at, reading in looks if reading.estimate is not None]
    if not known:
        return None
    times, ratio = _Times(looks[0][0], max(end, *(at for at, _ in looks))), known[0][1].unit == "ratio"
    axis = _ratio_axis([each for _, each in known]) if ratio else _difference_axis([each for _, each in known])

    def y(value: float | None, beyond: float) -> float:
        place = axis.place(beyond if value is None else value)
        return HEIGHT * (1 - (place if place is not None else 0.0))

    points = [
        (times.x(at), y(each.low, axis.low), y(each.high, axis.high), y(each.estimate, 0), at, each)
        for at, each in known
    ]
    edges = [(x, low, high) for x, low, high, *_ in points]
    if len(edges) == 1:
        x, low, high = edges[0]
        edges = [(x - _DOT, low, high), (x + _DOT, low, high)]
    there, back = (
        (f"{x:.1f},{low:.1f}" for x, low, _ in edges),
        (f"{x:.1f},{high:.1f}" for x, _, high in reversed(edges)),
    )
    inside = grid(2) + Markup('<polygon class="band" points="{}"/>').format(" ".join([*there, *back]))
    alike, limit = (1.0 if ratio else 0.0), known[-1][1].limit
    inside += _level(y(alike, 0), "none")
    if limit != alike:  # of a goal and of the sample ratio it is the same
        inside += _level(y(limit, 0), "limit")
    inside += _dots([(x, middle, _told(at, each)) for x, _, _, middle, at, each in points])
    bottom, top = axis.ends
    suffix = "×" if ratio else ""
    return Plot(svg(inside), f"{top}{suffix}", f"{bottom}{suffix}", times.ends)


def evidence(looks: Sequence[tuple[int, Reading]], end: int, limit: float) -> Plot:
    """Return the e-values of a guard over time on a logarithmic scale, with the limit from which it is breached."""
    times, needed = _Times(looks[0][0], max(end, *(at for at, _ in looks))), math.log(limit)
    values = [each.log_e for _, each in looks]
    low, high = min(-1.0, max(min(values), -needed)), min(max(needed * 1.15, *values), needed * _EDGE_E)
    axis = Axis(low, high)

    def y(value: float) -> float:
        return HEIGHT * (1 - (axis.place(value) or 0.0))

    points = [(times.x(at), y(each.log_e), _told(at, each)) for at, each in looks]
    line = Markup('<path class="best" d="M{}"/>').format("L".join(f"{x:.1f} {at:.1f}" for x, at, _ in points))
    inside = grid(2) + _level(y(0.0), "none") + _level(y(needed), "limit") + line + _dots(points)
    return Plot(svg(inside), formats.number(math.exp(high), 2), formats.number(math.exp(low), 2), times.ends)


def _ratio_axis(readings: Sequence[Reading]) -> Axis:
    anchors = [1.0, *(each.limit for each in readings if each.limit > 0)]
    anchors += [each.estimate for each in readings if each.estimate]
    newest = readings[-1]
    anchors += [each for each in (newest.low, newest.high) if each]
    middle = sorted(anchors)[len(anchors) // 2]
    low, high = max(min(anchors), middle / _FARTHEST**2), min(max(anchors), middle * _FARTHEST**2)
    return Axis(min(low, 1.0) / 1.5, max(high, 1.0) * 1.5, log=True)


def _difference_axis(readings: Sequence[Reading]) -> Axis:
    anchors = [0.0, *(each.limit for each in readings), *(each.estimate or 0.0 for each in readings)]
    anchors += [each for each in (readings[-1].low, readings[-1].high) if each is not None]
    room = 0.15 * (max(anchors) - min(anchors)) or 1.0
    return Axis(min(anchors) - room, max(anchors) + room)


def _level(y: float, kind: str) -> Markup:
    return Markup('<line class="level {}" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(kind, WIDTH, y, y)


def _dots(points: Sequence[tuple[float, float, str]]) -> Markup:
    return Markup("").join(
        Markup('<path class="dot look" d="M{:.1f} {:.1f}h0"><title>{}</title></path>').format(x, y, title)
        for x, y, title in points
    )


def _told(at: int, reading: Reading) -> str:
    times = "×" if reading.unit == "ratio" else ""
    bounds = " to ".join("unknown" if each is None else f"{each:.3g}" for each in (reading.low, reading.high))
    estimate = "nothing compared" if reading.estimate is None else f"{reading.estimate:.3g}{times} ({bounds})"
    return f"{formats.second(at)}: {estimate}, e-value {math.exp(min(reading.log_e, 700)):.3g}"
