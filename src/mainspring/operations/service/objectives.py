"""Objectives of a project's endpoints, judged by the stored samples."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mainspring.core.time import MINUTE
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.service import burning
from mainspring.monitoring.service.burning import WINDOWS_US, ObjectiveReport
from mainspring.monitoring.signals import SERVICE
from mainspring.project import Project

_WINDOW_US = 5 * MINUTE
_LOOKS = 3  # windows that a pass judges: the newest, and those before it, whose last samples may have been late


def objectives(project: Project, endpoint: str | None = None) -> list[ObjectiveReport]:
    """Return the objectives as they stand, of one endpoint or of all.

    Raises:
        NotFound: There is no such endpoint.
    """
    if endpoint is not None:
        project.definitions.endpoint(endpoint)
    monitors = [each for name, each in project.definitions.monitors.items() if endpoint in (None, name)]
    now = project.wall.now()
    longest = max((objective.over_us for each in monitors for objective in each.objectives), default=0)
    samples = project.service.samples(now - longest, now, _subjects(monitors)) if longest else []
    return [report for each in monitors for report in burning.reports(each.endpoint, each.objectives, samples, now)]


def _subjects(monitors: Iterable[Monitor]) -> set[str]:
    return {burning.subject(monitor.endpoint, each) for monitor in monitors for each in monitor.objectives}


def judged(project: Project, endpoint: str) -> list[Judged]:
    """Return the newest windows of five minutes that have samples, and the objectives that burn too fast there.

    A signal has the window at whose end its burn rates were too high, whatever windows these look back on. Windows end
    at whole multiples of their length by the machine's clock, so a repeated look judges the same ones.
    """
    monitor = project.definitions.monitors.get(endpoint)
    if monitor is None or not monitor.objectives:
        return []
    now = project.wall.now()
    relevant = project.service.samples(now - max(WINDOWS_US) - _LOOKS * _WINDOW_US, now, _subjects([monitor]))
    through = max((sample.end for sample in relevant), default=0)
    windows, signals = [], []
    for number in range(through // _WINDOW_US - _LOOKS + 1, through // _WINDOW_US + 1):
        start, end = (number - 1) * _WINDOW_US, number * _WINDOW_US
        if not any(sample.start < end and sample.end > start for sample in relevant):
            continue
        windows.append((start, end))
        found = burning.signals(endpoint, monitor.objectives, relevant, end)
        signals += [msgspec.structs.replace(signal, start=start, end=end) for signal in found]
    return [Judged(endpoint, SERVICE, tuple(windows), tuple(signals))]
