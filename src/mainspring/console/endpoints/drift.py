"""View models of drift: all columns of an endpoint, and one column in detail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints import series
from mainspring.console.endpoints.live import live
from mainspring.console.endpoints.overview import DriftRow, drift_rows, promotions
from mainspring.console.endpoints.period import Period, windows_in
from mainspring.core.errors import MainspringError, NotFound
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.operations.column_comparison import BinShares, ColumnComparison, column_comparison
from mainspring.project import Project

_INCIDENTS = 200  # newest ones that are searched for the column
_WIDE, _TALL, _BELOW, _LEFT = 640, 200, 26, 62


@dataclass(frozen=True, slots=True)
class Drift:
    """All columns of the newest window with a test."""

    windows: tuple[Window, ...]
    judged: Window | None
    rows: tuple[DriftRow, ...]
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class ColumnDetail:
    """One column: its course, and its distribution beside that of training or why there is none."""

    column: str
    columns: tuple[str, ...]  # to choose from
    windows: tuple[Window, ...]
    charts: tuple[Chart, ...]
    comparison: ColumnComparison | None
    problem: str
    picture: Markup
    incidents: tuple[Incident, ...]


def drift(project: Project, endpoint: str, period: Period) -> Drift:
    """Return the drift of all columns of an endpoint."""
    windows = windows_in(project, endpoint, period)
    judged = next((window for window in reversed(windows) if window.columns), None)
    marks = promotions(project, live(project, endpoint, project.routes.current().get(endpoint)), windows)
    counts = next(each for each in series.charts(windows, None, None, marks) if each.id == "drift")
    return Drift(tuple(windows), judged, drift_rows(windows, judged), counts if windows else None)


def column_detail(project: Project, endpoint: str, column: str, period: Period) -> ColumnDetail:
    """Return one column of an endpoint.

    The distribution is that of the chosen time; without a choice, of the newest window that was tested.

    Raises:
        NotFound: No window of the endpoint has the column.
    """
    windows = windows_in(project, endpoint, period)
    known = dict.fromkeys(each.column for window in reversed(windows) for each in window.judged)
    if column not in known and windows:
        raise NotFound(f"No window has a column {column!r}.", fix=f"choose one of {', '.join(known) or 'none'}.")
    marks = promotions(project, live(project, endpoint, project.routes.current().get(endpoint)), windows)
    comparison, problem = _compared(project, endpoint, column, period, windows)
    newest = project.incidents.find(endpoint=endpoint, limit=_INCIDENTS)
    return ColumnDetail(
        column=column,
        columns=tuple(known),
        windows=tuple(windows),
        charts=(_distance(windows, column, marks), _strange(windows, column, marks)) if windows else (),
        comparison=comparison,
        problem=problem,
        picture=distribution_picture(comparison.bins) if comparison else Markup(""),
        incidents=tuple(each for each in newest if column in each.columns),
    )


def _compared(
    project: Project, endpoint: str, column: str, period: Period, windows: Sequence[Window]
) -> tuple[ColumnComparison | None, str]:
    tested = [window for window in windows if any(each.column == column for each in window.judged)]
    if not tested:
        return None, "No window of this time has enough predictions for a test."
    shown = tested if period.chosen else tested[-1:]
    try:
        return column_comparison(project, endpoint, column, shown[0].start, shown[-1].end), ""
    except MainspringError as error:
        return None, str(error)


def bin_name(each: BinShares) -> str:
    """Return the values of a bin in words."""
    if each.low is None and each.high is None:
        return each.category or "all others"
    if each.low is None:
        return f"up to {formats.number(each.high)}"
    if each.high is None:
        return f"above {formats.number(each.low)}"
    return f"{formats.number(each.low)} to {formats.number(each.high)}"


def distribution_picture(bins: Sequence[BinShares]) -> Markup:
    """Draw pairs of bars: the share of each bin in training, and in the predictions; empty without bins."""
    if not bins:
        return Markup("")
    most = max(max(each.training, each.current) for each in bins) or 1.0
    step, floor = (_WIDE - _LEFT) / len(bins), _TALL - _BELOW
    inside = Markup("")
    for share in (0.0, most / 2, most):
        y = floor - (floor - 12) * share / most
        inside += Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="tick end" x="{}" y="{:.1f}">{}</text>'
        ).format(_LEFT, _WIDE, y, y, _LEFT - 6, y + 4, formats.share(share))
    for place, each in enumerate(bins):
        for side, (share, tone, of) in enumerate(
            ((each.training, "first", "training"), (each.current, "second", "predictions"))
        ):
            tall = (floor - 12) * share / most
            inside += Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(
                tone,
                _LEFT + step * (place + 0.1 + 0.4 * side),
                floor - tall,
                max(1.0, step * 0.4 - 0.5),
                tall,
                f"{bin_name(each)}: {formats.share(share)} of {of}",
            )
    ends = bin_name(bins[0]), bin_name(bins[-1])
    for text, x, anchor in ((ends[0], _LEFT, "start"), (ends[1], _WIDE, "end")):
        short = text if len(text) <= 24 else f"{text[:23]}…"
        inside += Markup('<text class="tick {}" x="{}" y="{}">{}</text>').format(anchor, x, _TALL - 6, short)
    return Markup(
        '<svg class="load shares" viewBox="0 0 {} {}" role="img" '
        'aria-label="Share of each bin in training and in the predictions; the numbers are in the table below.">'
        "{}</svg>"
    ).format(_WIDE, _TALL, inside)


def _of(windows: Sequence[Window], column: str) -> list[ColumnDrift | None]:
    return [next((each for each in window.judged if each.column == column), None) for window in windows]


def _distance(windows: Sequence[Window], column: str, marks: series.Marks) -> Chart:
    found = _of(windows, column)
    rows = tuple(
        (
            formats.span(window.start, window.end),
            formats.fixed(each.ks, 3),
            formats.signed(each.shift_sd),
            formats.tiny(each.q_value),
            "drifted" if each.drifted else "steady",
        )
        for window, each in reversed(list(zip(windows, found, strict=True)))
        if each is not None
    )
    return _chart(
        windows, "distance", "Distance from training", "score",
        [Line("KS", tuple(each.ks if each else None for each in found))], marks,
        note="Kolmogorov-Smirnov: the largest distance of the two cumulative distributions",
        table=Table(("Window", "KS", "Shift, sd", "q", "State"), rows),
    )  # fmt: skip


def _strange(windows: Sequence[Window], column: str, marks: series.Marks) -> Chart:
    found = _of(windows, column)
    parts: list[tuple[str, Callable[[ColumnDrift], float], str]] = [
        ("null", lambda each: each.null_share, "first"),
        ("unseen", lambda each: each.unseen_share, "second"),
        ("outside the range", lambda each: each.outside_share, "third"),
    ]
    lines = [Line(name, tuple(of(each) if each else None for each in found), tone) for name, of, tone in parts]
    rows = tuple(
        (formats.span(window.start, window.end), *(formats.share(of(each)) for _, of, _ in parts))
        for window, each in reversed(list(zip(windows, found, strict=True)))
        if each is not None
    )
    return _chart(
        windows, "strange", "Null, unseen, out of range", "share", lines, marks,
        note="share of the predictions; unseen are texts that training did not have",
        table=Table(("Window", *(name.capitalize() for name, _, _ in parts)), rows),
        most=1.0,
    )  # fmt: skip


def _chart(
    windows: Sequence[Window],
    id_: str,
    title: str,
    unit: str,
    lines: Sequence[Line],
    marks: series.Marks,
    **more: object,
) -> Chart:
    starts, ends = tuple(each.start for each in windows), tuple(each.end for each in windows)
    return Chart(
        id_, title, "lines", unit, starts, ends, tuple(lines), marks=marks,
        empty="No window of this time has enough predictions for a test.", **more,  # type: ignore[arg-type]
    )  # fmt: skip
