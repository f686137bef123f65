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
from mainspring.stats.reference import CATEGORICAL, TAIL, ColumnReference
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


def k_means(vectors: npt.NDArray[Any], many: int, *, rounds: int = 25) -> Floats:
    """Return the centres of cells, shape (cells, length), at most `many`, by Lloyd's algorithm from the start of greedy
    k-means++ (Arthur and Vassilvitskii, SODA 2007). Deterministic.

    Args:
        vectors: Shape (rows, length), finite, at least one.
    """
    rows = np.asarray(vectors, np.float64)
    centres = _spread(rows, many)
    for _ in range(rounds):
        cells, _ = nearest(rows, centres)
        sums, counts = np.zeros_like(centres), np.bincount(cells, minlength=len(centres))[:, None]
        np.add.at(sums, cells, rows)
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _spread(rows: Floats, many: int) -> Floats:
    """Return rows that lie apart: of some that are drawn by their squared distance to those before, the best each."""
    rng, tries = np.random.default_rng(0), 2 + int(np.log(many))
    centres = rows[[int(rng.integers(len(rows)))]]
    away = ((rows - centres) ** 2).sum(axis=1)
    while len(centres) < many and away.max() > 0:
        drawn = rng.choice(len(rows), tries, p=away / away.sum())
        left = [np.minimum(away, ((rows - rows[each]) ** 2).sum(axis=1)) for each in drawn]
        best = int(np.argmin([each.sum() for each in left]))
        centres, away = np.vstack([centres, rows[drawn[best]]]), left[best]
    return centres


def cell_reference(centres: npt.NDArray[Any], counted: npt.NDArray[Any], *, count: int, nans: int) -> ColumnReference:
    """Return the reference of a column of vectors.

    Args:
        centres: Centres of its cells, shape (cells, length).
        counted: Finite vectors by which the cells are counted; none of them made a cell.
        count: Number of rows of the column, of which `nans` are not finite.
    """
    centres = np.asarray(centres, "<f4")
    cells, distances = nearest(np.asarray(counted, np.float64), centres)
    counts = np.bincount(cells, minlength=len(centres))
    reach = float(np.quantile(distances, 1.0 - TAIL, method="higher"))
    return ColumnReference(
        kind=CATEGORICAL,
        count=count,
        nulls=0,
        nans=nans,
        mean=0.0,
        sd=0.0,
        bins=(*counts.tolist(), 0),
        categories=tuple(f"cell {number:02}" for number in range(1, len(centres) + 1)),
        high=reach,
        above=int((distances > reach).sum()),
        commonest=f"cell {int(counts.argmax()) + 1:02}",
        commonest_count=int(counts.max()),
        centres=centres.tobytes(),
    )


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
