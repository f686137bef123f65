"""View model of an endpoint's quality: by version over time, by segment, its labels, calibration and estimates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints.live import live
from mainspring.console.endpoints.overview import held_out_level, main_metric, predictor_quality, promotions
from mainspring.console.endpoints.period import Period, windows_in
from mainspring.console.models.curve_pictures import calibration_picture
from mainspring.monitoring.quality.reports import MeasuredQuality
from mainspring.operations.quality import MeasuredWindow, quality
from mainspring.project import Project
from mainspring.stats.decision_curves import CalibrationBin
from mainspring.stats.estimates import Estimate
from mainspring.stats.quality_figures import Figure

SHOWN_SEGMENTS = 60
_TONES = ("first", "second", "third", "fourth", "fifth")  # of the newest versions


@dataclass(frozen=True, slots=True)
class Performance:
    """Quality of an endpoint. `newest` is the newest window with measured labels, `parts` its versions and segments."""

    metric: str | None
    metrics: tuple[str, ...]  # to choose from
    windows: tuple[MeasuredWindow, ...]
    charts: tuple[Chart, ...]
    newest: MeasuredWindow | None
    parts: tuple[MeasuredQuality, ...]
    left_out: int  # further parts
    calibrated: MeasuredQuality | None  # the part with most labels that has a calibration
    calibration: Markup

    @property
    def shown_metrics(self) -> list[str]:
        """The metrics of the table, the chosen one first."""
        known = dict.fromkeys(name for part in self.parts for name in part.figures)
        return sorted(known, key=lambda name: name != self.metric)

    @property
    def estimates(self) -> list[tuple[MeasuredWindow, MeasuredQuality]]:
        """Versions with estimates, of the newest windows that have any, newest first."""
        found = [(window, part) for window in reversed(self.windows) for part in window.measured if part.estimated]
        return found[:12]


def performance(project: Project, endpoint: str, period: Period, metric: str = "") -> Performance:
    """Return the quality of an endpoint.

    Args:
        metric: The metric to draw; by default the endpoint's main one.
    """
    windows = quality(project, endpoint, windows_in(project, endpoint, period))
    state = live(project, endpoint, project.routes.current().get(endpoint))
    known = dict.fromkeys(name for window in windows for name in (*window.quality, *_measured_names(window)))
    chosen = metric if metric in known else main_metric(project, state, windows)
    labelled = next((window for window in reversed(windows) if window.quality), None)
    level = held_out_level(predictor_quality(project, state.model, labelled, chosen))
    newest = next((window for window in reversed(windows) if any(part.labels for part in window.measured)), None)
    parts = [part for part in newest.measured if part.labels] if newest else []
    calibrated = max((part for part in parts if _whole(part) and part.calibration), key=_labels, default=None)
    marks = promotions(project, state, windows)
    return Performance(
        metric=chosen,
        metrics=tuple(known),
        windows=tuple(windows),
        charts=(
            _by_version(windows, chosen, level, marks),
            _coverage(windows, marks),
            _estimates(windows, chosen, marks),
        ),
        newest=newest,
        parts=tuple(parts[:SHOWN_SEGMENTS]),
        left_out=max(0, len(parts) - SHOWN_SEGMENTS),
        calibrated=calibrated,
        calibration=_calibration(calibrated) if calibrated else Markup(""),
    )


def interval(figure: Figure | None) -> Markup | str:
    """Return a metric's value with its interval."""
    if figure is None:
        return formats.missing("not measured here")
    if figure.low is None or figure.high is None:
        return Markup('{} <span class="soft" title="too few rows for an interval">–</span>').format(
            formats.fixed(figure.value, 4)
        )
    return Markup('{} <span class="soft">{} – {}</span>').format(
        *(formats.fixed(each, 4) for each in (figure.value, figure.low, figure.high))
    )


def _whole(part: MeasuredQuality) -> bool:
    return not part.segment and not part.output


def _labels(part: MeasuredQuality) -> int:
    return part.labels


def _measured_names(window: MeasuredWindow) -> list[str]:
    return [name for part in window.measured for name in part.figures]


def _figure(window: MeasuredWindow, version: str, metric: str) -> Figure | None:
    """Return a version's metric of a window; without an interval where only the window itself has it."""
    for part in window.measured:
        if part.version == version and _whole(part) and metric in part.figures:
            return part.figures[metric]
    made = window.by_predictor.get(version)
    if made is None or metric not in made.quality:
        return None
    return Figure(made.quality[metric], None, None, made.labels)


def _by_version(
    windows: Sequence[MeasuredWindow],
    metric: str | None,
    level: tuple[float, str] | None,
    marks: tuple[tuple[int, str], ...],
) -> Chart:
    name = metric or ""
    seen = dict.fromkeys(
        version
        for window in reversed(windows)
        for version in (*window.by_predictor, *(part.version for part in window.measured if _whole(part)))
        if _figure(window, version, name) is not None
    )
    figures = {version: tuple(_figure(window, version, name) for window in windows) for version in seen}
    lines = tuple(
        Line(f"version {version}", tuple(each.value if each else None for each in figures[version]), tone)
        for version, tone in zip(seen, _TONES, strict=False)
    )
    rows = tuple(
        (formats.span(window.start, window.end), version, interval(figures[version][place]), formats.whole(each.rows))
        for place, window in reversed(list(enumerate(windows)))
        for version in seen
        if (each := figures[version][place]) is not None
    )
    return _chart(
        windows, "by-version", f"Quality: {metric}" if metric else "Quality", lines, marks,
        table=Table(("Window", "Version", "Value, 95% interval", "Rows"), rows),
        from_zero=False,
        note="by the version that made the predictions",
        level=level,
        empty="No labels have arrived in this time. Ingest them with mainspring ingest; they are then joined.",
    )  # fmt: skip


def _coverage(windows: Sequence[MeasuredWindow], marks: tuple[tuple[int, str], ...]) -> Chart:
    usual = tuple(map(_usual, windows))
    rows = tuple(
        (
            formats.span(window.start, window.end),
            formats.share(window.coverage),
            formats.missing("the past is too short to tell") if each is None else formats.share(each),
            formats.whole(window.labels),
        )
        for window, each in reversed(list(zip(windows, usual, strict=True)))
    )
    lines = [Line("with a label", tuple(w.coverage if w.predictions else None for w in windows))]
    if any(each is not None for each in usual):
        lines.append(Line("usual at this age", usual, "second"))
    return _chart(
        windows, "coverage", "Label coverage", tuple(lines), marks,
        unit="share",
        most=1.0,
        table=Table(("Window", "With a label", "Usual at this age", "Labels"), rows),
        note="share of the predictions whose label is known",
        empty="No predictions in this time.",
    )  # fmt: skip


def _usual(window: MeasuredWindow) -> float | None:
    """Return the share of a window's predictions that usually has a label by now."""
    parts = [part for part in window.measured if _whole(part) and part.expected_coverage is not None]
    total = sum(part.predictions for part in parts)
    return sum((part.expected_coverage or 0.0) * part.predictions for part in parts) / total if total else None


def _estimates(windows: Sequence[MeasuredWindow], metric: str | None, marks: tuple[tuple[int, str], ...]) -> Chart:
    """Return the estimates of the version that has most of them, between the ends of their intervals."""
    made = [_named_estimates(window, metric or "") for window in windows]
    counts = Counter(version for of_window in made for version in of_window)
    version = max(counts, key=counts.__getitem__, default="")
    found = [of_window.get(version) for of_window in made]
    lines = (
        Line("low", tuple(each.low if each else None for each in found), "inner"),
        Line("estimate", tuple(each.value if each else None for each in found)),
        Line("high", tuple(each.high if each else None for each in found), "inner"),
    )
    rows = tuple(
        (
            formats.span(w.start, w.end),
            formats.fixed(each.value, 4),
            formats.fixed(each.low, 4),
            formats.fixed(each.high, 4),
        )
        for w, each in reversed(list(zip(windows, found, strict=True)))
        if each is not None
    )
    title = f"Estimated before labels: {metric}" if metric else "Estimated before labels"
    return _chart(
        windows, "estimates", title, lines, marks,
        kind="bands",
        table=Table(("Window", "Estimate", "Low", "High"), rows),
        from_zero=False,
        note=f"version {version}, with a 90% interval from past errors; blind to concept drift" if version else "",
        empty="No estimate yet: it needs 500 labelled rows, held out at training or predicted earlier.",
    )  # fmt: skip


def _named_estimates(window: MeasuredWindow, metric: str) -> dict[str, Estimate]:
    """Return version -> its estimate of a metric, such as `brier`, or `mae.minutes` of one of several labels."""
    return {
        part.version: made
        for part in window.measured
        for name, made in part.estimated.items()
        if metric == (f"{name}.{part.output}" if part.output else name)
    }


def _chart(
    windows: Sequence[MeasuredWindow],
    id_: str,
    title: str,
    lines: tuple[Line, ...],
    marks: tuple[tuple[int, str], ...],
    *,
    kind: str = "lines",
    unit: str = "score",
    **more: object,
) -> Chart:
    starts, ends = tuple(each.start for each in windows), tuple(each.end for each in windows)
    return Chart(id_, title, kind, unit, starts, ends, lines, marks=marks, **more)  # type: ignore[arg-type]


def _calibration(part: MeasuredQuality) -> Markup:
    bins = [
        CalibrationBin(each["score"], each["positives"], each["low"], each["high"], round(each["rows"]))
        for each in part.calibration
    ]
    return calibration_picture(bins)
