"""View model of the comparison of runs; differences come first.

Parallel coordinates, drawn without a script, have one axis per difference and one line per run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart
from mainspring.console.runs.charts import drawable, laid_over, look, looked_at
from mainspring.console.runs.table import Cell, cell
from mainspring.core.errors import Invalid
from mainspring.operations.runs import SYSTEM, compared_columns, held_out
from mainspring.project import Project
from mainspring.registry.run_matching import number_of
from mainspring.registry.searching import Column, Kind, RunRow

MOST, LISTED, DRAWN, TRIED, AXES = 50, 100, 6, 12, 7
_WIDTH, _HEIGHT, _TOP, _BOTTOM, _SIDE = 1000, 320, 54, 46, 70
_LETTER = 12  # the room that one takes
Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the runs, with its letter and line style."""

    run: RunRow
    letter: str
    tone: str
    dash: int
    without: str  # address of the comparison without this run


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the runs. No value is marked as best, because only a person can decide that."""

    column: Column
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis of the parallel coordinates: the position of each run, 0 (bottom) to 1, or None without a value."""

    column: Column
    low: str | Markup
    high: str | Markup
    places: tuple[float | None, ...]
    halves: tuple[str, str]  # addresses: only the runs of the upper or lower half; empty if those are all

    @property
    def name(self) -> str:
        return self.column.name


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of some runs."""

    runs: tuple[Compared, ...]
    differing: Mapping[str, tuple[Difference, ...]]  # by kind
    left_out: int  # number of differences that are not listed
    same: Mapping[str, Mapping[str, str]]  # by kind: name -> the common value
    scales: tuple[Scale, ...]
    charts: tuple[Chart, ...]
    names: tuple[str, ...]  # metrics of more than one run, which could be drawn instead
    drawn: tuple[str, ...]


def address(run_ids: Sequence[str], metrics: Sequence[str] = ()) -> str:
    """Return the address of a comparison."""
    return "/runs/compare?" + urlencode([*(("run", each) for each in run_ids), *(("metric", each) for each in metrics)])


def comparison(project: Project, run_ids: Sequence[str], metrics: Sequence[str] = ()) -> Comparison:
    """Return the comparison of runs.

    Args:
        metrics: Metrics to draw instead of the first few.

    Raises:
        Invalid: There are too many.
        NotFound: One of them does not exist.
    """
    ids = list(dict.fromkeys(run_ids))
    if len(ids) > MOST:
        raise Invalid(f"{len(ids)} runs cannot be compared at once.", fix=f"select at most {MOST}.")
    rows = project.run_search.get(ids)
    compared = tuple(
        Compared(run, letter_of(number), *look(number), address([each for each in ids if each != run.id], metrics))
        for number, run in enumerate(rows)
    )
    differing, same, left_out = _differences(rows)
    shared = _shared(rows)
    known = [name for name in metrics if any(name in run.metrics for run in rows)]
    charts = _charts(project, compared, known if metrics else shared)
    return Comparison(
        runs=compared,
        differing=differing,
        left_out=left_out,
        same=same,
        scales=_scales(rows, differing, metrics),
        charts=charts,
        names=tuple(shared[:LISTED]),
        drawn=tuple(chart.title for chart in charts),
    )


def letter_of(number: int) -> str:
    """Return the letters of the n-th run: A to Z, then AA, AB and so on."""
    before, last = divmod(number, 26)
    return (letter_of(before - 1) if before else "") + chr(ord("A") + last)


def _differences(
    rows: Sequence[RunRow],
) -> tuple[dict[str, tuple[Difference, ...]], dict[str, Mapping[str, str]], int]:
    differing: dict[str, tuple[Difference, ...]] = {}
    same: dict[str, Mapping[str, str]] = {}
    left_out = 0
    columns = compared_columns(rows)
    for kind in (Kind.PARAM, Kind.METRIC, Kind.TAG):
        mine = [each for each in columns if each.column.kind is kind]
        unequal = [each.column for each in mine if each.differs]
        left_out += max(0, len(unequal) - LISTED)
        differing[kind.value] = tuple(
            Difference(each, tuple(cell(run, each) for run in rows)) for each in unequal[:LISTED]
        )
        same[kind.value] = {
            each.column.name: str(each.values[0]) for each in [each for each in mine if not each.differs][:LISTED]
        }
    return differing, same, left_out


def _shared(rows: Sequence[RunRow]) -> list[str]:
    """Return metrics of several runs (or of the only run), losses first."""
    counts: dict[str, int] = {}
    for run in rows:
        for name in run.metrics:
            if not name.startswith(SYSTEM):
                counts[name] = counts.get(name, 0) + 1
    return sorted(
        (name for name, count in counts.items() if count > 1 or len(rows) == 1),
        key=lambda name: ("loss" not in name.lower(), not held_out(name), name),
    )


def _charts(project: Project, compared: Sequence[Compared], names: Sequence[str]) -> tuple[Chart, ...]:
    letters = {each.run.id: each.letter for each in compared}
    found: list[Chart] = []
    for number, name in enumerate(names[:TRIED]):
        history = looked_at(project.run_search, list(letters), name)
        if history is not None and len(found) < DRAWN:
            found.append(laid_over(history, letters, f"metric-{number}"))
    return tuple(found)


def _scales(
    rows: Sequence[RunRow], differing: Mapping[str, tuple[Difference, ...]], metrics: Sequence[str]
) -> tuple[Scale, ...]:
    """Return the axes: parameters, then metrics."""
    params = [each.column for each in differing[Kind.PARAM.value]]
    judged = [each.column for each in differing[Kind.METRIC.value]]
    judged.sort(key=lambda column: column.name not in metrics)
    few = min(len(judged), 3)
    drawn = [scale for column in params if (scale := _scale(rows, column)) is not None][: AXES - few]
    return (*drawn, *(scale for column in judged[:few] if (scale := _scale(rows, column)) is not None))


def _scale(rows: Sequence[RunRow], column: Column) -> Scale | None:
    values = [(run.metrics if column.kind is Kind.METRIC else run.params).get(column.name) for run in rows]
    numbers = [number_of(each) if isinstance(each, str) else drawable(each) for each in values]
    known = [number for number in numbers if number is not None]
    if any(number is None and isinstance(value, str) for number, value in zip(numbers, values, strict=True)):
        return _categories(rows, column, values) if len(set(values) - {None}) > 1 else None
    if not known or min(known) == max(known):
        return None  # an axis on which all runs have one position shows nothing
    low, reach = min(known), max(known) - min(known)
    places = tuple(None if n is None else (n - low) / reach for n in numbers)
    return Scale(column, *formats.ends(low, max(known), 4), places, _halves(rows, places))


def _categories(rows: Sequence[RunRow], column: Column, values: Sequence[str | float | None]) -> Scale:
    texts = sorted({str(value) for value in values if value is not None})
    step = 1 / max(1, len(texts) - 1)
    places = tuple(None if value is None else texts.index(str(value)) * step for value in values)
    return Scale(column, _short(texts[0]), _short(texts[-1]), places, _halves(rows, places))


def _halves(rows: Sequence[RunRow], places: Sequence[float | None]) -> tuple[str, str]:
    def only(inside: Callable[[float], bool]) -> str:
        kept = [run.id for run, place in zip(rows, places, strict=True) if place is not None and inside(place)]
        return address(kept) if 1 < len(kept) < len(rows) else ""

    return only(lambda place: place >= 0.5), only(lambda place: place < 0.5)


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"


def parallel_picture(runs: Sequence[Compared], scales: Sequence[Scale]) -> Markup:
    """Return the drawing; empty with fewer than two axes. Each line links to its run."""
    if len(scales) < 2:
        return Markup("")
    step = (_WIDTH - 2 * _SIDE) / (len(scales) - 1)
    xs = [_SIDE + step * number for number in range(len(scales))]
    axes = Markup("").join(_axis(x, scale) for x, scale in zip(xs, scales, strict=True))
    taken: list[Spot] = []
    lines = Markup("").join(_run(each, number, xs, scales, taken) for number, each in enumerate(runs))
    return Markup(
        '<svg class="parallel" viewBox="0 0 {} {}" role="img" aria-label="Parallel coordinates of {} runs over {} '
        'axes; the table above has the numbers.">{}{}</svg>'
    ).format(_WIDTH, _HEIGHT, len(runs), len(scales), axes, lines)


def _axis(x: float, scale: Scale) -> Markup:
    name = scale.name if len(scale.name) <= 22 else f"…{scale.name[-21:]}"
    drawn = Markup(
        '<g class="axis"><line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
        '<text class="name" x="{0:.1f}" y="18"><title>{3}</title>{4}</text>'
        '<text x="{0:.1f}" y="{5}">{6}</text><text x="{0:.1f}" y="{7}">{8}</text></g>'
    ).format(x, _TOP, _HEIGHT - _BOTTOM, scale.column, name, _TOP - 10, scale.high, _HEIGHT - _BOTTOM + 18, scale.low)
    for where, to, y in zip(("upper", "lower"), scale.halves, (_TOP, _HEIGHT - _BOTTOM), strict=True):
        if to:
            drawn += Markup(
                '<a class="half" href="{}" aria-label="Only the runs in the {} half of {}"><rect x="{:.1f}" y="{:.1f}" '
                'width="16" height="{:.1f}"><title>Only the runs in the {} half</title></rect></a>'
            ).format(to, where, scale.name, x - 8, min(y, _middle()), abs(_middle() - y), where)
    return drawn


def _run(each: Compared, number: int, xs: Sequence[float], scales: Sequence[Scale], taken: list[Spot]) -> Markup:
    """Draw one run; `taken` are the positions of earlier letters, which its own avoids."""
    reach = _HEIGHT - _TOP - _BOTTOM
    places = [(x, scale.places[number]) for x, scale in zip(xs, scales, strict=True)]
    points = [(x, _TOP + reach * (1 - place)) for x, place in places if place is not None]
    if not points:
        return Markup("")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    look = f"{each.tone} dash{each.dash}" if each.dash else each.tone
    drawn = Markup(
        '<a class="line" href="/runs/{}"><title>{} {}</title><polyline class="wide-line" points="{}"/>'
        '<polyline class="{}" points="{}"/>{}</a>'
    )
    label = _letter(each, points[-1], taken)
    return drawn.format(each.run.id, each.letter, each.run.name or each.run.id, path, look, path, label)


def _letter(each: Compared, end: Spot, taken: list[Spot]) -> Markup:
    """Draw the letter at a line's end, beside existing ones; without room, only the title has it."""
    room = _LETTER * len(each.letter)
    at = (end[0] + 10, end[1] + 4)
    while any(abs(at[0] - x) < room and abs(at[1] - y) < _LETTER for x, y in taken):
        at = (at[0] + room, at[1])
    if at[0] > _WIDTH - room:
        return Markup("")
    taken.append(at)
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(each.tone, *at, each.letter)


def _middle() -> float:
    return (_TOP + _HEIGHT - _BOTTOM) / 2
