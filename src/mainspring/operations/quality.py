"""Quality of an endpoint by window: measured once labels are known, by version, segment and age of the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR
from mainspring.delivery.gates import BASELINE
from mainspring.monitoring.channels.concept import Drift, drifts
from mainspring.monitoring.channels.harm import Harm, harms
from mainspring.monitoring.model import Window
from mainspring.monitoring.quality.reports import MeasuredQuality, estimated, measured
from mainspring.monitoring.quality.sql_metrics import BusinessFigure
from mainspring.monitoring.signals import CONTRACT, JOINT
from mainspring.project import Project

_HARM_US = 180 * DAY  # of quality that is evidence
_INPUTS = {CONTRACT, JOINT}  # channels whose faults mislead an estimate


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
    labels = project.label_rows(endpoint)
    horizon_us = DAY if labels is None else labels.horizon_us
    made = estimated(sums, [(window.start, window.end) for window in windows], now, horizon_us)
    broken = _broken(project, endpoint)
    business = project.business_table.newest(endpoint, windows[0].start)
    found = []
    for window in windows:
        parts = measured(sums, window.start, window.end, min(now, window.computed_at or now), held_out)
        invalid = next((reason for reason, since in broken if since < window.end), "")
        for place, part in enumerate(parts):
            estimate = {} if part.segment or part.output else made.get((part.version, window.start), {})
            if estimate:
                parts[place] = msgspec.structs.replace(part, estimated=estimate, invalid=invalid)
        counted = {name[2]: each for name, each in business.items() if name[:2] == (window.start, window.end)}
        found.append(MeasuredWindow(**msgspec.structs.asdict(window), measured=parts, business=counted))
    return found


def _broken(project: Project, endpoint: str) -> list[tuple[str, int]]:
    """Return why estimates do not hold, and since when: open incidents about the inputs themselves."""
    return [
        (f"incident {incident.id} is open: {', '.join(incident.channels)}", incident.started)
        for incident in project.incidents.open()
        if endpoint in incident.endpoints and not _INPUTS.isdisjoint(incident.channels)
    ]


def harm_of(project: Project, endpoint: str, now: int) -> list[Harm]:
    """Return the evidence that the endpoint's versions do harm, of recent days, also where it is no alarm."""
    labels = project.label_rows(endpoint)
    if labels is None:
        return []
    monitor = project.definitions.monitors.get(endpoint)
    declared = {} if monitor is None else monitor.tolerances

    def judged() -> list[Harm]:
        sums = project.quality_table.sums(endpoint, now - _HARM_US, now, segment="")
        return harms(sums, now, labels.horizon_us, _held_out(project), declared)

    return project.quality_table.derived("harm", endpoint, (now // HOUR, tuple(declared.items())), judged)


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
