"""The record-setting rule: it decides which rows count for last values.

Among an entity's rows, a row counts if its (event time, recorded time, `_seq`) exceeds that of every other row visible
by then. Rows that do not count never affect others, so new rows are compared only with existing counting rows, and
among these only with the last before an entity's first new row and those after it (`data.heads` finds them). The rule
stands here as SQL, for whole tables, and on arrays, for the rows of one load; the latter is cheap for rows that arrive
in order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_name
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source

_PIECE = 1 << 16  # rows
_TEXT_BYTES = 1 << 31  # limit of 32-bit offsets of plain text


def rank_columns(source: Source) -> tuple[str, str, str]:
    """Return the quoted columns that rank rows of one entity; without a recorded time, event time is repeated."""
    return quote_name(source.event_time), quote_name(source.recorded_time or source.event_time), quote_name(SEQUENCE)


def counting(source: Source, rows: str, keys: Sequence[str]) -> str:
    """Return a SQL query of the relation `rows` (without null keys) with the column `_counts`, true if a row counts.

    Ranks are numbered once, so the running maximum is over one integer. Among rows visible at the same time the highest
    rank comes first, so it shadows the others.
    """
    partition = ", ".join(map(quote_name, keys))
    return f"""
        SELECT * EXCLUDE (_rank), _rank = max(_rank) OVER (
            PARTITION BY {partition} ORDER BY {VISIBLE_AT}, _rank DESC ROWS UNBOUNDED PRECEDING) AS _counts
        FROM (SELECT *, row_number() OVER (ORDER BY {", ".join(rank_columns(source))}) AS _rank FROM ({rows}))"""


def present(keys: Sequence[str]) -> str:
    """Return the SQL condition that no key is null."""
    return " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Rows' positions in two orders; arrays have shape (rows,).

    `rank` is by event time, recorded time and `_seq`; `by_rank` lists the rows in that order. `order` lists them by
    `_visible_at`, and among equals by descending rank.
    """

    rank: np.ndarray
    by_rank: np.ndarray
    order: np.ndarray


@dataclass(frozen=True, slots=True)
class Counted:
    """The rows that count, bool of shape (rows,), and for each entity the index of its head and of its first row."""

    counts: np.ndarray
    heads: np.ndarray
    firsts: np.ndarray


def ranks(rows: pa.Table, source: Source) -> Ranks:
    """Return the ranks of rows with the source's times, `_visible_at` and `_seq`."""
    event, visible, sequence = (numbers(rows[name]) for name in (source.event_time, VISIBLE_AT, SEQUENCE))
    recorded = event if source.recorded_time is None else numbers(rows[source.recorded_time])
    rank = by_rank = np.arange(len(event))
    # Rows ordered by event time are ranked already.
    if not (event[1:] > event[:-1]).all():
        by_rank = np.lexsort((sequence, recorded, event))
        rank = np.empty_like(by_rank)
        rank[by_rank] = np.arange(len(event))
    order = np.argsort(visible, kind="stable")
    instants = visible[order]
    if (instants[1:] == instants[:-1]).any():
        order = np.lexsort((-rank, visible))
    return Ranks(rank, by_rank, order)


def nearly_in_order(order: np.ndarray) -> bool:
    """Return whether the rows are many and each is near its place in an order: what comes from a log mostly is so."""
    return len(order) > _PIECE and int(np.abs(order - np.arange(len(order))).max()) <= _PIECE


def in_order(rows: pa.Table, order: np.ndarray, *, text_bytes: int = _TEXT_BYTES) -> pa.Table:
    """Return rows in the given order, piecewise where each piece comes from a short range: that halves the copying.

    Args:
        text_bytes: Size in bytes from which a column's text may exceed one array.
    """
    if (order[1:] > order[:-1]).all():
        return rows
    schema, piece = rows.schema, _PIECE
    if rows.nbytes >= text_bytes:
        # Large text has 64-bit offsets; each piece is small enough for plain text again.
        piece = max(1, min(piece, len(rows) * text_bytes // (2 * rows.nbytes)))
        rows = rows.cast(pa.schema([_large(field) for field in schema]))
    pieces = []
    for start in range(0, len(order), piece):
        places = order[start : start + piece]
        first, last = int(places.min()), int(places.max())
        if last - first > 2 * _PIECE:
            rows = rows.combine_chunks()  # effective only once: a single chunk stays unchanged
        stretch = rows.slice(first, last - first + 1).combine_chunks()
        pieces.append(stretch.take(arrow_of(places - first)).cast(schema))
    return pa.concat_tables(pieces)


def _large(field: pa.Field[pa.DataType]) -> pa.Field[pa.DataType]:
    return field.with_type(pa.large_string()) if pa.types.is_string(field.type) else field


def counting_rows(rows: pa.Table, keys: Sequence[str], ranked: Ranks, hashes: np.ndarray) -> Counted:
    """Return the rows that count; a row with a null key never does.

    Args:
        hashes: uint64 of shape (rows,), equal for rows with equal keys.
    """
    nulls = [pc.is_valid(rows[key]) for key in keys if rows[key].null_count]
    order = ranked.order
    if nulls:
        order = order[truths(functools.reduce(pc.and_, nulls))[order]]
    order, begins = _grouped(rows, keys, order, hashes)
    # Ranks of each group are offset above those of earlier groups, so one running maximum serves all.
    raised = np.cumsum(begins) * len(rows)
    raised += ranked.rank[order]
    highest = np.maximum.accumulate(raised)
    counts = np.zeros(len(rows), bool)
    counts[order[raised == highest]] = True
    firsts = np.flatnonzero(begins)
    lasts = np.append(firsts[1:], len(order))[: len(firsts)] - 1
    return Counted(counts, ranked.by_rank[highest[lasts] % max(len(rows), 1)], order[firsts])


def _grouped(
    rows: pa.Table, keys: Sequence[str], order: np.ndarray, hashes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `order` with rows of equal keys made adjacent, stably, and a mask of the groups' first rows."""
    bits = np.uint64(len(order).bit_length())
    low = (np.uint64(1) << bits) - np.uint64(1)
    # One number per row, hash bits above position bits: sorting numbers costs a tenth of sorting positions by keys.
    mixed = hashes[order]
    mixed &= ~low
    mixed |= np.arange(len(order), dtype=np.uint64)
    mixed.sort()
    grouped = order[(mixed & low).view(np.int64)]
    mixed >>= bits
    begins = np.ones(len(order), bool)
    np.not_equal(mixed[1:], mixed[:-1], out=begins[1:])
    if _agree(rows, keys, grouped, begins):
        return grouped, begins
    # Different keys share a hash, or equal keys compare unequal, as NaN does.
    return _grouped(rows, [], order, _codes(rows, keys).astype(np.uint64) << np.uint64(32))


def _agree(rows: pa.Table, keys: Sequence[str], grouped: np.ndarray, begins: np.ndarray) -> bool:
    """Return whether each row that does not start a group has the keys of the row before it."""
    places = arrow_of(grouped)
    for key in keys:
        column = rows[key].combine_chunks().take(places)
        if not (truths(pc.equal(column[1:], column[:-1])) | begins[1:]).all():
            return False
    return True


def _codes(rows: pa.Table, keys: Sequence[str]) -> np.ndarray:
    """Return numbers below the number of rows, equal for rows with equal keys."""
    codes: np.ndarray | None = None
    for key in keys:
        column = rows[key].combine_chunks()
        if pa.types.is_floating(column.type):
            # Normalise -0.0 to 0.0, and all NaN to one.
            column = pc.if_else(pc.is_nan(column), float("nan"), pc.add(column, 0.0))
        encoded = column.dictionary_encode()
        one = numbers(encoded.indices.fill_null(0)).astype(np.uint32)
        if codes is None:
            codes = one
        else:
            pairs = codes.astype(np.uint64) * np.uint64(len(encoded.dictionary) + 1) + one
            codes = np.unique(pairs, return_inverse=True)[1].astype(np.uint32)
    assert codes is not None
    return codes


def numbers(column: pa.ChunkedArray[Any] | pa.Array[Any], kind: pa.DataType | None = None) -> np.ndarray:
    """Return a column without nulls as integers, 64-bit by default. (`to_numpy` would import pandas.)"""
    cast = column.cast(kind or pa.int64())
    found: np.ndarray = np.from_dlpack(cast.combine_chunks() if isinstance(cast, pa.ChunkedArray) else cast)
    return found


def truths(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> np.ndarray:
    """Return a boolean column without nulls as a bool array."""
    return numbers(column, pa.uint8()).view(bool)


def arrow_of(values: np.ndarray) -> pa.Array[Any]:
    """Return integers or booleans as an Arrow array. (`pa.array` and `pa.scalar` would import pandas.)"""
    if values.dtype == bool:
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits.data)])
    numbers = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers.data)])


def repeated(text: str, rows: int) -> pa.ChunkedArray[Any]:
    """Return a column with the same text in each row."""
    encoded = text.encode()
    offsets = np.array([0, len(encoded)], np.int32)
    one: Any = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets.data), pa.py_buffer(encoded)])
    # The chunks share their memory.
    piece = pa.repeat(one[0], min(rows, _PIECE))
    whole, rest = divmod(rows, _PIECE)
    return pa.chunked_array([*[piece] * whole, piece[:rest]], pa.string())
