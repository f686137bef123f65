"""An approximate index in a file: a graph of FAISS (HNSW, Malkov and Yashunin 2016) that is written once."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from mainspring.core.files import disk_errors, sync_file
from mainspring.vectors.columns import Doubles, Mask
from mainspring.vectors.model import Floats, Metric
from mainspring.vectors.nearest import Places

LINKS = 16  # of a vector to others, in each layer; twice as many in the lowest
BUILD_EFFORT = 80
_EQUAL = 1.001
_AROUND = 64


class Graph:
    """Graph of vectors by their places, mapped into memory: processes share its pages.

    Attributes:
        vectors: Shape (n, dimension), the indexed vectors.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        # The view is into memory that `_index` owns, which lives as long as this object.
        flat = faiss.rev_swig_ptr(faiss.downcast_index(self._index.storage).get_xb(), self._index.ntotal * dimension)
        self.vectors: Floats = flat.reshape(-1, dimension)

    def search(self, queries: Floats, count: int, visits: int) -> Places:
        """Return the places of nearest vectors of each query, the nearest first, shape (len(queries), count); -1 where
        fewer were found."""
        found = np.empty((len(queries), count), np.int64)
        distances = np.empty((len(queries), count), np.float32)
        self._index.search_c(
            len(queries), faiss.swig_ptr(queries), count, faiss.swig_ptr(distances), faiss.swig_ptr(found),
            _parameters(max(visits, count)),
        )  # fmt: skip
        return found


@lru_cache(maxsize=256)
def _parameters(visits: int) -> Any:
    return faiss.SearchParametersHNSW(efSearch=visits)


def has_graph(metric: Metric, lengths: Doubles) -> bool:
    """Return whether nearness in a metric is a distance between vectors of these squared lengths.

    An inner product is one only where all have the same length.
    """
    return metric != "dot" or bool(lengths.max() <= _EQUAL * lengths.min())


def write_graph(path: Path, vectors: Floats) -> str:
    """Build the graph of vectors, write it durably, and return its digest."""
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS)
    index.hnsw.efConstruction = BUILD_EFFORT
    index.add(np.ascontiguousarray(vectors))
    return _written(index, path)


def renew_graph(path: Path, new: Path, live: Mask, added: Floats) -> str:
    """Write a graph anew with more vectors, without a byte of those that are dead, and return its digest.

    A dead place keeps its links, by which searches pass, and takes the vector of the nearest that lives.

    Args:
        live: Which places live, at least one.
    """
    index = faiss.read_index(str(path))
    width, dead = index.d, np.flatnonzero(~live)
    vectors = faiss.rev_swig_ptr(faiss.downcast_index(index.storage).get_xb(), index.ntotal * width).reshape(-1, width)
    if len(dead):
        index.hnsw.efSearch = _AROUND
        near = index.search(vectors[dead], min(_AROUND, index.ntotal))[1]
        fit = live[near] & (near >= 0)
        nearest = near[np.arange(len(dead)), fit.argmax(axis=1)]
        vectors[dead] = vectors[np.where(fit.any(axis=1), nearest, np.flatnonzero(live)[0])]
    index.hnsw.efConstruction = BUILD_EFFORT
    index.add(np.ascontiguousarray(added))
    return _written(index, new)


def _written(index: Any, path: Path) -> str:
    with disk_errors(path):
        path.touch(mode=0o600)
        faiss.write_index(index, str(path))
        sync_file(path)
        return digest_of(path)


def digest_of(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
