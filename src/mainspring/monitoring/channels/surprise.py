"""Surprise and joint: statistics that left the expectation of their own history, within one budget of false alarms.

The score of a window is that of its most unusual item, over all columns and statistics of both channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mainspring.monitoring.channels import sentences
from mainspring.monitoring.channels.budget import thresholds
from mainspring.monitoring.channels.expectation import Dismissed, Unusual, unusual
from mainspring.monitoring.channels.statistics import (
    BY_COLUMN,
    MEAN,
    RELATIONS,
    ROWS,
    SEPARATION,
    SPREAD,
    VARIETY,
    measure,
    share,
)
from mainspring.monitoring.channels.windows import WEEK, Floats, Windows
from mainspring.monitoring.signals import JOINT, SURPRISE, Signal
from mainspring.stats.distributions import normal_two_sided

_ON_A_SCALE = (MEAN, SPREAD, VARIETY)  # the other values are transformed shares


@dataclass(frozen=True, eq=False, slots=True)
class Verdicts:
    """Windows judged by the channels of surprise and joint.

    Attributes:
        scores: Shape (windows,); NaN where there is too little history.
        thresholds: Shape (windows,); infinite where there is too little history.
    """

    windows: Windows
    unusual: Unusual
    scores: Floats
    thresholds: Floats

    def first(self, number: int) -> Verdicts:
        """Return the verdicts about the first windows."""
        return Verdicts(self.windows, self.unusual.first(number), self.scores[:number], self.thresholds[:number])

    def signals(
        self, window: int, endpoint: str, segment: str = "", outputs: frozenset[str] = frozenset()
    ) -> list[Signal]:
        """Return the alarms of a window, the one that explains most first.

        A column that is unusual by itself comes before one that is unusual given the others, since a fault disturbs the
        relations of all columns to the faulty one; those others are left out. Outputs follow from features: they count
        only where no feature is unusual.
        """
        relative = np.nan_to_num(self.unusual.severities[window]) / self.thresholds[window]
        over = np.flatnonzero(relative > 1.0)
        tiers = [self._tier(item, outputs) for item in over.tolist()]
        first = min(tiers, default=0)
        kept = [item for item, tier in zip(over.tolist(), tiers, strict=True) if tier == first]
        best: dict[str, int] = {}
        for item in sorted(kept, key=lambda item: -relative[item]):
            best.setdefault(self.unusual.columns[item], item)
        if first:
            # Two columns that no longer follow from each other are alike here: the cause has more signs of its own.
            whole = {column: relative[np.array(self.unusual.columns) == column].sum() for column in best}
            best = dict(sorted(best.items(), key=lambda entry: -whole[entry[0]]))
        if first and best:
            view = next(iter(best)).partition(".")[0]
            best = {column: item for column, item in best.items() if column.partition(".")[0] == view}
        return [self._signal(window, item, float(relative[item]), endpoint, segment) for item in best.values()]

    def _tier(self, item: int, outputs: frozenset[str]) -> int:
        if self.unusual.statistics[item] == SEPARATION:
            return 3
        if self.unusual.columns[item] in outputs:
            return 2
        return 0 if self.unusual.alone[item] and self.unusual.statistics[item] not in RELATIONS else 1

    def _signal(self, window: int, item: int, severity: float, endpoint: str, segment: str) -> Signal:
        found, statistic = self.unusual, self.unusual.statistics[item]
        value, expected = (_plain(statistic, float(each[window, item])) for each in (found.values, found.expected))
        start = int(self.windows.starts[window])
        rows = int((self.windows.traffic if statistic == ROWS else self.windows.rows)[window])
        return Signal(
            channel=JOINT if statistic in (*RELATIONS, SEPARATION) else SURPRISE,
            endpoint=endpoint,
            statistic=statistic,
            start=start,
            end=start + self.windows.width,
            severity=severity,
            segment=segment,
            column=found.columns[item],
            value=value,
            expected=expected,
            detail=sentences.of(statistic, found.columns[item], value, expected, rows),
        )


def judge(
    windows: Windows,
    ranks: Floats,
    *,
    alarms_per_week: float,
    outputs: Sequence[str] = (),
    known: Verdicts | None = None,
    dismissed: Sequence[Dismissed] = (),
) -> Verdicts:
    """Judge all windows, each by those before it.

    Args:
        ranks: Rank of each bin, shape (columns, bins), as of `Ruler.ranks`.
        alarms_per_week: False alarms that the two channels may raise together, over all versions of the traffic.
        dismissed: Alarms that people called false or expected.
        outputs: Columns that are the model's outputs.
        known: An earlier answer about the first of these windows, which are then not judged again.
    """
    following = frozenset(outputs)
    before = None if known is None else known.unusual
    found = unusual(windows, measure(windows, ranks, following), before, dismissed, following)
    largest = np.where(np.isnan(found.severities), -1.0, found.severities).max(axis=1, initial=-1.0)
    scores = np.where(largest < 0.0, np.nan, largest)
    budget = min(alarms_per_week * windows.width / WEEK, 0.5) * windows.part
    return Verdicts(windows, found, scores, thresholds(scores, windows.usual, budget))


def _plain(statistic: str, value: float) -> float | None:
    """Return a statistic as people read it: shares, numbers of rows, deviations."""
    if np.isnan(value):
        return None
    if statistic in BY_COLUMN and statistic not in _ON_A_SCALE:
        return share(value)
    if statistic == SEPARATION:
        return 1.0 - normal_two_sided(value / math.sqrt(2.0)) / 2.0  # AUC
    return value if statistic in (MEAN, VARIETY) else float(np.exp(value))
