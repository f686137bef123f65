"""The operations of expressions, on one value each. `None` is null.

Every operation gives the same bits as Mainspring's own on NumPy. A float of 32 bits is kept as the float of 64 bits
with the same value. Times are UTC epoch microseconds.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from mainspring_edge.wall_clocks import FIRST_INSTANT, LAST_INSTANT

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_WHITE_SPACE = " \t\n\r\f\v"
_INTEGER = re.compile(r"[+-]?[0-9]+").fullmatch
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?").fullmatch
_SINGLE = struct.Struct("<f")

Operation = Callable[..., Any]


def of_one(function: Operation) -> Operation:
    """Return `function` of a value, null of null."""
    return lambda a: None if a is None else function(a)


def of_two(function: Operation) -> Operation:
    """Return `function` of two values, null where one is null."""
    return lambda a, b: None if a is None or b is None else function(a, b)


def _replace(text: str | None, old: str | None, new: str | None) -> str | None:
    if text is None or old is None or new is None:
        return None
    return text.replace(old, new) if old else text


def int64(value: int) -> int | None:
    """Return the value, null where 64 bits do not hold it."""
    return value if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF else None


def instant(value: int) -> int | None:
    """Return the value, null where it is outside of the years 1 to 9999."""
    return value if FIRST_INSTANT <= value <= LAST_INSTANT else None


def _and(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a: bool | None, b: bool | None) -> bool | None:
    return True if a is True or b is True else None if a is None or b is None else False


def _whole(function: Callable[[float], int]) -> Operation:
    # Python's own functions give an int, which has no -0.0.
    return of_one(lambda x: math.copysign(function(x), x) if math.isfinite(x) else x)


def _log(x: float) -> float | None:
    return None if x <= 0 else math.log(x)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _lower(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _upper(text: str) -> str:
    return text.upper() if text.isascii() else text.translate(_UPPER)


OPERATIONS: Mapping[str, Operation] = {
    "int_add": of_two(lambda a, b: int64(a + b)),
    "int_sub": of_two(lambda a, b: int64(a - b)),
    "int_mul": of_two(lambda a, b: int64(a * b)),
    "int_neg": of_one(lambda a: int64(-a)),
    "int_abs": of_one(lambda a: int64(abs(a))),
    "float_add": of_two(operator.add),
    "float_sub": of_two(operator.sub),
    "float_mul": of_two(operator.mul),
    "float_div": of_two(lambda a, b: a / b if b else None),
    "float_neg": of_one(operator.neg),
    "float_abs": of_one(abs),
    "instant_add": of_two(lambda a, b: instant(a + b)),
    "instant_sub": of_two(lambda a, b: instant(a - b)),
    "instant_between": of_two(operator.sub),
    "eq": of_two(operator.eq),
    "ne": of_two(operator.ne),
    "lt": of_two(operator.lt),
    "le": of_two(operator.le),
    "gt": of_two(operator.gt),
    "ge": of_two(operator.ge),
    "and": _and,
    "or": _or,
    "not": of_one(operator.not_),
    "is_null": lambda a: a is None,
    "coalesce": lambda a, b: b if a is None else a,
    "when": lambda condition, then, otherwise: then if condition else otherwise,
    "is_nan": of_one(math.isnan),
    "floor": _whole(math.floor),
    "ceil": _whole(math.ceil),
    "round": _whole(round),
    "sqrt": of_one(lambda x: None if x < 0 else math.sqrt(x)),
    "log": of_one(_log),
    "exp": of_one(_exp),
    "lower": of_one(_lower),
    "upper": of_one(_upper),
    "length": of_one(len),
    "strip": of_one(lambda text: text.strip(_WHITE_SPACE)),
    "concat": of_two(operator.add),
    "contains": of_two(lambda text, part: part in text),
    "starts_with": of_two(str.startswith),
    "ends_with": of_two(str.endswith),
    "replace": _replace,
}  # fmt: skip


def extreme(name: str, dtype: str) -> Operation:
    """Return `least` or `greatest`: nulls are passed over, NaN is above every number, and -0.0 is 0.0."""
    pick = min if name == "least" else max
    if dtype not in ("float32", "float64"):
        return lambda a, b: b if a is None else a if b is None else pick(a, b)

    def apply(a: float | None, b: float | None) -> float | None:
        if a is None or b is None:
            only = b if a is None else a
            return None if only is None else only + 0.0
        if math.isnan(a) or math.isnan(b):
            number = b if math.isnan(a) else a
            return number + 0.0 if name == "least" else math.nan
        return pick(a, b) + 0.0

    return apply


def clip(low: Any, high: Any) -> Operation:
    def apply(value: Any) -> Any:
        if low is not None and value < low:
            value = low
        return high if high is not None and value > high else value

    return of_one(apply)


def slice_of(start: int, length: int | None) -> Operation:
    end = None if length is None else start + length
    return of_one(lambda text: text[start:end])


def one_of(options: list[Any]) -> Operation:
    return of_one(frozenset(options).__contains__)


# Casts


def single(value: float) -> float:
    """Return the nearest float of 32 bits; beyond its range, infinity."""
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded


def _to_single(value: float) -> float | None:
    rounded = single(value)
    return None if math.isinf(rounded) and not math.isinf(value) else rounded


def _int_to_single(value: int) -> float:
    # Rounded once, to 24 bits: below the 53 bits of a float the rest only says that there is one ("round to odd").
    if abs(value) >= 1 << 53:
        value = value >> 11 << 11 | (1 << 11 if value & 0x7FF else 0)
    return single(float(value))


def _cut(bits: int) -> Operation:
    limit = 1 << (bits - 1)

    def apply(x: float) -> int | None:
        whole = math.trunc(x) if math.isfinite(x) else limit
        return whole if -limit <= whole < limit else None

    return apply


def _parse_int(bits: int) -> Operation:
    limit = 1 << (bits - 1)

    def parse(text: str) -> int | None:
        digits = text.lstrip("+-").lstrip("0") or "0"
        if not _INTEGER(text) or len(digits) > 19:  # int() rejects thousands of digits
            return None
        number = -int(digits) if text[0] == "-" else int(digits)
        return number if -limit <= number < limit else None

    return parse


def _parse_float(text: str) -> float | None:
    number = float(text) if _DECIMAL(text) else math.inf
    return number if math.isfinite(number) else None


def _parse_bool(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower() if text.isascii() else "")


_FLOATS = ("float32", "float64")
_PARSERS: Mapping[str, Operation] = {
    "boolean": _parse_bool,
    "int32": _parse_int(32),
    "int64": _parse_int(64),
    "float64": _parse_float,
}


def cast(source: str, target: str) -> Operation | None:
    """Return the conversion between two types; `None` if there is none."""
    if target == "timestamp" and source == "int64":
        return of_one(instant)
    if source == "string":
        if target == "float32":
            return of_one(lambda text: None if (x := _parse_float(text)) is None else _to_single(x))
        parse = _PARSERS.get(target)
        return None if parse is None else of_one(parse)
    if target == "string":
        return of_one(lambda a: ("true" if a else "false") if source == "boolean" else str(a))
    if target == "boolean":
        return of_one(lambda x: None if math.isnan(x) else x != 0)
    if source in _FLOATS:
        if target == "float64":
            return of_one(lambda x: x)
        return of_one(_to_single if target == "float32" else _cut(32 if target == "int32" else 64))
    if target in _FLOATS:
        return of_one(float if target == "float64" else _int_to_single)
    if target == "int32":
        return of_one(lambda a: int(a) if -0x80000000 <= a <= 0x7FFFFFFF else None)
    return of_one(int)
