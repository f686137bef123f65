"""The record-setting rule on arrays, for the rows of one load: sorts that cost little where rows come in order.

What counts is said in `data.records`, which has the rule as SQL for whole tables.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source

_HALF = 16  # bits: NumPy sorts numbers of so many by radix


@dataclass(frozen=True, slots=True)
class Ranks:
    """Rows' places in two orders; arrays have shape (rows,).

    `rank` is by event time, recorded time and `_seq`. `order` lists the rows by `_visible_at`, among equals the highest
    rank first.
    """

    rank: np.ndarray
    order: np.ndarray


def ranks(rows: pa.Table, source: Source) -> Ranks:
    """Return the ranks of rows that have the source's times, `_visible_at` and `_seq`."""
    event, visible, sequence = (_numbers(rows[name]) for name in (source.event_time, VISIBLE_AT, SEQUENCE))
    recorded = event if source.recorded_time is None else _numbers(rows[source.recorded_time])
    by_rank = np.lexsort((sequence, recorded, event))
    rank = np.empty(len(event), np.int64)
    rank[by_rank] = np.arange(len(event))
    return Ranks(rank, np.lexsort((-rank, visible)))


def counting_rows(rows: pa.Table, keys: Sequence[str], ranked: Ranks) -> np.ndarray:
    """Return for each row whether it counts among `rows`; one with a null key never does. Shape (rows,), bool."""
    codes, present = _codes(rows, keys)
    order = ranked.order if present is None else ranked.order[present[ranked.order]]
    order = _grouped(order, codes)
    # A group's ranks are raised above those of the groups before, so one running maximum serves all.
    raised = codes[order].astype(np.int64) * (len(rows) + 1) + ranked.rank[order]
    counts = np.zeros(len(rows), bool)
    counts[order[raised == np.maximum.accumulate(raised)]] = True
    return counts


def _grouped(order: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return `order` with the rows of each code together, which stay in their order."""
    for shift in (0, _HALF):
        half = (codes[order] >> shift).astype(np.uint16)
        if shift and not half.any():
            break
        order = order[np.argsort(half, kind="stable")]
    return order


def _codes(rows: pa.Table, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return numbers that are equal where all keys are, and which rows have no null among them (None: all)."""
    nulls = [key for key in keys if rows[key].null_count]
    present = functools.reduce(pc.and_, (pc.is_valid(rows[key]) for key in nulls)) if nulls else None
    codes: np.ndarray | None = None
    for key in keys:
        column = rows[key].combine_chunks()
        if pa.types.is_floating(column.type):
            column = pc.add(column, 0.0)  # -0.0 is 0.0
        encoded = column.dictionary_encode()
        one = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint32)
        if codes is None:
            codes = one
        else:
            pairs = codes.astype(np.uint64) * np.uint64(len(encoded.dictionary) + 1) + one
            codes = np.unique(pairs, return_inverse=True)[1].astype(np.uint32)
    assert codes is not None
    return codes, None if present is None else present.to_numpy(zero_copy_only=False)


def _numbers(column: pa.ChunkedArray[Any]) -> np.ndarray:
    numbers: np.ndarray = column.cast(pa.int64()).combine_chunks().to_numpy()
    return numbers


def arrow_of(values: np.ndarray) -> pa.Array[Any]:
    """Return integers or booleans as Arrow's. (`pa.array` would import pandas.)"""
    if values.dtype == bool:
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits.tobytes())])
    numbers = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers.tobytes())])
