"""Quality of an endpoint by window: measured once labels are known, by version, segment and age of the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.delivery.gates import BASELINE
from mainspring.monitoring.model import Window
from mainspring.monitoring.quality.reports import MeasuredQuality, measured
from mainspring.project import Project


class MeasuredWindow(Window, frozen=True, kw_only=True):
    """One window with its quality: `measured` has a part for each version and segment."""

    measured: list[MeasuredQuality]


def quality(project: Project, endpoint: str, windows: Sequence[Window]) -> list[MeasuredWindow]:
    """Return an endpoint's windows with their quality, from the lake's table `predictions__quality`."""
    if not windows:
        return []

    @lru_cache
    def held_out(digest: str) -> Mapping[str, float]:
        try:
            metrics = project.bundles.load(digest).manifest.metrics
        except MainspringError:
            return {}
        return {name: value for name, value in metrics.items() if not name.startswith(BASELINE)}

    sums = project.quality_table.sums(endpoint, 0, max(window.end for window in windows))
    now = project.clock.now()
    return [
        MeasuredWindow(
            **msgspec.structs.asdict(window),
            measured=measured(sums, window.start, window.end, min(now, window.computed_at or now), held_out),
        )
        for window in windows
    ]
