"""Expressions in plain Python, row by row: slow, and independent of the two engines except for their typing rules.

`features.verify.brute` uses it to compute the expected values.
"""

from __future__ import annotations

import math
import operator
import re
import struct
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from mainspring.core.expr import Node
from mainspring.core.expr.types import Typed, resolve
from mainspring.core.schema import DType, Schema
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT

Row = Mapping[str, Any]
Scalar = Callable[[Row], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KNOWN = (
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(2069, 12, 31, tzinfo=UTC),
)  # range in which the offsets of zones are known
_BITS = {DType.Int32: 31, DType.Int64: 63, DType.Duration: 63}
_FLOATS = (DType.Float32, DType.Float64)
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def scalar(expr: Node, schema: Schema) -> Scalar:
    """Return a function of one row, a mapping of column to value (`None` for null; instants in microseconds)."""
    return _scalar(resolve(expr, schema))


def _scalar(node: Typed) -> Scalar:
    if node.operation == "column":
        return lambda row: row[node.name]
    if node.operation == "literal":
        return lambda _: node.value
    arguments = [_scalar(argument) for argument in node.arguments]
    if node.operation in _NULLABLE:
        nullable = _NULLABLE[node.operation]
        return lambda row: nullable(*(argument(row) for argument in arguments))
    function = _function(node)

    def of(row: Row) -> Any:
        values = [argument(row) for argument in arguments]
        return None if None in values else function(*values)

    return of


def _function(node: Typed) -> Callable[..., Any]:
    operation, dtype = node.operation, node.dtype
    if operation == "cast":
        return _cast(node.arguments[0].dtype, dtype)
    if operation == "time_part":
        return _wall_clock(node.name, node.zone)
    if operation == "time_start":
        return _instant(_start(node.name, node.zone))
    if operation == "one_of":
        return lambda value: value in list(node.options)
    if operation == "clip":
        low, high = node.options
        return lambda value: (
            low if low is not None and value < low else high if high is not None and value > high else value
        )
    if operation == "slice":
        start, length = (None if each is None else int(each) for each in node.options)
        return lambda text: "".join(list(text)[start:][:length])
    if operation.startswith("int_") or operation == "instant_between":
        return _fitting(_ARITHMETIC[operation.partition("_")[2]], 63)
    if operation.startswith("instant_"):
        return _instant(_ARITHMETIC[operation.partition("_")[2]])
    if operation == "float_div":
        return lambda left, right: left / right if right != 0 else None
    if operation.startswith("float_"):
        return _ARITHMETIC[operation.partition("_")[2]]
    return _PLAIN[operation]


def _fitting(function: Callable[..., Any], bits: int) -> Callable[..., Any]:
    def of(*values: Any) -> Any:
        found = function(*values)
        return found if -(2**bits) <= found < 2**bits else None

    return of


def _instant(function: Callable[..., Any]) -> Callable[..., Any]:
    def of(*values: Any) -> Any:
        found = function(*values)
        return found if FIRST_INSTANT <= found <= LAST_INSTANT else None

    return of


def _cast(source: DType, target: DType) -> Callable[[Any], Any]:
    if source is DType.String:
        return lambda text: _parsed(text, target)
    if target is DType.String:
        return lambda value: str(value).lower() if source is DType.Boolean else str(value)
    if target is DType.Boolean:
        return lambda value: None if isinstance(value, float) and math.isnan(value) else value != 0
    if target is DType.Timestamp:
        return _instant(lambda value: value)
    if target is DType.Float32:
        return narrowed
    if target is DType.Float64:
        return float
    return lambda value: _whole(value, _BITS[target])


def _whole(value: Any, bits: int) -> int | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if -(2**bits) <= int(value) < 2**bits else None


def narrowed(value: Any) -> float | None:
    """Return the nearest Float32; null where a finite value is beyond its range."""
    number = float(value)
    try:
        nearest: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return None
    return nearest


def _parsed(text: str, target: DType) -> Any:
    if target is DType.Boolean:
        return {"true": True, "false": False}.get(text.lower()) if text.isascii() else None
    if target in _FLOATS:
        number = float(text) if _DECIMAL.fullmatch(text) else math.inf
        if not math.isfinite(number):
            return None
        return narrowed(number) if target is DType.Float32 else number
    digits = text.lstrip("+-").lstrip("0")
    if not _WHOLE.fullmatch(text) or len(digits) > 19:  # int() rejects thousands of digits
        return None
    return _whole(int(text[0].strip("+0123456789") + (digits or "0")), _BITS[target])


def _offset(zone: str) -> Callable[[int], int]:
    """Return the function from an instant to the zone's offset in seconds."""
    rules = UTC if zone == "UTC" else ZoneInfo(zone)
    first, last = _KNOWN

    def of(instant: int) -> int:
        try:
            moment = _EPOCH + timedelta(microseconds=instant)
        except OverflowError:  # the local start of the first year's first hours
            moment = first
        offset = min(max(moment, first), last).astimezone(rules).utcoffset() or timedelta()
        return round(offset.total_seconds())

    return of


def _wall_clock(part: str, zone: str) -> Callable[[int], int]:
    offset = _offset(zone)

    def of(instant: int) -> int:
        seconds = instant // 1_000_000 + offset(instant)
        day = seconds // 86_400
        if part == "hour":
            return seconds % 86_400 // 3600
        if part == "minute":
            return seconds % 3600 // 60
        if part == "second":
            return seconds % 60
        return (day + 3) % 7 + 1 if part == "weekday" else _date(day)[("year", "month", "day").index(part)]

    return of


def _start(start: str, zone: str) -> Callable[[int], int]:
    offset = _offset(zone)

    def of(instant: int) -> int:
        there = offset(instant)
        seconds = instant // 1_000_000 + there
        day = seconds // 86_400
        if start == "start_of_hour":
            local = seconds - seconds % 3600
        elif start == "start_of_week":
            local = (day - (day + 3) % 7) * 86_400
        elif start == "start_of_month":
            local = (day - _date(day)[2] + 1) * 86_400
        else:
            local = day * 86_400
        return (local - offset((local - there) * 1_000_000)) * 1_000_000

    return of


def _date(day: int) -> tuple[int, int, int]:
    # The civil calendar repeats every 400 years, 146097 days; a datetime supports the years 1 to 9999 only, and a wall
    # clock may show the day before or after them.
    ages, rest = divmod(day - 10_957, 146_097)
    moment = datetime(2000, 1, 1) + timedelta(days=rest)  # noqa: DTZ001
    return moment.year + 400 * ages, moment.month, moment.day


def _and(left: Any, right: Any) -> Any:
    return False if left is False or right is False else None if None in (left, right) else True


def _or(left: Any, right: Any) -> Any:
    return True if left is True or right is True else None if None in (left, right) else False


def _ascii(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "".join(change(letter) if letter.isascii() else letter for letter in text)


def _rounded(function: Callable[[float], int], value: float) -> float:
    return math.copysign(function(value), value) if math.isfinite(value) else value


def _one_zero(value: Any) -> Any:
    return value + 0.0 if isinstance(value, float) else value


def _order(value: Any) -> tuple[bool, Any]:
    nan = isinstance(value, float) and math.isnan(value)
    return (nan, 0.0 if nan else value)


_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "between": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "abs": abs,
}
_PLAIN: Mapping[str, Callable[..., Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "not": operator.not_,
    "lower": _ascii(str.lower),
    "upper": _ascii(str.upper),
    "length": len,
    "strip": lambda text: text.strip(" \t\n\r\f\v"),
    "concat": operator.add,
    "contains": lambda text, part: text.find(part) >= 0,
    "starts_with": lambda text, part: text[: len(part)] == part,
    "ends_with": lambda text, part: text[len(text) - len(part) :] == part if len(part) <= len(text) else False,
    "replace": lambda text, old, new: new.join(text.split(old)) if old else text,
    "is_nan": math.isnan,
    "floor": lambda value: _rounded(math.floor, value),
    "ceil": lambda value: _rounded(math.ceil, value),
    "round": lambda value: _rounded(round, value),
    "sqrt": lambda value: None if value < 0 else math.sqrt(value),
    "log": lambda value: None if value <= 0 else math.log(value),
    "exp": lambda value: math.inf if value > math.log(sys.float_info.max) else math.exp(value),
}
_NULLABLE: Mapping[str, Callable[..., Any]] = {
    "least": lambda *values: min((_one_zero(value) for value in values if value is not None), key=_order, default=None),
    "greatest": lambda *values: max(
        (_one_zero(value) for value in values if value is not None), key=_order, default=None
    ),
    "and": _and,
    "or": _or,
    "is_null": lambda value: value is None,
    "coalesce": lambda first, second: second if first is None else first,
    "when": lambda condition, then, otherwise: then if condition is True else otherwise,
}
