"""Alarms of the project's objectives for clouds that have no Prometheus: the same windows, limits and fewest events."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.time import SECOND
from mainspring.deploy.alarms import BurnAlarm
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.service.burning import FEWEST_BAD, RULES
from mainspring.monitoring.service.objectives import FRESHNESS


def objective_alarms(monitors: Iterable[Monitor]) -> list[BurnAlarm]:
    """Return an alarm of each objective and rule. A cloud sees requests, and not how fresh a feature view is."""
    return [
        BurnAlarm(
            endpoint=monitor.endpoint,
            about=f"{monitor.endpoint}: {objective}",
            share=rule.share(objective),
            within_s=objective.within_us / SECOND,
            long_s=rule.long_us // SECOND,
            short_s=rule.short_us // SECOND,
            fewest=FEWEST_BAD,
            page=rule.page,
        )
        for monitor in monitors
        for objective in monitor.objectives
        if objective.kind != FRESHNESS
        for rule in RULES
    ]
