"""Values of rows: what a device accepts for each type, and how values stand in a package's JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mainspring_edge.errors import InvalidRow
from mainspring_edge.operations import single
from mainspring_edge.wall_clocks import FIRST_INSTANT, LAST_INSTANT

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def from_json(value: Any, dtype: str) -> Any:
    """Return a value from a package's JSON, where integers of 64 bits and floats that are not finite are texts."""
    if dtype == "tensor":
        return value
    if isinstance(value, str) and dtype != "string":
        return _SPECIAL[value] if dtype in ("float32", "float64") else int(value)
    return float(value) if dtype in ("float32", "float64") and value is not None else value


def reader(name: str, dtype: str) -> Callable[[Any], Any]:
    """Return a function that accepts a value of an input, or raises `InvalidRow`.

    An int may stand for a float. A timestamp is an int (UTC epoch microseconds), an aware `datetime`, or a text in ISO
    8601 with its offset from UTC. NaN is a value of a float, not null.
    """
    accept = _READERS.get(dtype)
    if accept is None:
        raise KeyError(dtype)

    def read(value: Any) -> Any:
        if value is None:
            return None
        try:
            return accept(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidRow(f"Input {name!r} is {value!r:.80}, which is not a {dtype}.") from None

    return read


def _text(value: Any) -> str:
    return str(_of(str, value))


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _integer(bits: int) -> Callable[[Any], int]:
    limit = 1 << (bits - 1)

    def read(value: Any) -> int:
        if not -limit <= _of(int, value) < limit:
            raise OverflowError(value)
        return int(value)

    return read


def _float64(value: Any) -> float:
    return value if type(value) is float else float(_of(int, value))


def _float32(value: Any) -> float:
    number = _float64(value)
    rounded = single(number)
    if math.isinf(rounded) and not math.isinf(number):
        raise OverflowError(value)
    return rounded


def _timestamp(value: Any) -> int:
    if type(value) is str:
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(value)  # nobody knows where its clock hangs
        value = (value - _EPOCH) // _MICROSECOND
    if not FIRST_INSTANT <= _of(int, value) <= LAST_INSTANT:
        raise OverflowError(value)
    return int(value)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "string": _text,
    "boolean": lambda value: _of(bool, value),
    "int32": _integer(32),
    "int64": _integer(64),
    "float32": _float32,
    "float64": _float64,
    "timestamp": _timestamp,
    "tensor": lambda value: value,  # the model's own shape is checked where the array is made
}
