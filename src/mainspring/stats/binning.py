"""Places of numbers among ascending edges, faster than binary search on random numbers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_CELLS = 2_048
_MOST_PASSES = 4  # distinct edges in one cell of the grid


class Binning:
    """Edges, prepared for many numbers.

    A uniform grid between the first and the last edge says how many edges lie in earlier cells; those in the number's
    own cell are compared one by one. The cell is a monotone function of the number, in spite of rounding, so that the
    result is exact. Where too many edges share a cell, the numbers are searched.

    Attributes:
        places: For each number of distinct edges, the number of all edges: shape (distinct + 1,).
    """

    def __init__(self, edges: Floats) -> None:
        self._edges, first = np.unique(edges, return_index=True)
        self.places = np.append(first, len(edges)).astype(np.intp)
        self._first = float(self._edges[0]) if len(self._edges) else 0.0
        self._last = float(self._edges[-1]) if len(self._edges) else 0.0
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            self._cells_per_unit = float(np.float64(_CELLS) / (np.float64(self._last) - self._first))
        self._passes = 0
        if math.isfinite(self._cells_per_unit) and self._cells_per_unit > 0.0:
            cells = self._cells(self._edges)
            passes = int(np.bincount(cells).max())
            if passes <= _MOST_PASSES:
                self._passes = passes
                self._earlier = np.searchsorted(cells, np.arange(_CELLS + 2)).astype(np.intp)
                self._padded = np.append(self._edges, np.full(passes, np.inf))

    def __call__(self, numbers: Floats) -> Places:
        """Return how many distinct edges are smaller than each of the numbers, which are not NaN; shape (numbers,)."""
        if not self._passes:
            return np.searchsorted(self._edges, numbers, side="left")
        earlier = self._earlier[self._cells(numbers)]
        found = earlier.copy()
        for step in range(self._passes):
            found += numbers > self._padded[earlier + step if step else earlier]
        return found

    def _cells(self, numbers: Floats) -> Places:
        cells = np.clip(numbers, self._first, self._last)
        cells -= self._first
        cells *= self._cells_per_unit
        return cells.astype(np.intp)
