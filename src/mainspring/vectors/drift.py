"""Drift of what a collection holds and of what it is asked, by the counts of cells of its vectors.

A cell is a region of meaning: its share of the queries grows where they ask for something else.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.stats.cells import cell_reference, k_means
from mainspring.stats.drift import Verdict, judge
from mainspring.stats.reference import ColumnReference, Reference
from mainspring.stats.sketches import Ruler
from mainspring.vectors.model import Floats
from mainspring.vectors.ports import VectorIndex

MOST_CELLS, VECTORS_A_CELL = 48, 40
FEWEST = 200  # vectors of a reference
_MADE_OF = 20_000  # vectors
_COLUMN = "vector"
_HELD = 5_000  # vectors of a collection, of which cells of queries are made

Cells = npt.NDArray[np.float64]  # centres, shape (cells, dimension)


class CellShift(msgspec.Struct, frozen=True, kw_only=True):
    """A cell with its shares; `nearest` is the place of the window's vector that is nearest to its centre."""

    cell: int
    before: float
    now: float
    nearest: int | None


class VectorDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Drift of a window's vectors.

    Attributes:
        shifts: Cells, the one whose share changed most first.
        beyond: Share of vectors that are farther from all cells than usual.
    """

    verdict: Verdict
    vectors: int
    beyond: float
    shifts: tuple[CellShift, ...]


def cells_of(index: VectorIndex) -> Cells | None:
    """Return cells of an index's vectors; `None` of one that is too small for any."""
    held = index.get(index.ids(count=_HELD)).vectors
    many = min(MOST_CELLS, len(held) // VECTORS_A_CELL)
    return k_means(held, many) if many >= 2 else None


def vector_reference(held: Floats, asked: Floats | None = None) -> ColumnReference | None:
    """Return cells of a collection's vectors, counted by queries, or by the collection itself; `None` of too few.

    Args:
        held: Vectors of the collection, shape (rows, dimension).
        asked: Vectors of queries; `None` counts one half of the collection by the cells of the other.
    """
    rng = np.random.default_rng(0)
    made = held
    counted = held if asked is None else asked
    if asked is None and len(held) >= 2:
        first = rng.random(len(held)) < 0.5
        made, counted = held[first], held[~first]
    if min(len(counted), len(made)) < FEWEST // (2 if asked is None else 1) or (made == made[0]).all():
        return None
    if len(made) > _MADE_OF:
        made = made[np.sort(rng.choice(len(made), _MADE_OF, replace=False))]
    many = max(2, min(MOST_CELLS, len(made) // VECTORS_A_CELL, len(counted) // 5))
    return cell_reference(k_means(made, many), counted, count=len(counted), nans=0)


def vector_drift(reference: ColumnReference, window: Floats, *, drifted_before: bool = False) -> VectorDrift:
    """Return whether a window's vectors have other shares of the cells than the reference, judged as a column is.

    Args:
        window: Shape (rows, dimension), at least one row.
        drifted_before: Whether the window before drifted; only then can this one alert.
    """
    whole = Reference({_COLUMN: reference})
    sketch = Ruler(whole).sketch({_COLUMN: list(window)})
    (verdict,) = judge(whole, sketch, [_COLUMN] if drifted_before else [])
    cells = len(reference.categories)
    centres = np.frombuffer(reference.centres or b"", "<f4").reshape(cells, -1).astype(np.float64)
    before = np.asarray(reference.bins[:cells]) / max(1, sum(reference.bins[:cells]))
    counts = sketch.bins[0][:cells]
    now = counts / max(1, int(counts.sum()))
    shifts = []
    for cell in np.argsort(-np.abs(now - before), kind="stable"):
        place = int(((window - centres[cell]) ** 2).sum(axis=1).argmin()) if counts[cell] else None
        shifts.append(CellShift(cell=int(cell) + 1, before=float(before[cell]), now=float(now[cell]), nearest=place))
    beyond = float(sketch.count("above")[0]) / len(window)
    return VectorDrift(verdict=verdict, vectors=len(window), beyond=beyond, shifts=tuple(shifts))
