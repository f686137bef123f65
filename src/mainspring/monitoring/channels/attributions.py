"""Attributions: how much each column moves the answers of a day, against the days before.

The statistic of a column is its mean absolute contribution over a sample of the day's predictions. A day's score is the
largest deviation of a column from its own history, in units of the history's spread and the day's sampling error. How
rare a score is follows from an exponential tail of the largest scores of the last four weeks, with the error of a fit
to so few. An alarm is rarer than the channel's part of the endpoint's budget. So a column whose values moved far is
found if the model cares, and one that the model ignores is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.monitoring.channels.budget import ATTRIBUTIONS
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.signals import ATTRIBUTION, Signal

Array = np.ndarray[Any, Any]

LEAST_HISTORY = 14  # days before the first judgement
DAYS = 28  # of history
_FIRST = 5  # days before the first score
_MAD = 1.4826  # of a normal distribution
_FLOOR = 0.05  # of all contributions: smaller movements are no alarm
_TAIL = 5  # largest scores that a tail is fitted to
_LEAST_EXCESS, _MOST_EXCESSES = 0.1, 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Attributions:
    """Contributions of one day's sample.

    Args:
        start, end: UTC epoch microseconds.
        mean: Mean absolute contribution of each column, shape (columns,).
        error: Its standard error, shape (columns,).
    """

    start: int
    end: int
    rows: int
    mean: Array
    error: Array

    @classmethod
    def of(cls, start: int, end: int, contributions: Array) -> Attributions:
        """Return the attributions of a sample.

        Args:
            contributions: Shape (rows, columns, outputs).
        """
        moved = np.abs(contributions).sum(axis=2)
        return cls(start, end, len(moved), moved.mean(axis=0), moved.std(axis=0) / np.sqrt(len(moved)))


def judge(
    endpoint: str,
    version: str,
    columns: Sequence[str],
    days: Sequence[Attributions],
    trained: Mapping[str, float],
    alarms_per_week: float = ALARMS_PER_WEEK,
) -> tuple[list[tuple[int, int]], list[Signal]]:
    """Return the days that could be judged, and the alarms among them, one for the column that deviates most.

    Args:
        days: In order of time; days without enough predictions are absent.
        trained: Column -> mean absolute contribution over held-out rows, for the alarm's sentence.
        alarms_per_week: Of the endpoint, of all its channels.
    """
    rare = -math.log(min(alarms_per_week * ATTRIBUTIONS / 7.0, 0.5))
    deviations = [_deviations(days[max(0, at - DAYS) : at], day) for at, day in enumerate(days)]
    scores = [float("nan") if each is None else float(each.max(initial=0.0)) for each in deviations]
    windows, signals = [], []
    for at, day in enumerate(days):
        past = [score for score in scores[max(0, at - DAYS) : at] if not np.isnan(score)]
        found = deviations[at]
        if found is None or at < LEAST_HISTORY or not past:
            continue
        windows.append((day.start, day.end))
        rarity = _rarity(scores[at], past)
        if rarity > rare:
            column = int(found.argmax())
            usual = float(np.median([each.mean[column] for each in days[max(0, at - DAYS) : at]]))
            signals.append(_signal(endpoint, version, columns[column], column, day, usual, rarity / rare, trained))
    return windows, signals


def _rarity(score: float, past: Sequence[float]) -> float:
    """Return minus the log of the probability of a score as large, 0 for one that is not among the largest.

    Beyond the start of the tail, excesses over k past ones are Pareto distributed where they are exponential.
    """
    ordered = sorted(past, reverse=True)
    size = min(_TAIL, len(ordered))
    start = ordered[size] if len(ordered) > size else ordered[-1]
    start = max(start, 1.0)
    excess = max(sum(max(each - start, 0.0) for each in ordered[:size]) / size, _LEAST_EXCESS)
    if score <= start:
        return 0.0
    beyond = min((score - start) / excess, _MOST_EXCESSES)
    return math.log((len(ordered) + 1) / (size + 1)) + size * math.log1p(beyond / size)


def _deviations(history: Sequence[Attributions], day: Attributions) -> Array | None:
    """Return how far each column is from its history, in standard deviations; `None` with too little history."""
    if len(history) < _FIRST:
        return None
    past = np.stack([each.mean for each in history])
    usual = np.median(past, axis=0)
    spread = _MAD * np.median(np.abs(past - usual), axis=0)
    moved = np.abs(day.mean - usual)
    small = moved < _FLOOR * max(float(usual.sum()), float(day.mean.sum()))
    noise = np.sqrt(spread**2 + day.error**2)
    return np.where(small, 0.0, moved / np.maximum(noise, np.finfo(float).tiny))


def _signal(
    endpoint: str,
    version: str,
    name: str,
    column: int,
    day: Attributions,
    usual: float,
    severity: float,
    trained: Mapping[str, float],
) -> Signal:
    rank = 1 + int((day.mean > day.mean[column]).sum())
    before = 1 + sum(value > trained.get(name, 0.0) for value in trained.values())
    return Signal(
        channel=ATTRIBUTION,
        endpoint=endpoint,
        version=version,
        statistic="attribution",
        column=name,
        start=day.start,
        end=day.end,
        severity=severity,
        value=float(day.mean[column]),
        expected=usual,
        detail=(
            f"{name} moves answers by {day.mean[column]:.3g} on average over {day.rows} predictions, usually by "
            f"{usual:.3g}; it is input number {rank} by that, and was number {before} on the held-out rows of training."
        ),
    )
