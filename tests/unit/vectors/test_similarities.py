"""Similarities in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mainspring.vectors.columns import similarities
from mainspring.vectors.model import METRICS, Metric
from mainspring.vectors.nearest import unit


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [1, 7, 48, 383, 384, 1001])
def test_equal_vectors_are_equally_similar_wherever_they_lie(metric: Metric, dimension: int) -> None:
    chance = np.random.default_rng(dimension)
    row, query = chance.normal(size=(2, dimension)).astype(np.float32)
    rows = np.tile(row, (9, 1))
    (score,) = similarities(metric, row[None], query)
    assert similarities(metric, rows, query).tolist() == [score] * 9
    queries = np.tile(query, (3, 1))
    assert similarities(metric, np.stack([rows] * 3), queries[:, None, :]).tolist() == [[score] * 9] * 3
    wide = row.astype(np.float64), query.astype(np.float64)
    wanted = {"dot": wide[0] @ wide[1], "euclidean": -np.linalg.norm(wide[0] - wide[1])}
    wanted["cosine"] = wanted["dot"] / (np.linalg.norm(wide[0]) * np.linalg.norm(wide[1]))
    assert score == pytest.approx(wanted[metric], rel=1e-12, abs=1e-12)
    assert (unit(rows) == unit(row[None])).all()
