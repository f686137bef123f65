"""Compact columns for thousands of rows in a bundle's JSON: the held-out rows of `golden.json`.

A column is an array of little-endian numbers, or of indices into a list of words, compressed by zlib and written as
base64. Decoding costs one copy, where lists of JSON numbers would cost an object per value.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

Array = np.ndarray[Any, Any]

_KINDS: dict[str, np.dtype[Any]] = {"f4": np.dtype("<f4"), "f8": np.dtype("<f8"), "text": np.dtype("<u4")}


class Column(msgspec.Struct, frozen=True):
    """One column. Kind `text` holds indices into `words`, with `None` for null; other kinds hold numbers, with NaN."""

    kind: str  # f4, f8, text
    content: bytes  # zlib
    words: tuple[str | None, ...] = ()


class Packed(msgspec.Struct, frozen=True):
    """Input rows of a model, and the predictions expected for them."""

    rows: int
    inputs: dict[str, Column]
    outputs: dict[str, Column]


def pack(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Packed:
    """Pack rows into compressed columns.

    Args:
        inputs: Name -> values of shape (rows,): float32, float64, or objects that are `str` or `None`.
        outputs: Name -> numbers, shape (rows,).
    """
    (rows,) = {len(values) for values in (*inputs.values(), *outputs.values())}
    return Packed(
        rows,
        {name: _column(values) for name, values in inputs.items()},
        {name: _column(values) for name, values in outputs.items()},
    )


def unpack(columns: Mapping[str, Column], rows: int) -> dict[str, Array]:
    """Return the columns as they were given to `pack`.

    Raises:
        ValueError: A column is damaged, or does not have `rows` values.
    """
    return {name: _values(column, name, rows) for name, column in columns.items()}


def _column(values: Array) -> Column:
    if values.dtype == object:
        words = sorted(set(values.tolist()), key=lambda word: (word is not None, word or ""))
        places = {word: place for place, word in enumerate(words)}
        codes = np.array([places[value] for value in values], _KINDS["text"])
        return Column("text", zlib.compress(codes.tobytes()), tuple(words))
    kind = "f4" if values.dtype == np.float32 else "f8"
    return Column(kind, zlib.compress(values.astype(_KINDS[kind]).tobytes()))


def _values(column: Column, name: str, rows: int) -> Array:
    if column.kind not in _KINDS:
        raise ValueError(f"column {name!r} has the unknown kind {column.kind[:20]!r}")
    dtype = _KINDS[column.kind]
    unzipping = zlib.decompressobj()
    try:  # bounded, against decompression bombs
        content = unzipping.decompress(column.content, rows * dtype.itemsize + 1)
    except zlib.error as error:
        raise ValueError(f"column {name!r} is damaged: {error}") from error
    if len(content) != rows * dtype.itemsize:
        raise ValueError(f"column {name!r} has {len(content)} bytes for {rows} rows of {dtype.itemsize}")
    values: Array = np.frombuffer(content, dtype)
    if column.kind != "text":
        return values
    if rows and int(values.max()) >= len(column.words):
        raise ValueError(f"column {name!r} refers to word {int(values.max())} of {len(column.words)}")
    words: Array = np.array(column.words, object)[values]
    return words
