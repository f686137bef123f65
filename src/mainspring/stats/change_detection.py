"""Detectors of a change in a stream of losses, in constant or logarithmic memory: ADWIN and Page-Hinkley.

They look at losses in the order in which labels came, and say when the mean changed. Unlike the evidence of harm they
know no tolerance, and their false alarms are rare and not bounded: a detection is a hint, for a ticket.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class PageHinkley:
    """Detector of an increase of the mean (Page, Biometrika 41, 1954; Mouss et al., 2004).

    The sum of differences from the running mean, less a tolerated `delta` each, is compared with its minimum.

    Args:
        threshold: Difference from the minimum that is a detection.
        delta: Tolerated increase.
        least: Number of values before the first detection.
        forget: Factor by which the sum shrinks with each value.
    """

    def __init__(
        self, *, threshold: float = 50.0, delta: float = 0.005, least: int = 30, forget: float = 0.9999
    ) -> None:
        self._threshold = threshold
        self._delta = delta
        self._least = least
        self._forget = forget
        self._start()

    def _start(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._sum = 0.0
        self._minimum = math.inf

    def update(self, value: float) -> bool:
        """Add a value; return whether the mean has increased. After a detection the detector starts anew."""
        self._count += 1
        self._mean += (value - self._mean) / self._count
        self._sum = self._forget * self._sum + (value - self._mean - self._delta)
        self._minimum = min(self._minimum, self._sum)
        if self._count < self._least or self._sum - self._minimum <= self._threshold:
            return False
        self._start()
        return True


class Adwin:
    """Detector of any change of the mean, by an adaptive window (Bifet and Gavalda, SIAM Data Mining 2007: ADWIN2).

    The window is kept as an exponential histogram of buckets. A change is detected if any cut of it into two has means
    that differ by more than chance allows; then the window begins anew.

    Args:
        delta: Confidence of a cut; smaller values make detections rarer.
        every: A cut is looked for after this many values.
        buckets: Number of buckets of one size, before two become one.
        least: Smallest size of either part of a cut.
        grace: Number of values before the first cut.
    """

    def __init__(
        self, *, delta: float = 0.002, every: int = 32, buckets: int = 5, least: int = 5, grace: int = 10
    ) -> None:
        self._delta = delta
        self._every = every
        self._buckets = buckets
        self._least = least
        self._grace = grace
        self._start()

    def _start(self) -> None:
        self._rows: list[list[float]] = [[]]  # row i: sums of buckets of 2 ** i values, the oldest first
        self._total = 0.0
        self._variance = 0.0  # sum of squared differences from the window's mean
        self._ticks = 0
        self.width = 0  # number of values in the window

    @property
    def mean(self) -> float:
        """Mean of the window; 0 without values."""
        return self._total / self.width if self.width else 0.0

    def update(self, value: float) -> bool:
        """Add a value; return whether the mean has changed. After a detection the detector starts anew."""
        self._ticks += 1
        self.width += 1
        self._rows[0].append(value)
        if self.width > 1:
            before = self.width - 1
            self._variance += before * (value - self._total / before) ** 2 / self.width
        self._total += value
        self._compress()
        if self._ticks % self._every or self.width <= self._grace or not self._cut():
            return False
        self._start()
        return True

    def _compress(self) -> None:
        for place, row in enumerate(self._rows):
            if len(row) <= self._buckets:
                return
            if place + 1 == len(self._rows):
                self._rows.append([])
            self._rows[place + 1].append(row.pop(0) + row.pop(0))

    def _cut(self) -> bool:
        """Return whether some cut has parts whose means differ."""
        sizes = np.concatenate([np.full(len(row), 2.0**place) for place, row in reversed(list(enumerate(self._rows)))])
        sums = np.array([total for row in reversed(self._rows) for total in row])
        older, total = np.cumsum(sizes)[:-1], np.cumsum(sums)[:-1]
        possible = (older >= self._least) & (self.width - older >= self._least)
        older, total = older[possible], total[possible]
        newer, rest = self.width - older, self._total - total
        apart = np.abs(total / older - rest / newer)
        allowed = math.log(2 * math.log(self.width) / self._delta)
        harmonic = 1 / (older - self._least + 1) + 1 / (newer - self._least + 1)
        bound = np.sqrt(2 * harmonic * (self._variance / self.width) * allowed) + 2 / 3 * allowed * harmonic
        return bool((apart > bound).any())


def detections(detector: Adwin | PageHinkley, values: npt.ArrayLike) -> list[int]:
    """Return the places of the values at which a detector detects a change."""
    numbers = np.asarray(values, np.float64).tolist()
    return [place for place, value in enumerate(numbers) if detector.update(value)]
