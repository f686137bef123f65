"""Entries that suites of vectors make, and the oracle: each similarity in float64, each filter in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mainspring.core.expr.tree import Node, col
from mainspring.vectors.model import Entries, Floats, Hit, Metric

CLOSE = 1e-4  # of similarities in float32 to those in float64
_DAY = 86_400_000_000
Row = dict[str, Any]

# Conditions, and the same in Python; null is a row that does not pass.
FILTERS: tuple[tuple[Node, Callable[[Row], bool]], ...] = (
    (col("part") < 300, lambda row: row["part"] is not None and row["part"] < 300),
    (col("kind") == "a", lambda row: row["kind"] == "a"),
    (~(col("kind") == "a"), lambda row: row["kind"] is not None and row["kind"] != "a"),
    (col("kind").is_null(), lambda row: row["kind"] is None),
    (~col("kind").is_null(), lambda row: row["kind"] is not None),
    (col("kind").one_of(["a", "it's"]), lambda row: row["kind"] in ("a", "it's")),
    (col("kind") == "", lambda row: row["kind"] == ""),
    (col("public"), lambda row: row["public"] is True),
    (~col("public"), lambda row: row["public"] is False),
    (
        col("public") | (col("year") >= 2020),
        lambda row: row["public"] is True or (row["year"] is not None and row["year"] >= 2020),
    ),
    (
        col("public") & (col("price") > 0.5),
        lambda row: row["public"] is True and row["price"] is not None and row["price"] > 0.5,
    ),
    (
        (col("seen").day() >= 3) & (col("seen").day() < 9),
        lambda row: row["seen"] is not None and 2 * _DAY <= row["seen"] < 8 * _DAY,
    ),
    (col("year") != 2020, lambda row: row["year"] is not None and row["year"] != 2020),
    (col("part") == -1, lambda _: False),
)


def made_vectors(count: int, dimension: int, *, clusters: int = 20, seed: int = 0) -> Floats:
    """Return vectors around random centres, row `n` in cluster `n % clusters`."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(clusters, dimension))
    noise = chance.normal(size=(count, dimension))
    return np.asarray(centres[np.arange(count) % clusters] + 0.4 * noise, dtype=np.float32)


def made_rows(count: int, *, clusters: int = 20, seed: int = 0) -> list[Row]:
    """Return fields for `made_vectors`: nulls in all of them but `part`, which is uniform below 1000."""
    chance = np.random.default_rng(seed)
    kinds = ["a", "b", "it's", "", "ünï", None]
    rows = []
    for place in range(count):
        row: Row = {
            "kind": kinds[place % clusters % len(kinds)],
            "year": int(chance.integers(2000, 2030)),
            "price": float(chance.random()),
            "rough": float(np.float32(chance.random())),
            "public": bool(chance.integers(2)),
            "seen": int(chance.integers(0, 30)) * _DAY,
        }
        row |= {name: None for name in row if chance.random() < 0.1}
        rows.append(row | {"part": int(chance.integers(1000))})
    return rows


def made(ids: Sequence[str], vectors: Floats, rows: Sequence[Row] | None = None) -> Entries:
    """Return entries of rows."""
    names = {name for row in rows or () for name in row}
    return Entries(ids, vectors, {name: [row[name] for row in rows or ()] for name in names})


def oracle(metric: Metric, vectors: Floats, query: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the similarity of each vector to a query, in float64."""
    wide, asked = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.asarray(-np.linalg.norm(wide - asked, axis=1))
    if metric == "cosine":
        wide, asked = wide / np.linalg.norm(wide, axis=1, keepdims=True), asked / np.linalg.norm(asked)
    return np.asarray(wide @ asked)


def recall(metric: Metric, vectors: Floats, ids: Sequence[str], query: Floats, hits: Sequence[Hit], k: int) -> float:
    """Return the share of the `k` nearest that hits have found; as good as the last of them is as good as it."""
    scores = oracle(metric, vectors, query)
    wanted = min(k, len(ids))
    if not wanted:
        return 1.0
    bound = np.sort(scores)[-wanted]
    by_id = dict(zip(ids, scores, strict=True))
    near = CLOSE * max(1.0, abs(bound))
    return sum(bool(by_id.get(hit.id, -np.inf) >= bound - near) for hit in hits[:wanted]) / wanted


def check_order(hits: Sequence[Hit]) -> None:
    """Raise if hits are not the nearest first, or one stands twice."""
    if [hit.id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.id))] != [hit.id for hit in hits]:
        raise AssertionError(f"not in order: {hits}")
    if len({hit.id for hit in hits}) != len(hits):
        raise AssertionError(f"an id stands twice: {hits}")
