"""Recall of filtered searches in a graph, beside a comparison of all that pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kit.depth import examples
from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import DType
from mainspring.vectors.adapters.embedded import EmbeddedVectorIndex, EmbeddedVectorStore
from mainspring.vectors.conformance_oracle import made_vectors, recall
from mainspring.vectors.model import Entries, Floats, IndexSpec
from mainspring.vectors.nearest import Places

DIMENSION, K, CLUSTERS = 24, 10, 40
SHARES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.97, 1.0)
LEAST, OF_ALL = 0.95, 0.01  # recall, or as much less than without a filter


@pytest.fixture(scope="module")
def vectors() -> Floats:
    return made_vectors(examples(gate=8_000, deep=60_000), DIMENSION, clusters=CLUSTERS)


@pytest.fixture(scope="module")
def queries() -> Floats:
    """Return queries around one of the centres."""
    return made_vectors(CLUSTERS * 24, DIMENSION, clusters=CLUSTERS, seed=0)[::CLUSTERS] * np.float32(1.01)


@pytest.fixture(scope="module")
def ranks(vectors: Floats, queries: Floats) -> dict[str, Floats]:
    """Return columns of uniform numbers: by chance, by nearness to the queries, and by both."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = units @ (queries / np.linalg.norm(queries, axis=1, keepdims=True)).mean(axis=0)
    chance = np.random.default_rng(1).random(len(vectors))
    scores = {"chance": chance, "near": -near, "far": near, "mixed": near + 0.3 * chance}
    return {name: np.asarray(np.argsort(np.argsort(each)) / len(vectors), np.float32) for name, each in scores.items()}


@pytest.fixture(scope="module")
def index(
    vectors: Floats, ranks: dict[str, Floats], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedVectorIndex]:
    store = EmbeddedVectorStore(tmp_path_factory.mktemp("vectors"), approximate_above=1_000)
    made = store.create("i", IndexSpec(dimension=DIMENSION, fields=dict.fromkeys(ranks, DType.Float32)))
    names = [str(number) for number in range(len(vectors))]
    made.upsert(Entries(names, vectors, {name: each.tolist() for name, each in ranks.items()}))
    assert made._state().graph is not None
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["chance", "near", "far", "mixed"])
@pytest.mark.parametrize("share", SHARES)
def test_a_filter_lowers_no_recall(
    index: EmbeddedVectorIndex, vectors: Floats, queries: Floats, ranks: dict[str, Floats], kind: str, share: float
) -> None:
    kept = np.flatnonzero(ranks[kind] < np.float32(share))
    names = [str(place) for place in kept]
    where = col(kind) < float(np.float32(share))
    together = index.search(queries, K, where=where)
    alone = [index.search(query[None], K, where=where)[0] for query in queries]
    of_all = index.search(queries, K)
    everything = [str(place) for place in range(len(vectors))]
    unfiltered = [
        recall("cosine", vectors, everything, query, hits, K) for query, hits in zip(queries, of_all, strict=True)
    ]
    for found in (together, alone):
        assert {len(hits) for hits in found} == {min(K, len(kept))}
        assert {hit.id for hits in found for hit in hits} <= set(names)
        reached = [
            recall("cosine", vectors[kept], names, query, hits, K) for query, hits in zip(queries, found, strict=True)
        ]
        assert np.mean(reached) >= max(LEAST, np.mean(unfiltered) - OF_ALL)


@pytest.mark.parametrize("dimension", [16, 48])
def test_filters_against_the_query_lower_no_recall_where_vectors_have_no_clusters(
    dimension: int, tmp_path: Path
) -> None:
    """There, what passes in the part of a graph that a search comes by is enough, and is not the nearest."""
    count = examples(gate=6_000, deep=60_000)
    chance = np.random.default_rng(dimension)
    vectors, noise = chance.normal(size=(count, dimension)), chance.normal(size=(12, dimension))
    queries = np.asarray(vectors[0] + 0.1 * noise, np.float32)
    near = vectors @ vectors[0] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[0])
    parts = {f"by{tenths}": near + tenths / 10 * chance.random(count) for tenths in (0, 3, 10)}
    ranks = {name: np.asarray(np.argsort(np.argsort(each)) / count, np.float32) for name, each in parts.items()}
    index = EmbeddedVectorStore(tmp_path, approximate_above=1_000).create(
        "i", IndexSpec(dimension=dimension, metric="euclidean", fields=dict.fromkeys(ranks, DType.Float32))
    )
    rows = np.asarray(vectors, np.float32)
    names = [str(number) for number in range(count)]
    index.upsert(Entries(names, rows, {name: each.tolist() for name, each in ranks.items()}))
    distances = np.linalg.norm(queries[:, None, :] - rows[None], axis=2)

    def reached(kept: Places, where: Node | None) -> float:
        wanted = kept[np.argsort(distances[:, kept], axis=1)[:, :K]]
        found = [{int(hit.id) for hit in index.search(query[None], K, where=where)[0]} for query in queries]
        return float(np.mean([len(some & {*most.tolist()}) / K for some, most in zip(found, wanted, strict=True)]))

    least = min(LEAST, reached(np.arange(count), None))
    for name, rank in ranks.items():
        for share in (0.2, 0.3, 0.49, 0.7):
            kept = np.flatnonzero(rank < np.float32(share))
            assert reached(kept, col(name) < float(np.float32(share))) >= least, (name, share)
    index.close()
