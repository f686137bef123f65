"""Quality of one window as a table, for `mainspring monitor`."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from mainspring.core.time import format_instant
from mainspring.monitoring.quality.reports import MeasuredQuality
from mainspring.operations.quality import MeasuredWindow
from mainspring.stats.estimates import Estimate
from mainspring.stats.quality_figures import Figure


def quality_table(window: MeasuredWindow) -> Table:
    """Return the quality by version and segment, each metric with its interval."""
    title = f"Quality of the window from {format_instant(window.start)}"
    table = Table(box=None, header_style="bold", title=title, title_justify="left")
    for column in ("version", "segment", "labels", "usual", "metric", "value", "95% interval", "held out"):
        table.add_column(column, overflow="fold")
    for part in window.measured:
        rows = list(part.figures.items()) if part.labels else []
        for place, (name, figure) in enumerate(rows):
            head = _head(part) if place == 0 else ("", "", "", "")
            held_out = part.held_out.get(name)
            table.add_row(*head, name, f"{figure.value:.4f}", _interval(figure), _number(held_out))
    return table


def estimates_table(window: MeasuredWindow) -> Table:
    """Return the estimates before labels of one window, and whether they hold."""
    title = f"Estimated before labels, of the window from {format_instant(window.start)}"
    table = Table(box=None, header_style="bold", title=title, title_justify="left")
    for column in ("version", "metric", "estimate", "90% interval", "valid"):
        table.add_column(column, overflow="fold")
    for part in window.measured:
        for name, made in part.estimated.items():
            valid = f"no: {part.invalid}" if part.invalid else "unless the concept drifted"
            table.add_row(part.version, name, f"{made.value:.4f}", _interval(made), valid)
    return table


def _head(part: MeasuredQuality) -> tuple[str, str, str, str]:
    where = part.segment or "all"
    usual = "–" if part.expected_coverage is None else f"{part.expected_coverage:.0%}"
    contradicted = f", {part.contradicted:,} contradicted" if part.contradicted else ""
    labels = f"{part.labels:,} ({part.coverage:.0%}{contradicted})"
    return part.version, f"{where} {part.output}".strip(), labels, usual


def business_table(window: MeasuredWindow) -> Table:
    """Return the business metrics of one window, by version."""
    title = f"Business metrics of the window from {format_instant(window.start)}"
    table = Table(box=None, header_style="bold", title=title, title_justify="left")
    for column in ("version", "metric", "value"):
        table.add_column(column, overflow="fold")
    for version, figures in window.business.items():
        for name, figure in figures.items():
            value = f"[red]{escape(figure.error)}[/]" if figure.error else _number(figure.value)
            table.add_row(version, name, value)
    return table


def _interval(figure: Figure | Estimate) -> str:
    return "–" if figure.low is None or figure.high is None else f"{figure.low:.4f} to {figure.high:.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
