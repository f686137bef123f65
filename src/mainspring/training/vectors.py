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
from mainspring.stats.cells import cell_reference
from mainspring.stats.reference import ColumnReference, Reference

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
    return cell_reference(means.cluster_centers_, counted, count=len(values), nans=len(values) - len(known))
