"""Quality of an endpoint by window: measured once labels are known, by version, segment and age of the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY
from mainspring.delivery.gates import BASELINE
from mainspring.monitoring.channels.harm import Harm, harms
from mainspring.monitoring.model import Window
from mainspring.monitoring.quality.reports import MeasuredQuality, measured
from mainspring.project import Project

_HARM_US = 180 * DAY  # of quality that is evidence


class MeasuredWindow(Window, frozen=True, kw_only=True):
    """One window with its quality: `measured` has a part for each version and segment."""

    measured: list[MeasuredQuality]


def quality(project: Project, endpoint: str, windows: Sequence[Window]) -> list[MeasuredWindow]:
    """Return an endpoint's windows with their quality, from the lake's table `predictions__quality`."""
    if not windows:
        return []

    held_out = _held_out(project)
    sums = project.quality_table.sums(endpoint, 0, max(window.end for window in windows))
    now = project.clock.now()
    return [
        MeasuredWindow(
            **msgspec.structs.asdict(window),
            measured=measured(sums, window.start, window.end, min(now, window.computed_at or now), held_out),
        )
        for window in windows
    ]


def harm_of(project: Project, endpoint: str, now: int) -> list[Harm]:
    """Return the evidence that the endpoint's versions do harm, of recent days, also where it is no alarm."""
    labels = project.label_rows(endpoint)
    if labels is None:
        return []
    monitor = project.definitions.monitors.get(endpoint)
    sums = project.quality_table.sums(endpoint, now - _HARM_US, now, segment="")
    declared = {} if monitor is None else monitor.tolerances
    return harms(sums, now, labels.horizon_us, _held_out(project), declared)


def _held_out(project: Project) -> Callable[[str], Mapping[str, float]]:
    @cache
    def held_out(digest: str) -> Mapping[str, float]:
        try:
            metrics = project.bundles.load(digest).manifest.metrics
        except MainspringError:
            return {}
        return {name: value for name, value in metrics.items() if not name.startswith(BASELINE)}

    return held_out
