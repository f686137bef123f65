"""Verdicts of people on incidents, for the calibration of the channels."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.monitoring.incidents.model import EXPECTED, FALSE_ALARM, REAL, Incident
from mainspring.monitoring.signals import Signal


def confirmed(incidents: Iterable[Incident], endpoint: str) -> list[tuple[int, int]]:
    """Return start and end of confirmed incidents: their windows are no history of what is usual."""
    found = [_signals(each, endpoint) for each in incidents if each.verdict == REAL]
    return sorted((min(one.start for one in each), max(one.end for one in each)) for each in found if each)


def dismissed(incidents: Iterable[Incident], endpoint: str) -> list[Signal]:
    """Return what false alarms and expected changes saw: as much is usual from then on."""
    found = [each for each in incidents if each.verdict in (FALSE_ALARM, EXPECTED)]
    return sorted((one for each in found for one in _signals(each, endpoint)), key=lambda one: (one.start, one.end))


def _signals(incident: Incident, endpoint: str) -> list[Signal]:
    """Return the symptoms of an endpoint, each as one signal from its first window to its last."""
    return [
        Signal(
            channel=each.channel, endpoint=endpoint, statistic=each.statistic, start=each.first, end=each.last,
            severity=each.severity, version=each.version, segment=each.segment, column=each.column,
            value=each.value, expected=each.expected,
        )
        for each in incident.symptoms
        if each.endpoint == endpoint
    ]  # fmt: skip
