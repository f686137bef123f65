"""Durations of batches, as they were measured, by their number of rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid

_MOST = 4096  # durations of a size that are kept


class Times:
    """Draws one of the measured durations by chance.

    A size between two measured ones has durations between those of the same rank. Beyond the largest they grow as
    between the two largest; with one size alone they grow with the rows.

    Args:
        measured: Rows of a batch -> durations, µs.

    Raises:
        Invalid: Nothing was measured, or a duration is not above 0.
    """

    def __init__(self, measured: Mapping[int, Sequence[float]]) -> None:
        if not measured or not all(measured.values()):
            raise Invalid(
                "No durations of batches are known.", fix="measure the endpoint: `mainspring bench ENDPOINT`."
            )
        self.sizes = sorted(measured)
        given = [np.asarray(measured[size], dtype=float) for size in self.sizes]
        if self.sizes[0] < 1 or not all(np.isfinite(each).all() and (each > 0).all() for each in given):
            raise Invalid("A batch's rows are from 1, and its duration is above 0 µs.")
        self._sorted = [_thinned(np.sort(each)) for each in given]
        self._exact = dict(zip(self.sizes, self._sorted, strict=True))

    @classmethod
    def exactly(cls, fixed_us: float, per_row_us: float = 0.0) -> Times:
        """Return durations of `fixed_us + rows * per_row_us`, without chance."""
        return cls({1: [fixed_us + per_row_us], 2: [fixed_us + 2 * per_row_us]})

    def faster(self, speed: float) -> Times:
        """Return durations on a core that does `speed` times the work."""
        return self.scaled(dict.fromkeys(self.sizes, speed))

    def scaled(self, speeds: Mapping[int, float]) -> Times:
        """Return durations of batches that are so many times as fast, by their rows."""
        return Times({
            size: [each / speeds[size] for each in found] for size, found in zip(self.sizes, self._sorted, strict=True)
        })  # fmt: skip

    def draw(self, rows: int, chance: float) -> float:
        """Return a duration, µs.

        Args:
            chance: Of a uniform distribution over `[0, 1)`.
        """
        durations = self._exact.get(rows)
        if durations is not None:
            return durations[int(chance * len(durations))]
        place = bisect_right(self.sizes, rows)
        if len(self.sizes) == 1:
            return self._at(0, chance) * rows / self.sizes[0]
        low = min(max(place - 1, 0), len(self.sizes) - 2)
        few, many = self.sizes[low], self.sizes[low + 1]
        less, more = self._at(low, chance), self._at(low + 1, chance)
        share = (rows - few) / (many - few)
        return max(less + share * (more - less), 0.1 * min(less, more))

    def mean(self, rows: int) -> float:
        """Return the mean duration of a batch, µs."""
        count = max(map(len, self._sorted))
        return float(np.mean([self.draw(rows, (each + 0.5) / count) for each in range(count)]))

    def _at(self, place: int, chance: float) -> float:
        durations = self._sorted[place]
        return durations[int(chance * len(durations))]


def _thinned(durations: npt.NDArray[np.float64]) -> list[float]:
    """Return at most `_MOST` of sorted durations, evenly by rank."""
    count = len(durations)
    if count > _MOST:
        durations = durations[((np.arange(_MOST) + 0.5) * count / _MOST).astype(int)]
    found: list[float] = durations.tolist()
    return found
