"""Vectors counted by the cells of a k-means, and judged as any column is."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mainspring.stats.cells import nearest
from mainspring.stats.drift import judge
from mainspring.stats.reference import ColumnReference, Reference
from mainspring.stats.sketches import Ruler, Sketch
from mainspring.training.vectors import profile_vectors

CENTRES = np.random.default_rng(1).normal(size=(6, 8)) * 4.0


def vectors(count: int, seed: int, shares: Any = None) -> Any:
    rng = np.random.default_rng([2, seed])
    return CENTRES[rng.choice(6, count, p=shares)] + rng.normal(size=(count, 8))


@pytest.fixture(scope="module")
def reference() -> ColumnReference:
    made = profile_vectors(vectors(4_000, 0))
    assert made is not None
    return made


def sketched(reference: ColumnReference, values: Any) -> Sketch:
    return Ruler(Reference({"embedding": reference})).sketch({"embedding": values})


def drifted(reference: ColumnReference, values: Any) -> bool:
    (found,) = judge(Reference({"embedding": reference}), sketched(reference, values))
    return found.drifted


def test_vectors_of_other_shares_drift_and_usual_ones_do_not(reference: ColumnReference) -> None:
    assert sum(drifted(reference, vectors(1_000, seed).tolist()) for seed in range(1, 41)) <= 1
    assert drifted(reference, vectors(1_000, 50, [0.4, 0.2, 0.1, 0.1, 0.1, 0.1]).tolist())


def test_counts_are_those_of_the_nearest_cells(reference: ColumnReference) -> None:
    values = vectors(500, 3)
    whole = sketched(reference, values.tolist())
    centres = np.frombuffer(reference.centres or b"", "<f4").reshape(len(reference.categories), 8)
    brute = np.linalg.norm(values[:, None] - centres[None], axis=2)
    assert whole.bins[0][: len(centres)].tolist() == np.bincount(brute.argmin(axis=1), minlength=len(centres)).tolist()
    np.testing.assert_allclose(nearest(values, centres)[1], brute.min(axis=1))
    parts = sketched(reference, pa.array(values[:200].tolist())) + sketched(reference, list(values[200:]))
    assert parts == whole
    assert (reference.n, reference.binned) == (4_000, pytest.approx(2_000, rel=0.1))


def test_vectors_beyond_training_and_bad_ones_are_counted(reference: ColumnReference) -> None:
    usual = vectors(1, 4)[0].tolist()
    far = (np.array(usual) + 100.0).tolist()
    bad = [usual, far, None, usual[:5], "float32[384]", [*usual[:7], "x"], [float("nan")] * 8, [[1.0]] * 8, 3.0]
    found = sketched(reference, bad)
    names = ("rows", "nulls", "nans", "type_errors", "above")
    assert [int(found.count(name)[0]) for name in names] == [9, 1, 1, 5, 1]
    assert found.present.tolist() == [2]
    assert sketched(reference, [None] * 3).count("nulls").tolist() == [3]
    assert sketched(reference, []).count("rows").tolist() == [0]


def test_few_vectors_and_equal_ones_have_no_cells() -> None:
    assert profile_vectors(vectors(100, 5)) is None
    assert profile_vectors(np.ones((1_000, 4))) is None
    assert profile_vectors(np.full((1_000, 4), np.nan)) is None
    two = profile_vectors(np.repeat([[0.0, 1.0], [1.0, 0.0]], 500, axis=0))
    assert two is not None
    assert len(two.categories) == 2
