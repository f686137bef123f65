"""Objectives of a project's endpoints, judged by the stored samples."""

from __future__ import annotations

from mainspring.monitoring.service import burning
from mainspring.monitoring.service.burning import WINDOWS_US, ObjectiveReport
from mainspring.monitoring.signals import Signal
from mainspring.project import Project


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
    samples = project.service.samples(now - longest, now) if longest else []
    return [report for each in monitors for report in burning.reports(each.endpoint, each.objectives, samples, now)]


def service_signals(project: Project) -> list[Signal]:
    """Return the objectives that burn their error budgets too fast, as input of incidents."""
    now = project.wall.now()
    monitors = [each for each in project.definitions.monitors.values() if each.objectives]
    samples = project.service.samples(now - max(WINDOWS_US), now) if monitors else []
    return [signal for each in monitors for signal in burning.signals(each.endpoint, each.objectives, samples, now)]
