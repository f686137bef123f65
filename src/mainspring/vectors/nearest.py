"""Exact search: similarities in float32 by matrix products choose what may be among the nearest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mainspring.vectors.columns import Doubles, similarities
from mainspring.vectors.model import Floats, Metric

Places = np.ndarray[Any, np.dtype[np.int64]]
_AT_ONCE = 1 << 24  # similarities in memory, 64 MB
_BLOCK = 1 << 17  # numbers, 512 KB
_ROUNDING = 2.0**-23


def unit(vectors: Floats) -> Floats:
    """Return vectors of length 1 in the same directions; none may be zero."""
    wide = vectors.astype(np.float64)
    lengths = np.vecdot(wide, wide)
    wide /= math.sqrt(lengths.item()) if len(wide) == 1 else np.sqrt(lengths)[:, None]  # quickly, of one query
    return wide.astype(np.float32)


def squares(vectors: Floats) -> Doubles:
    """Return the squared length of each vector."""
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def nearest(metric: Metric, rows: Floats, lengths: Doubles, queries: Floats, k: int, among: Places) -> list[Places]:
    """Return for each query the places of its `k` nearest rows, in no order, and of those that are as near as the last.

    Args:
        metric: Of cosine, rows and queries have length 1.
        lengths: Of `squares(rows)`.
        among: Places of the rows that are compared, in order.
    """
    if len(among) <= k:
        return [among] * len(queries)
    step = max(1, _AT_ONCE // len(among))
    lengths = lengths if len(among) == len(rows) else lengths[among]
    return [
        among[near]
        for start in range(0, len(queries), step)
        for near in _chunk(metric, rows, lengths, queries[start : start + step], k, among)
    ]


def _chunk(metric: Metric, rows: Floats, lengths: Doubles, queries: Floats, k: int, among: Places) -> list[Places]:
    """Return the same, counted among those that are compared, with their lengths."""
    found = []
    longest = np.sqrt(lengths.max())
    with np.errstate(all="ignore"):
        scores = _products(rows, queries, among)
        if metric == "euclidean":  # in the order of the distances: |q|² is the same for all
            scores -= (lengths / 2).astype(np.float32)
        for query, row in zip(queries, scores, strict=True):
            bound = np.partition(row, len(row) - k)[len(row) - k]
            length = np.sqrt(np.square(query.astype(np.float64)).sum())
            wrong = (len(query) + 4) * _ROUNDING * longest * (length + longest / 2)
            near = np.flatnonzero(row >= bound - 2 * wrong)
            if not np.isfinite(bound - wrong) or not np.isfinite(row).all():  # too large for float32
                exact = similarities("dot" if metric == "cosine" else metric, rows[among], query)
                near = np.flatnonzero(exact >= np.partition(exact, len(exact) - k)[len(exact) - k])
            found.append(near)
    return found


def _products(rows: Floats, queries: Floats, among: Places) -> Floats:
    """Return the inner products of queries and rows; rows are copied in blocks that fit the processor's cache."""
    if len(among) == len(rows):
        return queries @ rows.T
    products = np.empty((len(queries), len(among)), np.float32)
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(among), step):
        block = rows.take(among[start : start + step], axis=0)
        np.matmul(queries, block.T, out=products[:, start : start + step])
    return products
