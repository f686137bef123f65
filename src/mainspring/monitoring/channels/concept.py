"""Hints of concept drift: ADWIN and Page-Hinkley on the losses of predictions whose labels have come. They are tickets.

Single losses are not what to look at: those of one day are alike, and on real traffic a detector of their mean would
fire each day. So the stream is of hours, and of what calibration does not explain: the squared error less what scores
that are right would lose, which neither a busy day nor a higher share of positives changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.harm_sums import age_of
from mainspring.monitoring.quality.table import Key
from mainspring.monitoring.signals import HARM, Signal
from mainspring.stats.change_detection import Adwin, PageHinkley, detections
from mainspring.stats.quality_sums import Floats, Sums

STATISTIC = "concept"
FEWEST_ROWS = 20  # labelled predictions of an hour; smaller hours wait for the next
_FIRST = 168  # hours whose mean and spread scale the losses
_THRESHOLD, _DELTA = 50.0, 0.5  # of Page-Hinkley, in these units
_REACH = 8.0  # ADWIN takes values to lie within a range of one


class Drift(NamedTuple):
    """A detected change of the loss; `before` and `after` are means of a week on either side."""

    version: str
    detector: str
    hour: int  # UTC epoch microseconds
    before: float
    after: float


def drifts(sums: Mapping[Key, Sums], now: int, horizon_us: int) -> list[Drift]:
    """Return the changes detected in the losses of each version's predictions, the oldest first.

    Args:
        sums: By `Key`, since each version began to predict.
        now: Time by which labels are included, UTC epoch microseconds.
        horizon_us: Age at which a prediction counts.
    """
    versions: dict[tuple[str, str, str], dict[int, Sums]] = {}
    for key, each in sums.items():
        ripe = 0 < key.age_s <= age_of(horizon_us) and key.hour + HOUR + horizon_us <= now
        if ripe and not key.segment and not key.output:
            hours = versions.setdefault((key.version, key.digest, key.task), {})
            hours[key.hour] = hours[key.hour] + each if key.hour in hours else each
    found = []
    for (version, _, task), hours in versions.items():
        starts, losses = _stream(task, hours)
        first = losses[:_FIRST]
        scaled = (losses - first.mean()) / (first.std() or 1.0) if losses.size else losses
        detectors: dict[str, Adwin | PageHinkley] = {
            "ADWIN": Adwin(every=24),
            "Page-Hinkley": PageHinkley(threshold=_THRESHOLD, delta=_DELTA),
        }
        for name, detector in detectors.items():
            for place in detections(detector, scaled / _REACH if name == "ADWIN" else scaled):
                week = slice(max(0, place - _FIRST), place), slice(place, place + _FIRST)
                before, after = (float(losses[part].mean()) if losses[part].size else 0.0 for part in week)
                found.append(Drift(version, name, starts[place], before, after))
    return sorted(found, key=lambda drift: (drift.hour, drift.version, drift.detector))


def _stream(task: str, hours: Mapping[int, Sums]) -> tuple[list[int], Floats]:
    """Return the hours with enough labels, small ones joined with the next, and the mean loss of each."""
    starts, losses = [], []
    waiting = Sums.nothing()
    for hour in sorted(hours):
        waiting += hours[hour]
        rows = waiting["scored"]
        if rows >= FEWEST_ROWS:
            starts.append(hour)
            losses.append(_loss(task, waiting) / rows)
            waiting = Sums.nothing()
    return starts, np.array(losses)


def _loss(task: str, sums: Sums) -> float:
    if task == "regression":
        return sums["absolute"]
    if task != "binary":
        return sums["error"]  # confidence less the share of right answers
    squares = sums["squared"] + 2 * float(sums.bins[:, 3].sum()) - sums["label"]  # of scores
    return sums["squared"] - (sums["score"] - squares)


def concept_signals(endpoint: str, found: list[Drift], since: int) -> list[Signal]:
    """Return a ticket for each change detected since a time, UTC epoch microseconds."""
    return [
        Signal(
            channel=HARM,
            endpoint=endpoint,
            statistic=STATISTIC,
            start=drift.hour // DAY * DAY,
            end=(drift.hour // DAY + 1) * DAY,
            severity=1.0,
            version=drift.version,
            value=drift.after,
            expected=drift.before,
            detail=(
                f"{drift.detector} found that the loss of version {drift.version}, less what calibrated scores lose, "
                f"changed from {drift.before:.4g} to {drift.after:.4g}: inputs and labels may relate in another way."
            ),
        )
        for drift in found
        if drift.hour >= since
    ]
