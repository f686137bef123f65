"""NumPy implementation of each typed operation; `evaluate` chains them.

A function takes (values, valid) pairs and gives one. Shapes are (rows,) or, of what is the same for all rows, (1,).
The values at a null are arbitrary but of the right type, and never raise. The caller silences NumPy's warnings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mainspring.core.expr.vectors import Array
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT

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


def extreme(name: str, *, floats: bool) -> Callable[[Pair, Pair], Pair]:
    """Return `least` or `greatest`: nulls are passed over, NaN is above every number, and there is one zero."""
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
    # The C library's, as DuckDB's: NumPy's own differs in the last bit.
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
    """Return `function` of instants, null where the result is none."""
    return lambda argument: within((function(argument[0]), argument[1]))
