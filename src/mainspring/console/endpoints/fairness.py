"""View model of an endpoint's fairness: one measure of its groups with intervals, and the gaps over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.background_cache import Looking
from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints.live import live
from mainspring.console.endpoints.period import Period
from mainspring.console.features.values import Seen
from mainspring.console.models.intervals import interval_picture
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, MINUTE, format_instant
from mainspring.governance.model import Estimate
from mainspring.operations.fairness import STEP_US, Fairness, FairnessWindow, VersionFairness, live_fairness
from mainspring.project import Project
from mainspring.stats.fairness.counting import MEASURES
from mainspring.stats.fairness.reporting import LEAST_ROWS, FairnessReport, GroupGap, Rate

LEAST = (20, 50, LEAST_ROWS)  # to choose from
_DAILY, _DEFAULT = 14 * DAY, 30 * DAY  # the longest time that is followed day by day; the time without a choice
_KEPT_US = 5 * MINUTE  # about as often the worker counts labels


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group: its name, its rows, and the measure as a number and as a picture."""

    name: str
    rows: int
    rate: Rate
    picture: Markup


@dataclass(frozen=True, slots=True)
class Comparison:
    """The groups by one column, or by the combinations of all."""

    by: tuple[str, ...]
    groups: tuple[GroupRow, ...]
    gap: GroupGap | None
    over_time: Chart | None
    report: FairnessReport


@dataclass(frozen=True, slots=True)
class FairnessPage:
    """Fairness of the labelled predictions of one version, by one measure.

    Attributes:
        declared: The columns whose values are groups.
        example: A column to declare, where none is.
        parts: Versions, and of several labels each, to choose from: address -> name.
        hidden: Columns that identify a person.
    """

    declared: tuple[str, ...]
    example: str
    seen: Seen[Fairness]
    parts: dict[str, str]
    part: str
    shown: VersionFairness | None
    measures: tuple[str, ...]
    measure: str
    least_rows: int
    comparisons: tuple[Comparison, ...]

    @property
    def since(self) -> str:
        """The first instant, as the command takes it."""
        found = self.seen.found
        return "" if found is None or found.since is None else format_instant(found.since)

    @property
    def until(self) -> str:
        """The instant after the last, as the command takes it."""
        found = self.seen.found
        return "" if found is None or found.until is None else format_instant(found.until)

    @property
    def hidden(self) -> tuple[str, ...]:
        return self.seen.found.hidden if self.seen.found else ()


def fairness(
    project: Project,
    looking: Looking,
    endpoint: str,
    period: Period,
    *,
    part: str = "",
    measure: str = "",
    least_rows: int = LEAST_ROWS,
) -> FairnessPage:
    """Return the fairness of an endpoint.

    Args:
        part: A version as `VERSION` or `VERSION:OUTPUT`; by default the one with most labels.
        measure: The measure to show; by default the first.
        least_rows: Rows below which a measure is insufficient data.
    """
    monitor = project.definitions.monitors.get(endpoint)
    declared = tuple(monitor.fairness) if monitor is not None else ()
    seen: Seen[Fairness] = Seen(True, None, None)
    if declared:
        seen = _looked(project, looking, endpoint, declared, period, least_rows)
    versions = {_part(each): each for each in (seen.found.versions if seen.found else ())}
    shown = versions.get(part) or next(iter(versions.values()), None)
    known = MEASURES[shown.task] if shown else ()
    chosen = measure if measure in known else next(iter(known), "")
    return FairnessPage(
        declared=declared,
        example=_example(project, endpoint),
        seen=seen,
        parts={key: _part_name(each) for key, each in versions.items()},
        part=_part(shown) if shown else "",
        shown=shown,
        measures=known,
        measure=chosen,
        least_rows=least_rows,
        comparisons=tuple(_comparison(shown, report, chosen) for report in shown.reports) if shown else (),
    )


def _looked(
    project: Project, looking: Looking, endpoint: str, declared: Sequence[str], period: Period, least_rows: int
) -> Seen[Fairness]:
    now = project.clock.now()
    since, until = period.bounds(now, _DEFAULT)
    until = min(until, now + 1)
    step = DAY if until - since <= _DAILY else STEP_US
    key = ("fairness", endpoint, tuple(declared), period, least_rows, now // _KEPT_US)
    try:
        ready, found = looking.at(
            key,
            lambda: live_fairness(project, endpoint, since=since, until=until, least_rows=least_rows, step_us=step),
        )
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(ready, found, None)


def _part(of: VersionFairness) -> str:
    return f"{of.version}:{of.output}" if of.output else of.version


def _part_name(of: VersionFairness) -> str:
    return f"version {of.version}" + (f", {of.output}" if of.output else "")


def _example(project: Project, endpoint: str) -> str:
    """Return a column that could be declared: an entity's key, or an input of the model."""
    model = project.definitions.models.get(live(project, endpoint, project.routes.current().get(endpoint)).model)
    return next(iter((*model.keys, *model.inputs)), "COLUMN") if model is not None else "COLUMN"


def _comparison(shown: VersionFairness, report: FairnessReport, measure: str) -> Comparison:
    rates = [each.measures[measure] for each in report.groups]
    estimates = [_estimate(measure, rate) for rate in rates]
    among = [each for each in estimates if each is not None]
    groups = tuple(
        GroupRow(
            " · ".join(group.group.values()),
            group.rows,
            rate,
            interval_picture(each, among) if each is not None else Markup(""),
        )
        for group, rate, each in zip(report.groups, rates, estimates, strict=True)
    )
    windows = [window for window in shown.over_time if window.by == report.by]
    gap = next((each for each in report.gaps if each.measure == measure), None)
    return Comparison(report.by, groups, gap, _over_time(windows, report.by, measure), report)


def _estimate(measure: str, rate: Rate) -> Estimate | None:
    if rate.value is None:
        return None
    low, high = (rate.value if end is None else end for end in (rate.low, rate.high))
    return Estimate(measure, rate.value, low, high, None, higher_is_better=False)


def _over_time(windows: Sequence[FairnessWindow], by: Sequence[str], measure: str) -> Chart | None:
    """Return the largest gap of each stretch of time between the ends of its interval; None with fewer than two."""
    gaps = [next((each for each in window.gaps if each.measure == measure), None) for window in windows]
    if sum(each is not None for each in gaps) < 2:
        return None
    rates = [each.difference if each else None for each in gaps]
    edge = [(each.low, each.high) if each and each.low is not None else (None, None) for each in rates]
    lines = (
        Line("low", tuple(each[0] for each in edge), "inner"),
        Line("largest gap", tuple(each.value if each else None for each in rates)),
        Line("high", tuple(each[1] for each in edge), "inner"),
    )
    rows = tuple(
        (
            formats.span(window.start, window.end),
            rate_text(gap.difference),
            f"{named(gap.highest)} above {named(gap.lowest)}",
            formats.whole(window.rows),
        )
        for window, gap in reversed(list(zip(windows, gaps, strict=True)))
        if gap is not None
    )
    return Chart(
        f"gap-{'-'.join(by)}".replace(".", "-"),
        f"Largest gap: {measure}",
        "bands",
        "score",
        tuple(window.start for window in windows),
        tuple(window.end for window in windows),
        lines,
        Table(("Time", "Gap, 95% interval", "Between", "Labels"), rows),
        note="between the two groups that lie furthest apart",
    )


def rate_text(rate: Rate) -> Markup | str:
    """Return a measure's value with its interval."""
    if rate.value is None:
        return formats.missing(f"insufficient data: {rate.rows:,} rows")
    if rate.low is None or rate.high is None:
        return formats.fixed(rate.value, 3)
    return Markup('{} <span class="soft">{} – {}</span>').format(
        *(formats.fixed(each, 3) for each in (rate.value, rate.low, rate.high))
    )


def named(group: dict[str, str]) -> str:
    """Return a group's name: the values of its columns."""
    return " · ".join(group.values())
