"""Variants of a version that `mainspring optimize` measured: a table, and pictures of quality over latency and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from markupsafe import Markup

from mainspring.console import formats
from mainspring.core.errors import MainspringError
from mainspring.operations.optimise.model import PURPOSE, REPORT, Cost, OptimiseReport, Quality, VariantReport
from mainspring.project import Project
from mainspring.registry import runs
from mainspring.registry.model import ModelVersion

_WIDE, _TALL, _LEFT, _BELOW, _ABOVE = 250, 200, 46, 36, 12
_ROOM = 0.08
_LOG_FROM = 8.0  # ratio of the largest to the smallest cost from which the axis is logarithmic
_LINE = 11  # height of a label
_LOOKED_AT = 50  # newest runs of the model

_Point = tuple[VariantReport, Quality, Cost]


@dataclass(frozen=True, slots=True)
class Optimised:
    """The newest report of a version's variants.

    Attributes:
        measured: Those that run, in the order of the report; their numbers in the pictures begin with 1.
        missing: Those that could not be made, with the reason.
    """

    report: OptimiseReport
    measured: tuple[VariantReport, ...]
    missing: tuple[VariantReport, ...]
    pictures: tuple[tuple[str, Markup], ...]

    @property
    def energy(self) -> bool:
        """Whether energy was read."""
        return any(each.cost is not None and each.cost.energy_uj_a_row is not None for each in self.measured)

    @property
    def cosine(self) -> bool:
        """Whether the variants are those of an encoder."""
        return any(each.cosine is not None for each in self.measured)


def optimised(project: Project, version: ModelVersion) -> Optimised | None:
    """Return the newest report on a version's variants, `None` if there is none."""
    found = project.tracking.search(version.model, status="FINISHED", limit=_LOOKED_AT)
    for run in found:
        if run.tags.get(runs.PURPOSE) == PURPOSE and run.params.get("version") == version.version:
            try:
                report = msgspec.json.decode(project.tracking.artefact(run.id, REPORT), type=OptimiseReport)
            except (MainspringError, msgspec.DecodeError):  # the artefact is gone, or of another release
                return None
            return _shown(report)
    return None


def _shown(report: OptimiseReport) -> Optimised:
    points = [(each, each.quality, each.cost) for each in report.variants if each.quality and each.cost]
    pictures = (
        ("Latency of one row (p50)", _picture(report, points, lambda cost: cost.p50_us, _microseconds)),
        ("Size of the model", _picture(report, points, lambda cost: float(cost.bytes), _bytes)),
    )
    missing = tuple(each for each in report.variants if not (each.quality and each.cost))
    return Optimised(report, tuple(each for each, _, _ in points), missing, pictures)


def _microseconds(value: float) -> str:
    return f"{value:.3g} µs" if value < 1000 else f"{value / 1000:.3g} ms"


def _bytes(value: float) -> str | Markup:
    return formats.size(round(value))


def _picture(
    report: OptimiseReport,
    points: Sequence[_Point],
    cost: Callable[[Cost], float],
    written: Callable[[float], str | Markup],
) -> Markup:
    """Draw the metric over a cost: the front as a line, what is on it as filled dots, the chosen one in a ring."""
    across = _Scale([cost(each) for _, _, each in points], log=True)
    up = _Scale([quality.value for _, quality, _ in points])
    places = [
        (_LEFT + _WIDE * across.place(cost(of)), _ABOVE + _TALL * (1 - up.place(quality.value)))
        for _, quality, of in points
    ]
    drawn = _axes(report.metric, across, up, written)
    front = sorted(
        place for place, (each, _, _) in zip(places, points, strict=True) if _best(each, points, cost, report)
    )
    drawn += Markup('<polyline class="edge" points="{}"/>').format(" ".join(f"{x:.1f},{y:.1f}" for x, y in front))
    taken: list[tuple[float, float]] = []
    for number, ((x, y), (each, quality, of)) in enumerate(zip(places, points, strict=True), 1):
        tone = "first" if (x, y) in front else "other"
        title = f"{each.name}: {report.metric} {quality.value:.4f}, {written(cost(of))}"
        drawn += Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.6"><title>{}</title></circle>').format(
            tone, x, y, title
        )
        if each.chosen:
            drawn += Markup('<circle class="chosen" cx="{:.1f}" cy="{:.1f}" r="7"/>').format(x, y)
        label = _free(taken, x, y)
        drawn += Markup('<text class="number" x="{:.1f}" y="{:.1f}">{}</text>').format(*label, number)
    name = f"{report.metric} over {'latency' if written is _microseconds else 'size'} of {len(points)} variants"
    return Markup('<svg class="curve variants" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _LEFT + _WIDE + 24, _ABOVE + _TALL + _BELOW, name, drawn
    )


def _best(
    variant: VariantReport, points: Sequence[_Point], cost: Callable[[Cost], float], report: OptimiseReport
) -> bool:
    """Return whether no variant that may be chosen is better both in the metric and in this cost."""
    sign = 1 if report.higher_is_better else -1
    every = {each.name: (sign * quality.value, -cost(of)) for each, quality, of in points if not each.why_not}
    mine = every.get(variant.name)
    return mine is not None and not any(a >= mine[0] and b >= mine[1] and (a, b) != mine for a, b in every.values())


class _Scale:
    def __init__(self, values: Sequence[float], *, log: bool = False) -> None:
        low, high = min(values), max(values)
        self.log = log and low > 0 and high / low >= _LOG_FROM
        self.low, self.high = low, high

    def place(self, value: float) -> float:
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return _ROOM + (1 - 2 * _ROOM) * share


def _axes(metric: str, across: _Scale, up: _Scale, written: Callable[[float], str | Markup]) -> Markup:
    bottom, right = _ABOVE + _TALL, _LEFT + _WIDE
    drawn = Markup("")
    for value in dict.fromkeys((up.low, up.high)):
        y = _ABOVE + _TALL * (1 - up.place(value))
        drawn += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, right, y, y)
        drawn += Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:.4g}</text>').format(_LEFT - 6, y + 4, value)
    drawn += Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(_LEFT, right, bottom)
    for value, anchor in dict.fromkeys(((across.low, "start"), (across.high, "end"))):
        x = _LEFT + _WIDE * across.place(value)
        drawn += Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
            x - (8 if anchor == "start" else -8), bottom + 15, anchor, written(value)
        )
    by = ", by order of magnitude" if across.log else ""
    name = ("Latency" if written is _microseconds else "Size") + by
    drawn += Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        _LEFT + _WIDE / 2, bottom + _BELOW - 4, name
    )
    return drawn + Markup('<text x="0" y="{}">{}</text>').format(_ABOVE - 2, metric)


def _free(taken: list[tuple[float, float]], x: float, y: float) -> tuple[float, float]:
    """Return the nearest place for a label beside a dot that no label before it has."""
    for step in (0, -1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -6, 6):
        place = x + 8, y + 4 + step * _LINE
        if all(abs(place[0] - a) > 2 * _LINE or abs(place[1] - b) >= _LINE for a, b in taken):
            break
    taken.append(place)
    return place
