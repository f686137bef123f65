"""Output of `mainspring monitor`: windows, the quality of one in full, and its estimates, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from mainspring.core.time import DAY, format_instant
from mainspring.monitoring.quality.reports import MeasuredQuality
from mainspring.operations.quality import MeasuredWindow
from mainspring.stats.estimates import Estimate
from mainspring.stats.quality_figures import Figure

SHOWN_WINDOWS = 14
SHOWN_PARTS = 12  # versions and segments
_NAMED = 3  # columns that are named


def windows_view(windows: Sequence[MeasuredWindow]) -> Iterator[RenderableType]:
    """Yield a table of the newest windows with predictions, and what its columns mean where that is not plain."""
    shown = [window for window in windows if window.predictions][-SHOWN_WINDOWS:]
    if len(windows) > len(shown):
        yield f"[dim]{len(windows) - len(shown):,} more windows, earlier or without predictions: --json[/]"
    table = _table("window from", "predictions", "p99 ms", "labels", "quality", "drifted")
    for window in shown:
        quality = "\n".join(
            f"version {version}: {name} {value:.3f}"
            for version, made in window.by_predictor.items()
            for name, value in list(made.quality.items())[:1]
        )
        p99 = "–" if window.p99_ms is None else f"{window.p99_ms:.1f}"
        share = f"{window.labels:,} ({window.coverage:.0%})"
        drifted = f"{len(window.drifted)} of {len(window.judged)}" if window.judged else "–"
        table.add_row(_when(window.start), f"{window.predictions:,}", p99, share, quality, drifted)
    yield table
    newest = next((window for window in reversed(shown) if window.judged), None)
    if newest is not None and newest.drifted:
        farthest = sorted((each for each in newest.judged if each.drifted), key=lambda each: -each.ks)
        names = ", ".join(escape(each.column) for each in farthest[:_NAMED])
        yield f"[dim]drifted: columns unlike training, now most {names}. Seasons do that: no alarm.[/]"


def quality_view(window: MeasuredWindow) -> Iterator[RenderableType]:
    """Yield the quality by version and segment, each metric with its interval."""
    yield f"\n[bold]Quality in the window from {_when(window.start)}[/], with 95% intervals"
    parts = [part for part in window.measured if part.labels]
    for part in parts[:SHOWN_PARTS]:
        yield f"version {part.version}, {_where(part)}: {_labels(part)}"
        table = _table("  metric", "value", "95% interval", "held out")
        for name, figure in part.figures.items():
            table.add_row(f"  {name}", f"{figure.value:.4f}", _interval(figure), _number(part.held_out.get(name)))
        yield table
    if len(parts) > SHOWN_PARTS:
        yield f"[dim]{len(parts) - SHOWN_PARTS:,} more versions and segments: --json[/]"


def estimates_view(window: MeasuredWindow) -> Iterator[RenderableType]:
    """Yield the estimates before labels of one window, and whether they hold."""
    yield f"\n[bold]Estimated before labels, for the window from {_when(window.start)}[/]"
    table = _table("  version", "metric", "estimate", "90% interval")
    invalid = ""
    for part in window.measured:
        for name, made in part.estimated.items():
            metric = f"{name} {part.output}".strip()
            table.add_row(f"  {part.version}", metric, f"{made.value:.4f}", _interval(made))
            invalid = invalid or part.invalid
    yield table
    if invalid:
        yield f"[red]These estimates do not hold: {escape(invalid)}.[/]"
    else:
        yield "[dim]They hold unless inputs and labels relate in another way than before; only labels can tell.[/]"


def business_view(window: MeasuredWindow) -> Iterator[RenderableType]:
    """Yield the business metrics of one window, by version."""
    yield f"\n[bold]Business metrics of the window from {_when(window.start)}[/]"
    table = _table("  version", "metric", "value")
    for version, figures in window.business.items():
        for name, figure in figures.items():
            value = f"[red]{escape(figure.error)}[/]" if figure.error else _number(figure.value)
            table.add_row(f"  {version}", name, value)
    yield table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _when(at: int) -> str:
    """Return a date where a window begins at midnight, else the instant."""
    text = format_instant(at)
    return text if at % DAY else text.partition("T")[0]


def _where(part: MeasuredQuality) -> str:
    where = escape(part.segment) or "all traffic"
    return f"{where}, label {part.output}" if part.output else where


def _labels(part: MeasuredQuality) -> str:
    text = f"{part.labels:,} labels for {part.coverage:.0%} of {part.predictions:,} predictions"
    if part.expected_coverage is not None:
        text += f"; {part.expected_coverage:.0%} are usual by now"
    return f"{text}; {part.contradicted:,} contradicted" if part.contradicted else text


def _interval(figure: Figure | Estimate) -> str:
    known = figure.low is not None and figure.high is not None
    return f"{figure.low:.4f} – {figure.high:.4f}" if known else "too little known yet"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
