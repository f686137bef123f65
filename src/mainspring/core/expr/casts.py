"""Casts of NumPy arrays; see `operations`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mainspring.core.expr import parsing, texts
from mainspring.core.expr.operations import Pair, alone, within
from mainspring.core.expr.vectors import NUMPY_TYPES, Array
from mainspring.core.schema import DType

_FLOATS = (DType.Float32, DType.Float64)


def cast(source: DType, target: DType) -> Callable[[Pair], Pair]:
    """Return the conversion between two types."""
    to = NUMPY_TYPES[target]
    if source is DType.String:
        return _from_string(target)
    if target is DType.String:
        return alone(_bool_text if source is DType.Boolean else _int_text)
    if target is DType.Boolean:
        return _truth_of_float if source in _FLOATS else alone(lambda values: values != 0)
    if target is DType.Timestamp:
        return within
    if source in _FLOATS and target not in _FLOATS:
        return _cut(target)
    if source is DType.Float64 and target is DType.Float32:
        return _to_float32
    if source is DType.Int64 and target is DType.Int32:
        return _to_int32
    return alone(lambda values: values.astype(to))


def _bool_text(values: Array) -> Array:
    return texts.objects(["true" if value else "false" for value in values.tolist()])


def _int_text(values: Array) -> Array:
    return texts.objects([str(value) for value in values.tolist()])


def _truth_of_float(argument: Pair) -> Pair:
    values, valid = argument
    return values != 0, valid & ~np.isnan(values)


def _to_int32(argument: Pair) -> Pair:
    values, valid = argument
    small = values.astype(np.int32)
    return small, valid & (small == values)


def _to_float32(argument: Pair) -> Pair:
    values, valid = argument
    single = values.astype(np.float32)
    return single, valid & ~(np.isinf(single) & ~np.isinf(values))


def _cut(target: DType) -> Callable[[Pair], Pair]:
    to, limit = NUMPY_TYPES[target], 2.0 ** (31 if target is DType.Int32 else 63)

    def apply(argument: Pair) -> Pair:
        whole = np.trunc(argument[0])
        fits = (whole >= -limit) & (whole < limit)
        return np.where(fits, whole, 0).astype(to), argument[1] & fits

    return apply


def _from_string(target: DType) -> Callable[[Pair], Pair]:
    to, parse = NUMPY_TYPES[target], _PARSERS[target]

    def apply(argument: Pair) -> Pair:
        parsed = [parse(text) for text in argument[0].tolist()]
        known = np.array([value is not None for value in parsed], dtype=np.bool_)
        return np.array([0 if value is None else value for value in parsed]).astype(to), argument[1] & known

    return apply


def _parse_bool(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower() if text.isascii() else "")


def _parse_float(text: str) -> float | None:
    number = float(text) if _DECIMAL(text) else np.inf
    return number if np.isfinite(number) else None


def _parse_float32(text: str) -> float | None:
    number = _parse_float(text)
    return None if number is None or np.isinf(np.float32(number)) else number


def _parse_int(bits: int) -> Callable[[str], int | None]:
    limit = 1 << (bits - 1)

    def parse(text: str) -> int | None:
        digits = text.lstrip("+-").lstrip("0") or "0"
        if not _INTEGER(text) or len(digits) > 19:  # int() refuses thousands of digits
            return None
        number = -int(digits) if text[0] == "-" else int(digits)
        return number if -limit <= number < limit else None

    return parse


_INTEGER = re.compile(parsing.INTEGER).fullmatch
_DECIMAL = re.compile(parsing.DECIMAL).fullmatch
_PARSERS: dict[DType, Callable[[str], Any]] = {
    DType.Boolean: _parse_bool,
    DType.Int32: _parse_int(32),
    DType.Int64: _parse_int(64),
    DType.Float32: _parse_float32,
    DType.Float64: _parse_float,
}
