"""Columns of a batch, and the NumPy implementation of each typed operation; `evaluate` chains them.

A function takes (values, valid) pairs and returns one. Shapes are (rows,), or (1,) for a value common to all rows.
The values at a null are arbitrary but of the right type, and never raise. The caller silences NumPy's warnings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import InvalidData
from mainspring.core.expr.types import WHITE_SPACE
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT, from_datetime

Array = npt.NDArray[Any]

NUMPY_TYPES: Mapping[DType, Any] = {
    DType.String: np.object_,
    DType.Boolean: np.bool_,
    DType.Int32: np.int32,
    DType.Int64: np.int64,
    DType.Float32: np.float32,
    DType.Float64: np.float64,
    DType.Timestamp: np.int64,
    DType.Duration: np.int64,
}
_NONE = type(None)
_ACCEPTED: Mapping[DType, frozenset[type]] = {
    DType.String: frozenset((str, _NONE)),
    DType.Boolean: frozenset((bool, _NONE)),
    DType.Int32: frozenset((int, _NONE)),
    DType.Int64: frozenset((int, _NONE)),
    DType.Float32: frozenset((float, int, _NONE)),
    DType.Float64: frozenset((float, int, _NONE)),
    DType.Timestamp: frozenset((int, datetime, _NONE)),
    DType.Duration: frozenset((int, _NONE)),
}
_FILL: Mapping[DType, Any] = {dtype: "" if dtype is DType.String else 0 for dtype in DType}


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """Values of one type, shape (rows,), and `valid`, shape (rows,): False where the value is null.

    The entry of `values` at a null is arbitrary, of the right type. Strings are `object`, times are int64 microseconds.
    """

    values: Array
    valid: Array

    def to_list(self) -> list[Any]:
        """Return plain Python values, None for null."""
        if self.valid.all():
            return list(self.values.tolist())
        pairs = zip(self.values.tolist(), self.valid.tolist(), strict=True)
        return [value if valid else None for value, valid in pairs]


def vector(values: Sequence[Any], dtype: DType) -> Vector:
    """Return plain Python values (None for null) as a vector.

    Timestamps are ints (UTC epoch microseconds) or aware datetimes; an int may stand for a float.

    Raises:
        InvalidData: A value is of another type or does not fit; the message names it.
    """
    found = set(map(type, values))
    if not found <= _ACCEPTED[dtype]:
        wrong = next(value for value in values if type(value) not in _ACCEPTED[dtype])
        raise InvalidData(f"{wrong!r} of type {type(wrong).__name__} is not a {dtype!r}.")
    if datetime in found:
        values = [from_datetime(value) if isinstance(value, datetime) else value for value in values]
    if _NONE in found:
        valid = np.array([value is not None for value in values], dtype=np.bool_)
        fill = _FILL[dtype]
        values = [fill if value is None else value for value in values]
    else:
        valid = np.ones(len(values), dtype=np.bool_)
    try:
        if dtype is DType.Float32:
            with np.errstate(over="raise"):
                return Vector(np.array(values, dtype=np.float64).astype(np.float32), valid)
        return Vector(np.array(values, dtype=NUMPY_TYPES[dtype]), valid)
    except (OverflowError, FloatingPointError):
        raise InvalidData(f"{max(values, key=abs)!r} does not fit {dtype!r}.") from None


Pair = tuple[Array, Array]

_INT64 = np.iinfo(np.int64)


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
    return within(int_add(left, right))


def instant_sub(left: Pair, right: Pair) -> Pair:
    return within(int_sub(left, right))


def within(instant: Pair) -> Pair:
    values, valid = instant
    return values, valid & (values >= FIRST_INSTANT) & (values <= LAST_INSTANT)


def both(function: Callable[[Array, Array], Array]) -> Callable[[Pair, Pair], Pair]:
    """Return `function` of the values, null where either is null."""

    def apply(left: Pair, right: Pair) -> Pair:
        return function(left[0], right[0]), left[1] & right[1]

    return apply


def alone(function: Callable[[Array], Array]) -> Callable[[Pair], Pair]:
    """Return `function` of the values, null where the value is null."""

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


def extreme(name: str, *, floats: bool) -> Callable[[Pair, Pair], Pair]:
    """Return `least` or `greatest`: nulls are ignored, NaN is above every number, and -0.0 equals 0.0."""
    pick: Any = (np.fmin if floats else np.minimum) if name == "least" else np.maximum

    def apply(left: Pair, right: Pair) -> Pair:
        (a, a_valid), (b, b_valid) = left, right
        a, b = np.where(a_valid, a, b), np.where(b_valid, b, a)  # a null takes the other's place
        values = pick(a, b)
        return values + values.dtype.type(0) if floats else values, a_valid | b_valid

    return apply


def clip(low: Any, high: Any) -> Callable[[Array], Array]:
    def apply(values: Array) -> Array:
        kind = values.dtype.type
        if low is not None:
            values = np.where(values < kind(low), kind(low), values)
        return values if high is None else np.where(values > kind(high), kind(high), values)

    return apply


def sqrt(argument: Pair) -> Pair:
    values, valid = argument
    return np.sqrt(values), valid & ~(values < 0)


def log(argument: Pair) -> Pair:
    # The C library's function, as in DuckDB: NumPy's own differs in the last bit.
    values, valid = argument
    known = valid & ~(values <= 0)
    return np.array([math.log(x) if ok else 0.0 for x, ok in zip(values.tolist(), known.tolist(), strict=True)]), known


def exp(values: Array) -> Array:
    return np.array([_exp(x) for x in values.tolist()], dtype=np.float64)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def instant(function: Callable[[Array], Array]) -> Callable[[Pair], Pair]:
    """Return `function` of instants, null where the result is not a valid instant."""
    return lambda argument: within((function(argument[0]), argument[1]))


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


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


def strip(values: Array) -> Array:
    return objects([text.strip(WHITE_SPACE) for text in values.tolist()])


def slice_of(start: Any, length: Any) -> Callable[[Array], Array]:
    end = None if length is None else start + length
    return lambda values: objects([text[start:end] for text in values.tolist()])


def replaced(text: str, old: str, new: str) -> str:
    return text.replace(old, new) if old else text


def together(kind: Any, function: Callable[..., Any]) -> Callable[..., tuple[Array, Array]]:
    """Return `function` of several strings, null where one is null; results have NumPy's type `kind`."""

    def apply(*arguments: tuple[Array, Array]) -> tuple[Array, Array]:
        columns = np.broadcast_arrays(*(values for values, _ in arguments))
        found = [function(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        valid = arguments[0][1]
        for _, also in arguments[1:]:
            valid = valid & also
        return objects(found) if kind is np.object_ else np.array(found, dtype=kind), valid

    return apply
