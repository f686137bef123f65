"""Latency of two arms on its own scale: how many times as slow the candidate is.

Latencies are counted in fine bins of equal width in their logarithm, so dividing the candidate's by a factor shifts its
bins. For each factor this gives a test of "the candidate's latency divided by the factor is stochastically no larger
than the control's" (`distributions.log_e_slower`); the factors that are not rejected are a confidence sequence.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.stats.intervals import Interval
from mainspring.stats.sequential.distributions import TAIL, Bins, log_e_faster, log_e_slower
from mainspring.stats.sequential.events import Floats
from mainspring.stats.sequential.verdicts import Verdicts, of_latency

WIDTH = math.log(1.1) / 4  # of a bin: 10 % are four bins
_FURTHEST = math.ceil(math.log(16) / WIDTH)  # largest factor of a bound, in bins
_SHARES = tuple(np.diff([0.0, *TAIL, 1.0]).tolist())

_Ints = npt.NDArray[np.int64]


def places(latencies: npt.ArrayLike) -> _Ints:
    """Return the bin of each latency; latencies below 1 are in the first."""
    return np.floor(np.log(np.maximum(np.asarray(latencies, dtype=np.float64), 1.0)) / WIDTH).astype(np.int64)


def bins_within(factor: float) -> int:
    """Return the number of bins that a factor shifts by, rounded up."""
    return math.ceil(math.log(factor) / WIDTH - 1e-9)


class Slowness(msgspec.Struct, frozen=True):
    """Latencies of both arms.

    Attributes:
        thresholds: The control's median, 90 % and 99 % quantile before the first observation.
        weight: Shape (strata,).
        places: The bins that have latencies, ascending, shape (bins,).
        candidate, control: Numbers of latencies, shape (strata, bins).
    """

    thresholds: tuple[float, ...]
    weight: Floats
    places: _Ints
    candidate: Floats
    control: Floats

    def verdicts(self, factor: float) -> Verdicts:
        """Return the evidence that the candidate is more than `factor` times as slow, and that it is not."""
        return of_latency(self._bins, self.weight, *self._shifted(np.asarray(bins_within(factor))))

    def interval(self, confidence: float) -> tuple[float, Interval]:
        """Return the ratio of medians, NaN without both arms, and a confidence sequence of the factor.

        Half of the error is on each side.
        """
        shifts = np.arange(-_FURTHEST, _FURTHEST + 1)
        counts = self._shifted(shifts)
        slower, faster = (test(self._bins, self.weight, *counts) for test in (log_e_slower, log_e_faster))
        limit = math.log(2 / (1 - confidence))
        above, below = shifts[slower >= limit], shifts[faster >= limit]
        low = math.exp(WIDTH * above.max()) if above.size else 0.0
        high = math.exp(WIDTH * below.min()) if below.size else math.inf
        return min(max(self._estimate, low), high), Interval(low, high, confidence)

    @property
    def _estimate(self) -> float:
        """The ratio of medians, a mean over strata by the numbers of both arms."""
        numbers = [arm.sum(axis=1) for arm in (self.candidate, self.control)]
        compared = np.minimum(*numbers) > 0
        if not compared.any():
            return math.nan
        overlap = (numbers[0] * numbers[1] / (numbers[0] + numbers[1]))[compared]
        medians = [self._medians(arm[compared]) for arm in (self.candidate, self.control)]
        return math.exp(WIDTH * float(np.average(medians[0] - medians[1], weights=overlap)))

    def _medians(self, counts: Floats) -> Floats:
        """Return the median of each stratum in bins, as if latencies were even within a bin; shape (strata,)."""
        until, half = np.cumsum(counts, axis=1), counts.sum(axis=1) / 2
        at = (until >= half[:, None]).argmax(axis=1)
        rows = np.arange(len(counts))
        return np.asarray(self.places[at] + 1 - (until[rows, at] - half) / counts[rows, at])

    @property
    def _bins(self) -> Bins:
        return Bins(self.thresholds, _SHARES)

    def _shifted(self, shifts: _Ints) -> tuple[Floats, Floats]:
        """Return the numbers by thresholds, the candidate's shifted; shape (*shifts, strata, thresholds + 1)."""
        cuts = places(self.thresholds)

        def by_threshold(counts: Floats, at: _Ints) -> Floats:
            until = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)], axis=1)
            found = until[:, np.searchsorted(self.places, at, side="right")]
            whole = np.broadcast_to(until[:, -1].reshape(-1, *(1,) * at.ndim), (*found.shape[:-1], 1))
            return np.diff(np.concatenate([np.zeros_like(whole), found, whole], axis=-1), axis=-1)

        candidate = np.moveaxis(by_threshold(self.candidate, cuts + shifts[..., None]), 0, -2)
        return candidate, np.broadcast_to(by_threshold(self.control, cuts), candidate.shape)
