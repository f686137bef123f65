"""Verdicts of people on incidents, for the calibration of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.monitoring.incidents.model import FALSE_ALARM, REAL, Incident


@dataclass(frozen=True, slots=True)
class Verdict:
    """A time in which columns of an endpoint had an incident that a person judged.

    `columns` is empty where the incident is of the endpoint as a whole.
    """

    start: int
    end: int
    columns: tuple[str, ...]
    channels: tuple[str, ...]
    severity: float


def excluded(incidents: Sequence[Incident], endpoint: str) -> list[Verdict]:
    """Return the times of confirmed incidents: their windows are no history of what is usual."""
    return _of(incidents, endpoint, REAL)


def false_alarms(incidents: Sequence[Incident], endpoint: str) -> list[Verdict]:
    """Return the times of false alarms: what they saw is usual, so the expectation widens."""
    return _of(incidents, endpoint, FALSE_ALARM)


def _of(incidents: Sequence[Incident], endpoint: str, verdict: str) -> list[Verdict]:
    found = []
    for each in incidents:
        symptoms = [symptom for symptom in each.symptoms if symptom.endpoint == endpoint]
        if each.verdict == verdict and symptoms:
            found.append(
                Verdict(
                    min(symptom.first for symptom in symptoms),
                    max(symptom.last for symptom in symptoms),
                    tuple(column for column in each.columns if any(one.column == column for one in symptoms)),
                    tuple(sorted({symptom.channel for symptom in symptoms})),
                    max(symptom.severity for symptom in symptoms),
                )
            )
    return sorted(found, key=lambda verdict: (verdict.start, verdict.end))
