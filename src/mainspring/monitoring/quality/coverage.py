"""Label coverage against its usual curve: the share of predictions with a label by age, from their own past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mainspring.core.time import HOUR, SECOND
from mainspring.monitoring.quality.measuring import AGES_S, EVER_S
from mainspring.monitoring.quality.table import Key
from mainspring.stats.quality_sums import Floats, Sums

FEWEST = 100  # predictions of the past, old enough, that a point of the curve needs
_AGES = np.array([age for age in AGES_S if age != EVER_S], np.float64)


@dataclass(frozen=True)
class UsualCoverage:
    """Share of predictions that have a label by an age, at the ages of `AGES_S`; NaN where the past is too short."""

    shares: Floats

    @classmethod
    def of(cls, sums: Mapping[Key, Sums], before: int, now: int) -> UsualCoverage:
        """Return the curve of the predictions of all versions, made in hours before an instant.

        An hour counts at the ages that all its predictions have reached.

        Args:
            sums: Of all traffic, by `Key`.
            before: UTC epoch microseconds, as `now`: the time by which labels are included.
        """
        made, labelled = np.zeros(_AGES.size), np.zeros(_AGES.size)
        for key, each in sums.items():
            if key.hour >= before or key.segment or (key.output and key.output != _first_output(sums)):
                continue
            old = (now - key.hour - HOUR) / SECOND >= _AGES
            if key.age_s == 0:
                made += each["predictions"] * old
            else:
                labelled += each["labels"] * (old & (key.age_s <= _AGES))
        shares = np.full(_AGES.size, np.nan)
        enough = made >= FEWEST
        shares[enough] = labelled[enough] / made[enough]
        return cls(np.fmax.accumulate(shares))

    def at(self, age_s: float) -> float | None:
        """Return the usual share at an age, between the points on a straight line; `None` if it is unknown."""
        known = np.isfinite(self.shares)
        if not known.any() or age_s < 0:
            return None
        return float(np.interp(age_s, np.r_[0.0, _AGES[known]], np.r_[0.0, self.shares[known]]))

    def expected(self, hours: Mapping[int, float], now: int) -> float | None:
        """Return the share of predictions that usually have a label by now; `None` if it is unknown.

        Args:
            hours: Start of each hour, UTC epoch microseconds -> its number of predictions.
        """
        total = sum(hours.values())
        shares = [self.at((now - start - HOUR / 2) / SECOND) for start in hours]
        if not total or any(share is None for share in shares):
            return None
        return sum((share or 0.0) * made for share, made in zip(shares, hours.values(), strict=True)) / total


def _first_output(sums: Mapping[Key, Sums]) -> str:
    return min((key.output for key in sums if key.output), default="")
