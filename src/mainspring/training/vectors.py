"""References of vectors: the cells of a k-means of a model's rows, by which monitoring counts later ones."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.ledger.batches import LARGEST_VALUE
from mainspring.registry.bundles import REFERENCE
from mainspring.stats.cells import nearest
from mainspring.stats.reference import CATEGORICAL, TAIL, ColumnReference, Reference

MOST_CELLS, ROWS_A_CELL = 48, 40
FEWEST_ROWS = 200


def vector_reference(examples: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the reference file by which vectors are monitored: of inputs of shape (rows, length) that the log keeps.

    There is none without such an input, of fewer than 200 rows, and without scikit-learn.
    """
    if find_spec("sklearn") is None:
        return {}
    columns = {}
    for name, values in examples.items():
        rows = np.asarray(values)
        if rows.ndim == 2 and rows.dtype.kind == "f" and 1 < rows.shape[1] <= LARGEST_VALUE:
            columns[name] = profile_vectors(rows)
    found = Reference({name: column for name, column in columns.items() if column is not None})
    return {REFERENCE: msgspec.json.encode(found)} if found.columns else {}


def profile_vectors(vectors: npt.NDArray[Any]) -> ColumnReference | None:
    """Return the reference of a column of vectors; `None` of fewer than 200 rows, or if all are alike.

    Cells are made of one half of the rows and counted on the other, as categories are.

    Args:
        vectors: Shape (rows, length); rows with NaN or infinities count as NaN.
    """
    from sklearn.cluster import MiniBatchKMeans  # heavy, and only needed where a model is made

    values = np.asarray(vectors, np.float32)
    known = values[np.isfinite(values).all(axis=1)]
    if len(known) < FEWEST_ROWS or (known == known[0]).all():
        return None
    first = np.random.default_rng(0).random(len(known)) < 0.5
    made, counted = known[first], known[~first]
    many = min(MOST_CELLS, len(made) // ROWS_A_CELL, len(np.unique(made, axis=0)))
    means = MiniBatchKMeans(n_clusters=max(many, 2), random_state=0, n_init=3, batch_size=1024).fit(made)
    centres = np.asarray(means.cluster_centers_, "<f4")
    cells, distances = nearest(counted.astype(np.float64), centres)
    counts = np.bincount(cells, minlength=len(centres))
    reach = float(np.quantile(distances, 1.0 - TAIL, method="higher"))
    return ColumnReference(
        kind=CATEGORICAL,
        count=len(values),
        nulls=0,
        nans=len(values) - len(known),
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
