"""Days of training as sketches, packed into some hundred kilobytes, so that a new model has a history on its first day.

Counts are exact. Sums of powers are kept as means with 11 bits, rank products as means with 13: errors far below those
of sampling a day's rows.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mainspring.stats.sketches import COUNTS, MOMENTS, WIDTH, Pairs, Sketch

MOST_DAYS = 400
_PRODUCTS = 2.0**13  # of a mean product of 1
_LARGEST = 6e4  # mean power, near the largest number of 16 bits
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]


class Day(NamedTuple):
    """Sketch of the training rows of `[start, end)`, UTC epoch microseconds."""

    start: int
    end: int
    sketch: Sketch
    pairs: Pairs


class _Header(msgspec.Struct, frozen=True, array_like=True):
    columns: tuple[str, ...]
    paired: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    rows: tuple[int, ...]  # of the joint summaries


def pack(days: Sequence[Day]) -> bytes:
    """Return the newest 400 days as bytes, the same for the same days; empty without any.

    Raises:
        ValueError: The days' sketches have different columns.
    """
    kept = sorted(days, key=lambda day: day.start)[-MOST_DAYS:]
    if not kept:
        return b""
    columns, paired = kept[0].sketch.columns, kept[0].pairs.columns
    if any((day.sketch.columns, day.pairs.columns) != (columns, paired) for day in kept):
        raise ValueError("days of different columns")
    rows = np.array([max(day.pairs.rows, 1) for day in kept])
    upper = np.triu_indices(len(paired))
    products = np.stack([day.pairs.products[upper] for day in kept]) / rows[:, None]
    present = np.stack([np.maximum(day.sketch.present, 1) for day in kept])
    header = _Header(
        columns,
        paired,
        tuple(day.start for day in kept),
        tuple(day.end for day in kept),
        tuple(day.pairs.rows for day in kept),
    )
    parts = [
        np.stack([day.sketch.counts for day in kept]).astype("<i4"),
        np.stack([day.sketch.bins for day in kept]).astype("<i4"),
        np.clip(np.stack([day.sketch.sums for day in kept]) / present[:, :, None], -_LARGEST, _LARGEST).astype("<f2"),
        np.round(products * _PRODUCTS).astype("<i2"),
    ]
    # Equal places of the days stand together, which compresses best.
    content = msgspec.msgpack.encode([header, *(np.moveaxis(part, 0, -1).tobytes() for part in parts)])
    return lzma.compress(content, lzma.FORMAT_XZ, filters=_FILTERS)


def unpack(content: bytes) -> list[Day]:
    """Return the days, oldest first.

    Raises:
        ValueError: The bytes are no packed days.
    """
    if not content:
        return []
    try:
        plain = lzma.decompress(content, lzma.FORMAT_XZ)
        header, *parts = msgspec.msgpack.decode(plain, type=tuple[_Header, bytes, bytes, bytes, bytes])
    except (lzma.LZMAError, msgspec.DecodeError) as error:
        raise ValueError(f"not a history of training days: {error}") from error
    days, size, paired = len(header.starts), len(header.columns), len(header.paired)
    counts = _read(parts[0], "<i4", (size, len(COUNTS), days)).astype(np.int64)
    bins = _read(parts[1], "<i4", (size, WIDTH, days)).astype(np.int64)
    upper = np.triu_indices(paired)
    sums = _read(parts[2], "<f2", (size, MOMENTS, days)).astype(np.float64)
    means = _read(parts[3], "<i2", (len(upper[0]), days)) / _PRODUCTS
    found = []
    for day, (start, end, rows) in enumerate(zip(header.starts, header.ends, header.rows, strict=True)):
        products = np.zeros((paired, paired))
        products[upper] = means[day] * rows
        present = bins[day].sum(axis=1, keepdims=True)
        sketch = Sketch(header.columns, counts[day], bins[day], sums[day] * present)
        found.append(Day(start, end, sketch, Pairs(header.paired, rows, products + np.triu(products, 1).T)))
    return found


def _read(content: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return an array whose last axis, the days, comes first."""
    return np.moveaxis(np.frombuffer(content, dtype).reshape(shape), -1, 0).copy()
