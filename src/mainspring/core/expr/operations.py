"""What each typed operation does to NumPy arrays; `evaluate` chains them.

A function takes (values, valid) pairs and gives one. Shapes are (rows,) or, of what is the same for all rows, (1,).
The values at a null are arbitrary but of the right type, and never raise. The caller silences NumPy's warnings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mainspring.core.expr import parsing
from mainspring.core.expr.vectors import NUMPY_TYPES, Array
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT

Pair = tuple[Array, Array]

_INT64 = np.iinfo(np.int64)
_FLOATS = (DType.Float32, DType.Float64)
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


def int_add(left: Pair, right: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = left, right
    total = a + b
    overflow = ((a ^ total) & (b ^ total)) < 0  # both operands differ in sign from the result
    return total, a_valid & b_valid & ~overflow


def int_sub(left: Pair, right: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = left, right
    difference = a - b
    overflow = ((a ^ b) & (a ^ difference)) < 0
    return difference, a_valid & b_valid & ~overflow


def int_mul(left: Pair, right: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = left, right
    product = a * b
    valid = a_valid & b_valid
    near = np.abs(a.astype(np.float64) * b)  # within 3 roundings, so a margin of 2**12 decides all but a few
    if near.size and near.max() < 2.0**63 - 2.0**12:
        return product, valid
    a, b, near = np.broadcast_arrays(a, b, near)
    fits = near < 2.0**63 + 2.0**12
    for row in np.flatnonzero(fits & (near >= 2.0**63 - 2.0**12)):
        fits[row] = _INT64.min <= int(a[row]) * int(b[row]) <= _INT64.max
    return product, valid & fits


def int_neg(argument: Pair) -> Pair:
    values, valid = argument
    return -values, valid & (values != _INT64.min)


def int_abs(argument: Pair) -> Pair:
    values, valid = argument
    return np.abs(values), valid & (values != _INT64.min)


def float_div(left: Pair, right: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = left, right
    return a / b, a_valid & b_valid & (b != 0)


def instant_add(left: Pair, right: Pair) -> Pair:
    return _within(int_add(left, right))


def instant_sub(left: Pair, right: Pair) -> Pair:
    return _within(int_sub(left, right))


def _within(instant: Pair) -> Pair:
    values, valid = instant
    return values, valid & (values >= FIRST_INSTANT) & (values <= LAST_INSTANT)


def both(function: Callable[[Array, Array], Array]) -> Callable[[Pair, Pair], Pair]:
    """Return `function` of the values, null where either is."""

    def apply(left: Pair, right: Pair) -> Pair:
        return function(left[0], right[0]), left[1] & right[1]

    return apply


def alone(function: Callable[[Array], Array]) -> Callable[[Pair], Pair]:
    """Return `function` of the values, null where they are."""

    def apply(argument: Pair) -> Pair:
        return function(argument[0]), argument[1]

    return apply


def kleene_and(left: Pair, right: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = left, right
    false = (a_valid & ~a) | (b_valid & ~b)
    return ~false, (a_valid & b_valid) | false


def kleene_or(left: Pair, right: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = left, right
    true = (a_valid & a) | (b_valid & b)
    return true, (a_valid & b_valid) | true


def is_null(argument: Pair) -> Pair:
    valid = argument[1]
    return ~valid, np.ones_like(valid)


def coalesce(first: Pair, second: Pair) -> Pair:
    (a, a_valid), (b, b_valid) = first, second
    return np.where(a_valid, a, b), a_valid | b_valid


def when(condition: Pair, then: Pair, otherwise: Pair) -> Pair:
    chosen = condition[0] & condition[1]
    return np.where(chosen, then[0], otherwise[0]), np.where(chosen, then[1], otherwise[1])


def objects(values: list[Any]) -> Array:
    """Return strings as an array of objects."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def lower(values: Array) -> Array:
    return objects([text.lower() if text.isascii() else text.translate(_LOWER) for text in values.tolist()])


def upper(values: Array) -> Array:
    return objects([text.upper() if text.isascii() else text.translate(_UPPER) for text in values.tolist()])


def length(values: Array) -> Array:
    return np.array([len(text) for text in values.tolist()], dtype=np.int32)


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
        return _within
    if source in _FLOATS and target not in _FLOATS:
        return _cut(target)
    if source is DType.Float64 and target is DType.Float32:
        return _to_float32
    if source is DType.Int64 and target is DType.Int32:
        return _to_int32
    return alone(lambda values: values.astype(to))


def _bool_text(values: Array) -> Array:
    return objects(["true" if value else "false" for value in values.tolist()])


def _int_text(values: Array) -> Array:
    return objects([str(value) for value in values.tolist()])


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
