"""An approximate index in a file: a graph of FAISS (HNSW, Malkov and Yashunin 2016) that is written once."""

from __future__ import annotations

import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

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
_LINE, _AT_ONCE, _PART = 64, 1 << 20, 1 << 24  # bytes
_THREADS = 4  # of which each reads and hashes a part
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Graph:
    """Graph of vectors by their places, mapped into memory: processes share its pages.

    Attributes:
        vectors: Shape (n, dimension), the indexed vectors.
    """

    def __init__(self, path: Path, content: Bytes, dimension: int) -> None:
        self.path = path
        self._bytes = content  # which the index and the vectors are views of
        content = content[_padding(content) :]
        self._index = faiss.read_index(
            faiss.ZeroCopyIOReader(faiss.swig_ptr(content), len(content)), faiss.IO_FLAG_MMAP_IFC
        )
        self.vectors: Floats = _vectors(self._index, dimension)

    def search(self, queries: Floats, count: int, visits: int, among: Selection | None = None) -> Places:
        """Return the places of nearest vectors of each query, the nearest first, shape (len(queries), count); -1 at the
        end where fewer were found.

        Args:
            visits: Vectors whose neighbours are looked at; of those beyond so many nearest some are missed.
            among: Places that may be found. All are passed by.
        """
        found = np.empty((len(queries), count), np.int64)
        distances = np.empty((len(queries), count), np.float32)
        self._index.search_c(
            len(queries), faiss.swig_ptr(queries), count, faiss.swig_ptr(distances), faiss.swig_ptr(found),
            _parameters(visits) if among is None else among.parameters(visits),
        )  # fmt: skip
        return found

    @cached_property
    def chances(self) -> Floats:
        """A number between 0 and 1 of each place, the same in all processes, from which samples are drawn."""
        return np.random.default_rng(0).random(len(self.vectors), dtype=np.float32)

    def selection(self, mask: Mask) -> Selection:
        """Return the places of a mask for searches."""
        return Selection(mask)


class Selection:
    """Some places of a graph.

    Args:
        mask: Which they are.
    """

    def __init__(self, mask: Mask) -> None:
        self._bits = np.packbits(mask, bitorder="little")
        self._selector = faiss.IDSelectorBitmap(self._bits)
        # Of no method of its own: a selection is freed with the state that has it, and waits for no collector.
        self.parameters = lru_cache(maxsize=16)(partial(_parameters_of, self._selector))


def _parameters_of(selector: Any, visits: int) -> Any:
    return faiss.SearchParametersHNSW(efSearch=visits, sel=selector)


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
    with path.open("rb") as file:
        file.seek(_padding(mapped(path)))
        index = faiss.read_index(faiss.PyCallbackIOReader(file.read, _AT_ONCE))
    dead, vectors = np.flatnonzero(~live), _vectors(index, index.d)
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
    """Write an index, with its vectors where a line of the processor's cache begins."""
    lengths = list[int]()
    faiss.write_index(index, faiss.PyCallbackIOWriter(lambda content: lengths.append(len(content)), _AT_ONCE))
    links = sum(lengths) - 4 * index.ntotal * index.d  # the vectors are the last in the file
    with disk_errors(path):
        path.touch(mode=0o600)
        with path.open("wb") as file:
            file.write(bytes(-links % _LINE))
            _write(index, file)
        sync_file(path)
    return digest_of(mapped(path))


def _write(index: Any, file: BinaryIO) -> None:
    failures = list[OSError]()

    def write(content: bytes) -> None:
        try:
            file.write(content)
        except OSError as error:
            failures.append(error)
            raise

    try:
        faiss.write_index(index, faiss.PyCallbackIOWriter(write, _AT_ONCE))
    except Exception:
        if failures:
            raise failures[0] from None  # FAISS does not say why
        raise


def digest_of(content: Bytes) -> str:
    """Return the digest of a file's bytes: of the digests of its parts, which several processors compute."""
    parts = [content[start : start + _PART] for start in range(0, len(content), _PART)]
    with ThreadPoolExecutor(min(_THREADS, len(parts) + 1)) as threads:
        digests = threads.map(lambda part: hashlib.blake2b(part.data).digest(), parts)
        return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def mapped(path: Path) -> Bytes:
    """Return the bytes of a file, which stay on the disk until they are read.

    Raises:
        FileNotFoundError: There is none.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _padding(content: Bytes) -> int:
    """Return the number of zeros before the index."""
    return int((content[:_LINE] != 0).argmax())


def _vectors(index: Any, dimension: int) -> Floats:
    """Return the vectors of an index, a view of what it has."""
    flat: Floats = faiss.rev_swig_ptr(faiss.downcast_index(index.storage).get_xb(), index.ntotal * dimension)
    return flat.reshape(-1, dimension)
