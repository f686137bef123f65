"""The four charts of the overview, from a monitor's windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.monitoring.model import Window

Marks = tuple[tuple[int, str], ...]
_TONES = ("first", "second", "third", "fourth", "fifth")  # of the newest versions


def charts(
    windows: Sequence[Window], metric: str | None, level: tuple[float, str] | None, marks: Marks
) -> tuple[Chart, ...]:
    """Return the charts of traffic, latency, quality and drift, oldest window first.

    Args:
        metric: The quality metric to draw.
        level: Reference line of that metric and its name.
        marks: Instants to mark in each chart, with their names.
    """
    starts, ends = tuple(w.start for w in windows), tuple(w.end for w in windows)

    def chart(id_: str, title: str, kind: str, unit: str, lines: Sequence[Line], **more: object) -> Chart:
        return Chart(id_, title, kind, unit, starts, ends, tuple(lines), marks=marks, **more)  # type: ignore[arg-type]

    return (
        chart(
            "traffic",
            "Traffic",
            "bars",
            "count",
            [_line("predictions", windows, lambda w: w.predictions)],
            note="predictions in each window",
            table=_table(windows, ("Predictions", "By version"), _traffic),
        ),
        chart(
            "latency",
            "Latency",
            "lines",
            "ms",
            [
                _line("p50", windows, lambda w: w.p50_ms),
                _line("p99", windows, lambda w: w.p99_ms, "second"),
            ],
            note="from receiving the request to sending the response, in the gateway",
            table=_table(windows, ("p50", "p99"), _latency),
        ),
        chart(
            "quality",
            f"Quality: {metric}" if metric else "Quality",
            "lines",
            "score",
            _by_predictor(windows, metric),
            from_zero=False,
            note=_labelled(windows),
            level=level,
            empty="No labels have arrived yet. Ingest them with mainspring ingest; they are then joined.",
            table=_quality_table(windows, metric),
        ),
        chart(
            "drift",
            "Drift",
            "bars",
            "count",
            [
                _line(
                    "drifted",
                    windows,
                    lambda w: len(w.drifted) - len(w.alerts) if w.judged else None,
                ),
                _line("in two windows running", windows, lambda w: len(w.alerts) if w.judged else None, "second"),
            ],
            note="columns that differ from the training reference; incidents come from its own history",
            empty="No window contains enough predictions for a drift test yet.",
            stacked=True,
            table=_table(windows, ("Columns", "Drifted", "In two windows", "Worst column", "KS"), _drift),
        ),
    )


def _by_predictor(windows: Sequence[Window], metric: str | None) -> list[Line]:
    """Return a line for each of the newest versions that made labelled predictions; a single one if unknown."""
    seen = list(dict.fromkeys(version for window in reversed(windows) for version in window.by_predictor))
    if not seen or metric is None:
        return [_line(metric or "quality", windows, lambda w: w.quality.get(metric or ""))]

    def of(version: str) -> Callable[[Window], float | None]:
        return lambda w: w.by_predictor[version].quality.get(metric) if version in w.by_predictor else None

    return [
        _line(f"version {version}", windows, of(version), tone) for version, tone in zip(seen, _TONES, strict=False)
    ]


def _labelled(windows: Sequence[Window]) -> str | Markup:
    newest = next((window for window in reversed(windows) if window.quality), None)
    if newest is None:
        return "on predictions with a label"
    lag = None if newest.lag_p50_s is None else round(newest.lag_p50_s * 1e6)
    return Markup("on predictions with a label: {} of the newest window, median lag {}").format(
        formats.share(newest.coverage, 0), formats.duration(lag)
    )


def _line(name: str, windows: Sequence[Window], of: Callable[[Window], float | None], tone: str = "first") -> Line:
    return Line(name, tuple(of(window) for window in windows), tone)


def _table(
    windows: Sequence[Window], head: tuple[str, ...], cells: Callable[[Window], Sequence[str | Markup]]
) -> Table:
    # Newest window first: readers look for it.
    rows = tuple((formats.span(w.start, w.end), *cells(w)) for w in reversed(windows))
    return Table(("Window", *head), rows)


def _traffic(window: Window) -> Sequence[str | Markup]:
    versions = sorted(window.versions.items(), key=lambda item: (len(item[0]), item[0]))
    spread = ", ".join(f"version {version}: {count:,}" for version, count in versions)
    return formats.whole(window.predictions), spread or formats.missing("no predictions")


def _latency(window: Window) -> Sequence[str | Markup]:
    return formats.milliseconds(window.p50_ms), formats.milliseconds(window.p99_ms)


def _quality_table(windows: Sequence[Window], metric: str | None) -> Table:
    known = sorted({name for w in windows for name in w.quality}, key=lambda name: (name != metric, name))

    def cells(window: Window) -> Sequence[str | Markup]:
        figures = [formats.fixed(window.quality.get(name), 4) for name in known]
        lag = None if window.lag_p50_s is None else round(window.lag_p50_s * 1e6)
        by = ", ".join(f"version {version}" for version in window.by_predictor) or formats.missing("no labels")
        return *figures, by, formats.whole(window.labels), formats.share(window.coverage), formats.duration(lag)

    return _table(windows, (*known, "Predicted by", "Labels", "Coverage", "Median lag"), cells)


def _drift(window: Window) -> Sequence[str | Markup]:
    if not window.judged:
        return (formats.missing("too few predictions for a test"),) * 5
    worst = max(window.judged, key=lambda column: (column.drifted, column.ks))
    return (
        str(len(window.judged)),
        str(len(window.drifted)),
        str(len(window.alerts)),
        worst.column,
        formats.fixed(worst.ks, 3),
    )
