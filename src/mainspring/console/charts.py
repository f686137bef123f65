"""Charts. The same numbers are shown in three ways: drawn in the browser, drawn here as SVG, and as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from markupsafe import Markup

from mainspring.console import formats
from mainspring.core.time import DAY

WIDTH, HEIGHT = 600, 150  # in the SVG's own units; it is stretched to its place
_PAD = 6
# A value as text, with additional digits.
_UNITS: dict[str, Callable[[float, int], str | Markup]] = {
    "count": lambda value, _: formats.whole(math.floor(value)),
    "ms": lambda value, more: formats.milliseconds(value, 3 + more),
    "score": lambda value, more: formats.fixed(value, 3 + more),
    "share": formats.share,
    "number": lambda value, more: formats.number(value, 3 + more),
}
_MORE = 9


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart. `tone` names a colour of the stylesheet: `first` to `fifth`, `rest`, `alert`.

    `dash`, 0 (none) to 3, distinguishes lines of one colour.
    """

    name: str
    values: tuple[float | None, ...]
    tone: str = "first"
    dash: int = 0

    @property
    def look(self) -> str:
        """Its CSS classes."""
        return f"{self.tone} dash{self.dash}" if self.dash else self.tone


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers behind a chart, as text; the first cell of each row heads it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str | Markup, ...], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Numbers over time, or over steps.

    Args:
        id: Unique in the page.
        kind: `bars`, `lines`, or `bands`: of an odd number of lines, the lowest first, the outer and the inner ones
            are the edges of areas around the middle one.
        unit: How the browser writes a value: `count`, `ms`, `score`, `share`, `number`.
        starts, ends: The windows, UTC epoch microseconds; for steps, the first and the one after the last.
        pieces: Names of the windows.
        lines: Series, each with one value per window.
        from_zero: Whether the scale begins at 0 (always for bars).
        empty: Text to show if there is nothing to draw, with a remedy.
        most: Upper bound of the values, such as 100 for a percentage: the scale ends there.
    """

    id: str
    title: str
    kind: str
    unit: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    lines: tuple[Line, ...]
    table: Table
    from_zero: bool = True
    note: str | Markup = ""
    empty: str = ""
    stacked: bool = False  # bars are stacked
    level: tuple[float, str] | None = None  # reference value, drawn as a horizontal line
    marks: tuple[tuple[int, str], ...] = ()  # instants or steps with a vertical line, such as a new version
    pieces: str = "windows"
    axis: str = "time"  # or "step"
    step: str = "step"  # what one is called
    most: float | None = None

    @property
    def drawable(self) -> bool:
        return any(value is not None for line in self.lines for value in line.values)

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Legend: (name, tone) of each line, or of each area."""
        if self.kind != "bands":
            return tuple((line.name, line.look) for line in self.lines)
        middle = len(self.lines) // 2
        areas = [(f"{self.lines[n].name} – {self.lines[-1 - n].name}", self.lines[n].tone) for n in range(middle)]
        return (*areas, (self.lines[middle].name, self.lines[middle].tone))

    @property
    def low(self) -> float:
        """The lower end of the scale."""
        if self.from_zero:
            return 0.0
        low, high = min(self._values), max(self._values)
        return low - _margin(low, high)

    @property
    def high(self) -> float:
        high = max(self._values)
        end = (high * 1.06 or 1.0) if self.from_zero else high + _margin(min(self._values), high)
        return end if self.most is None or high > self.most else min(end, self.most)

    @property
    def scale(self) -> tuple[str | Markup, str | Markup]:
        """The upper and the lower end of the scale as texts, with enough digits to differ."""
        write = _UNITS[self.unit]

        def way(more: int) -> Callable[[float], str | Markup]:
            return lambda value: write(value, more)

        return formats.apart(self.high, self.low, [way(more) for more in range(_MORE)])

    @property
    def data(self) -> str:
        """Data for the script, as JSON. Times are epoch seconds, in the middle of each window."""
        pairs = list(zip(self.starts, self.ends, strict=True))
        places = [(start + end) / 2e6 for start, end in pairs] if self.axis == "time" else list(self.starts)
        scale = 1e6 if self.axis == "time" else 1
        return msgspec.json.encode(
            {
                "kind": self.kind,
                "unit": self.unit,
                "zero": self.from_zero,
                "most": self.most,
                "stacked": self.stacked,
                "axis": self.axis,
                "step": self.step,
                "x": places,
                "width": (self.ends[0] - self.starts[0]) / scale if self.starts else 0,
                "lines": [
                    {"name": line.name, "tone": line.tone, "dash": line.dash, "y": line.values} for line in self.lines
                ],
                "level": None if self.level is None else {"y": self.level[0], "text": self.level[1]},
                "marks": [{"x": at / scale, "text": text} for at, text in self.marks],
            }
        ).decode()

    @property
    def reach(self) -> tuple[str | Markup, str | Markup]:
        """Labels of both ends of the x axis, precise enough to differ."""
        if self.axis == "step":
            return f"{self.step} {self.starts[0]:,}", f"{self.step} {self.starts[-1]:,}"
        begin, end = self.starts[0], self.ends[-1]
        ways = [formats.minute, formats.second, formats.millisecond]
        return formats.apart(begin, end, [formats.day, *ways] if end - begin >= DAY else ways)

    @property
    def svg(self) -> Markup:
        """The chart as SVG, which needs no script."""
        if self.kind == "bars":
            floors = [0.0] * len(self.starts)
            inside = Markup("").join(_bars(self, line, floors) for line in self.lines)
        elif self.kind == "bands":
            middle = len(self.lines) // 2
            inside = Markup("").join(_band(self, self.lines[n], self.lines[-1 - n]) for n in range(middle))
            inside += _lines(self, self.lines[middle])
        else:
            inside = Markup("").join(_lines(self, line) for line in self.lines)
        if self.level is not None:
            y = round(self.y(self.level[0]), 1)
            inside += Markup('<line class="level" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, y, y)
        for at, text in self.marks:
            x = round(self._place(at + (self.axis == "step") / 2), 1)
            inside += Markup('<line class="mark" x1="{}" x2="{}" y1="0" y2="{}"><title>{}</title></line>').format(
                x, x, HEIGHT, text
            )
        return Markup(
            '<svg class="still" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
            "{}{}</svg>"
        ).format(WIDTH, HEIGHT, _grid(), inside)

    @property
    def _values(self) -> list[float]:
        if self.stacked:
            return [sum(value or 0 for value in at) for at in zip(*(line.values for line in self.lines), strict=True)]
        drawn = [value for line in self.lines for value in line.values if value is not None]
        return drawn if self.level is None else [*drawn, self.level[0]]

    def x(self, index: int) -> float:
        """Return the x coordinate of a window's middle."""
        return self._place((self.starts[index] + self.ends[index]) / 2)

    def _place(self, at: float) -> float:
        begin, end = self.starts[0], self.ends[-1]
        return WIDTH * (at - begin) / max(1, end - begin)

    def y(self, value: float) -> float:
        usable = HEIGHT - 2 * _PAD
        return _PAD + usable * (1 - (value - self.low) / ((self.high - self.low) or 1))


def spark(values: Sequence[float | None], high: float, *, tone: str = "first") -> Markup:
    """Return a sparkline for a table cell; its scale is 0 to `high`."""
    width, height = 96, 24
    step = width / max(1, len(values) - 1)
    points = [(i * step, height - 3 - (height - 6) * v / high) for i, v in enumerate(values) if v is not None]
    if not points:
        return Markup("")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup(
        '<svg class="spark {}" viewBox="-3 0 {} {}" width="{}" height="{}" aria-hidden="true" focusable="false">'
        '<polyline points="{}"/><circle cx="{:.1f}" cy="{:.1f}" r="2.2"/></svg>'
    ).format(tone, width + 6, height, width + 6, height, path, *points[-1])


def small_bars(counts: Sequence[int], titles: Sequence[str]) -> Markup:
    """Return bars for a table cell, each with its title."""
    width, height, highest = 168, 30, max(counts, default=0) or 1
    step, bars = width / max(8, len(counts)), Markup("")
    for index, (count, title) in enumerate(zip(counts, titles, strict=True)):
        tall = max(1.0, (height - 2) * count / highest) if count else 0
        bars += Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
            index * step, height - tall, max(1.0, step - 1.5), tall, title
        )
    return Markup(
        '<svg class="reference" viewBox="-2 0 {} {}" width="{}" height="{}" aria-hidden="true" focusable="false">'
        "{}</svg>"
    ).format(width + 4, height, width + 4, height, bars)


def _margin(low: float, high: float) -> float:
    return (high - low) * 0.25 or abs(high) * 0.1 or 1.0


def _grid() -> Markup:
    rows = (round(_PAD + (HEIGHT - 2 * _PAD) * i / 3, 1) for i in range(4))
    return Markup("").join(
        Markup('<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, y, y) for y in rows
    )


def _bars(chart: Chart, line: Line, floors: list[float]) -> Markup:
    """Draw one series of bars. `floors` is the lower end of each; it is raised if bars are stacked."""
    bars, width = Markup(""), 0.62 * WIDTH / max(1, len(chart.starts))
    for index, value in enumerate(line.values):
        if value:
            bottom, top = chart.y(floors[index]), chart.y(floors[index] + value)
            bars += Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                line.tone, chart.x(index) - width / 2, top, width, bottom - top
            )
            floors[index] += value if chart.stacked else 0
    return bars


def _lines(chart: Chart, line: Line) -> Markup:
    drawn = Markup("")
    for piece in _pieces(line.values):
        points = [f"{chart.x(index):.1f},{chart.y(line.values[index] or 0):.1f}" for index in piece]
        if len(points) == 1:
            # A single point is a line of length 0, which round ends make a dot.
            points = points * 2
        drawn += Markup('<polyline class="{}" points="{}"/>').format(line.look, " ".join(points))
    return drawn


def _band(chart: Chart, low: Line, high: Line) -> Markup:
    """Draw the area between two lines; a single window is as wide as a bar."""
    drawn, half = Markup(""), 0.2 * WIDTH / max(1, len(chart.starts))
    for piece in _pieces(low.values):
        edges = [(chart.x(n), chart.y(low.values[n] or 0), chart.y(high.values[n] or 0)) for n in piece]
        if len(edges) == 1:
            x, bottom, top = edges[0]
            edges = [(x - half, bottom, top), (x + half, bottom, top)]
        there = [f"{x:.1f},{bottom:.1f}" for x, bottom, _ in edges]
        back = [f"{x:.1f},{top:.1f}" for x, _, top in reversed(edges)]
        drawn += Markup('<polygon class="{}" points="{}"/>').format(low.tone, " ".join([*there, *back]))
    return drawn


def _pieces(values: Sequence[float | None]) -> list[list[int]]:
    """Return the indices of each unbroken run of numbers."""
    runs: list[list[int]] = [[]]
    for index, value in enumerate(values):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if run]
