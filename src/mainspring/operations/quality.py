"""Quality of an endpoint by window: measured once labels are known, by version, segment and age of the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR
from mainspring.delivery.gates import BASELINE
from mainspring.monitoring.channels.concept import Drift, drifts
from mainspring.monitoring.channels.harm import Found, Harm, harms
from mainspring.monitoring.incidents.model import FALSE_ALARM
from mainspring.monitoring.model import Window
from mainspring.monitoring.quality.reports import MeasuredQuality, estimated, measured
from mainspring.monitoring.quality.sql_metrics import BusinessFigure
from mainspring.monitoring.quality.table import Key
from mainspring.monitoring.signals import CONTRACT, JOINT
from mainspring.project import Project
from mainspring.stats.estimates import Estimate
from mainspring.stats.quality_sums import Sums

_HARM_US = 180 * DAY  # of quality that is evidence
_INPUTS = {CONTRACT, JOINT}  # channels whose faults mislead an estimate
_MOST_PERIODS = 400  # windows with estimates, the newest
_HISTORY = 1_000  # incidents that may have misled estimates
_FOREVER = 1 << 62


class MeasuredWindow(Window, frozen=True, kw_only=True):
    """One window with its quality.

    Attributes:
        measured: A part for each version and segment.
        business: Version -> metric -> its value, of the metrics that the endpoint's monitor declares in SQL.
    """

    measured: list[MeasuredQuality]
    business: dict[str, dict[str, BusinessFigure]] = {}


def quality(project: Project, endpoint: str, windows: Sequence[Window]) -> list[MeasuredWindow]:
    """Return an endpoint's windows with their quality, from the lake's table `predictions__quality`."""
    if not windows:
        return []

    held_out = _held_out(project)
    sums = project.quality_table.sums(endpoint, 0, max(window.end for window in windows))
    now = project.clock.now()
    made = _estimates(project, endpoint, sums, windows[-1], now)
    broken = _broken(project, endpoint)
    business = project.business_table.newest(endpoint, windows[0].start)
    found = []
    for window in windows:
        parts = measured(sums, window.start, window.end, min(now, window.computed_at or now), held_out)
        invalid = _invalid(broken, window.start, window.end)
        for place, part in enumerate(parts):
            estimate = {} if part.segment else made.get((part.version, part.output, window.start), {})
            if estimate:
                parts[place] = msgspec.structs.replace(part, estimated=estimate, invalid=invalid)
        counted = {name[2]: each for name, each in business.items() if name[:2] == (window.start, window.end)}
        found.append(MeasuredWindow(**msgspec.structs.asdict(window), measured=parts, business=counted))
    return found


def estimated_now(project: Project, endpoint: str, newest: Window) -> tuple[dict[str, dict[str, Estimate]], str]:
    """Return version -> the estimates of the newest window that has any, and why they do not hold, empty if they do.

    Of several labels, a metric has the label's name: `mae.minutes`. What follows from the sums is kept for the hour.
    """

    def computed() -> tuple[int, dict[str, dict[str, Estimate]]]:
        sums = project.quality_table.sums(endpoint, 0, newest.end, segment="")
        made = _estimates(project, endpoint, sums, newest, project.clock.now())
        last = max((start for _, _, start in made), default=newest.start)
        found: dict[str, dict[str, Estimate]] = {}
        for (version, output, start), each in made.items():
            if start == last:
                named = {f"{name}.{output}" if output else name: one for name, one in each.items()}
                found.setdefault(version, {}).update(named)
        return last, found

    key = (newest.start, newest.computed_at, project.clock.now() // HOUR)
    start, found = project.quality_table.derived("estimates", endpoint, key, computed)
    return found, _invalid(_broken(project, endpoint), start, start + newest.end - newest.start)


def _estimates(
    project: Project, endpoint: str, sums: Mapping[Key, Sums], newest: Window, now: int
) -> dict[tuple[str, str, int], dict[str, Estimate]]:
    """Return the estimates of all windows until one, so that they are the same for whoever asks for some of them."""
    if not sums:
        return {}
    length = newest.end - newest.start
    before = -(-(newest.start - min(key.hour for key in sums)) // length)
    first = newest.start - min(max(before, 0), _MOST_PERIODS - 1) * length
    periods = [(start, start + length) for start in range(first, newest.end, length)]
    labels = project.label_rows(endpoint)
    horizon_us = DAY if labels is None else labels.horizon_us
    return estimated(sums, periods, now, horizon_us, project.held_out_quality.periods)


def _broken(project: Project, endpoint: str) -> list[tuple[str, int, int]]:
    """Return why estimates do not hold, since when and until when: incidents about the inputs themselves.

    An incident that a person called a false alarm is none.
    """
    found = []
    for incident in project.incidents.find(endpoint=endpoint, limit=_HISTORY):
        symptoms = [each for each in incident.symptoms if each.channel in _INPUTS and each.endpoint == endpoint]
        if not symptoms or incident.verdict == FALSE_ALARM:
            continue
        channels = ", ".join(sorted({each.channel for each in symptoms}))
        state = "is open" if incident.is_open else "was open"
        reason = f"incident {incident.id} {state}: {incident.cause} ({channels})"
        until = _FOREVER if incident.is_open else max(each.last for each in symptoms)
        found.append((reason, min(each.first for each in symptoms), until))
    return found


def _invalid(broken: Sequence[tuple[str, int, int]], start: int, end: int) -> str:
    return next((reason for reason, since, until in broken if since < end and start < until), "")


def harm_of(project: Project, endpoint: str, now: int) -> list[Harm]:
    """Return the evidence that the endpoint's versions do harm, of recent days, also where it is no alarm."""
    labels = project.label_rows(endpoint)
    if labels is None:
        return []
    monitor = project.definitions.monitors.get(endpoint)
    declared = {} if monitor is None else monitor.tolerances
    names = () if monitor is None else tuple(monitor.segments)
    if monitor is not None and monitor.forecast is not None:
        names += (monitor.forecast.horizon,)

    def judged() -> list[Harm]:
        sums = project.quality_table.sums(endpoint, now - _HARM_US, now, segment=None if names else "")
        segments = partial(project.held_out_quality.segments, names=names)
        crossed = Found(project.crossed_quality.sums(endpoint, now - _HARM_US, now), project.held_out_quality.crossed)
        return harms(sums, now, labels.horizon_us, _held_out(project), declared, segments, crossed)

    return project.quality_table.derived("harm", endpoint, (now // HOUR, tuple(declared.items()), names), judged)


def drifts_of(project: Project, endpoint: str, now: int) -> list[Drift]:
    """Return the hints of concept drift of an endpoint's versions, the oldest first."""
    labels = project.label_rows(endpoint)
    if labels is None:
        return []

    def judged() -> list[Drift]:
        sums = project.quality_table.sums(endpoint, now - _HARM_US, now, segment="")
        return drifts(sums, now, labels.horizon_us)

    return project.quality_table.derived("concept", endpoint, now // HOUR, judged)


def _held_out(project: Project) -> Callable[[str], Mapping[str, float]]:
    @cache
    def held_out(digest: str) -> Mapping[str, float]:
        try:
            metrics = project.bundles.load(digest).manifest.metrics
        except MainspringError:
            return {}
        return {name: value for name, value in metrics.items() if not name.startswith(BASELINE)}

    return held_out
