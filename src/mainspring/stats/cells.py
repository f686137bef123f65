"""Vectors as texts: each value is the name of its nearest cell, of a k-means of training's rows.

A vector's column then has bins as any text has, and is sketched and judged as one. A vector that is farther from all
cells than training's were is counted as beyond the range, and one that is no vector of that length as a wrong type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats.column_counting import COUNTS, WIDTH, Floats, Ints, Sums
from mainspring.stats.reference import ColumnReference
from mainspring.stats.summaries import Summary

_ABOVE, _COMMONEST = COUNTS.index("above"), COUNTS.index("commonest")
_KINDS = [COUNTS.index(name) for name in ("rows", "nulls", "nans", "type_errors")]
_BLOCK = 4096  # rows
_NULL, _NAN, _TYPE_ERROR = -1, -2, -3  # in place of a cell


def nearest(vectors: Floats, centres: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return the nearest centre of each vector and the distance to it, each of shape (rows,)."""
    cells, distances = np.zeros(len(vectors), np.intp), np.zeros(len(vectors))
    wide = centres.astype(np.float64)
    norms = (wide**2).sum(axis=1)
    for at in range(0, len(vectors), _BLOCK):
        block = vectors[at : at + _BLOCK]
        cells[at : at + _BLOCK] = (norms - 2.0 * (block @ wide.T)).argmin(axis=1)
        distances[at : at + _BLOCK] = np.sqrt(((block - wide[cells[at : at + _BLOCK]]) ** 2).sum(axis=1))
    return cells, distances


class VectorCounter:
    """Column of vectors."""

    def __init__(self, reference: ColumnReference) -> None:
        many = len(reference.categories)
        self._centres = np.frombuffer(reference.centres or b"", "<f4").reshape(many, -1)
        self._reach = np.inf if reference.high is None else reference.high
        self._commonest = [*reference.categories].index(str(reference.commonest))
        shares = np.zeros(WIDTH)
        shares[: len(reference.bins)] = np.asarray(reference.bins) / max(reference.binned, 1)
        self.ranks: Floats = 2.0 * (np.cumsum(shares) - shares / 2.0) - 1.0

    def count(
        self,
        values: Any,
        counts: Ints,
        bins: Ints,
        ranks: Floats | None,
        *,
        summarise: bool,  # noqa: ARG002  (vectors have no summary)
    ) -> tuple[Sums, Summary | None]:
        given = values.to_pylist() if hasattr(values, "to_pylist") else values
        vectors, kinds = self._vectors(given)
        known = np.flatnonzero(kinds == 0)
        cells, distances = nearest(vectors[known], self._centres)
        bins[: len(self._centres)] = np.bincount(cells, minlength=len(self._centres))
        counts[_KINDS] = [len(kinds), *(int((kinds == kind).sum()) for kind in (_NULL, _NAN, _TYPE_ERROR))]
        counts[_ABOVE] = np.count_nonzero(distances > self._reach)
        counts[_COMMONEST] = np.count_nonzero(cells == self._commonest)
        if ranks is not None:
            ranks[known] = self.ranks[cells]
        return (0.0, 0.0, 0.0, 0.0), None

    def _vectors(self, values: Sequence[Any]) -> tuple[Floats, npt.NDArray[np.intp]]:
        """Return the vectors, and 0 for each or what stands in place of one."""
        length = self._centres.shape[1]
        vectors, kinds = np.zeros((len(values), length)), np.zeros(len(values), np.intp)
        for row, value in enumerate(values):
            if value is None:
                kinds[row] = _NULL
            elif not isinstance(value, list | tuple | np.ndarray) or len(value) != length:
                kinds[row] = _TYPE_ERROR
            else:
                try:
                    vectors[row] = value
                except (TypeError, ValueError):
                    kinds[row] = _TYPE_ERROR
        odd = (kinds == 0) & ~np.isfinite(vectors).all(axis=1)
        kinds[odd] = _NAN
        return vectors, kinds
