"""Hostile values, and random expressions over them, for the tests that compare the two readings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from mainspring.core.expr import Node, as_expr, col, greatest, least, when
from mainspring.core.expr.tree import Literal
from mainspring.core.expr.types import TIME_PARTS, TIME_STARTS
from mainspring.core.schema import DType, Schema
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT

SCHEMA: Schema = {
    "x": DType.Float32,
    "y": DType.Float64,
    "z": DType.Float64,
    "i": DType.Int32,
    "h": DType.Int32,
    "j": DType.Int64,
    "k": DType.Int64,
    "s": DType.String,
    'u"v': DType.String,
    "b": DType.Boolean,
    "c": DType.Boolean,
    "t": DType.Timestamp,
    "w": DType.Timestamp,
}
NUMBERS = (DType.Float32, DType.Float64, DType.Int32, DType.Int64)
COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
ARITHMETIC = ("__add__", "__sub__", "__mul__", "__truediv__")
WHOLES = ("floor", "ceil", "round")
CURVES = ("sqrt", "log", "exp")
PARTS_OF_TEXT = ("contains", "starts_with", "ends_with")
UNITS = tuple(start.removeprefix("start_of_") for start in TIME_STARTS)
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Apia")

_NAN, _INF = math.nan, math.inf
_FOLD, _GAP = 1383458400_000000, 1362898800_000000  # New York 2013: clocks back at 06:00 UTC, forward at 07:00 UTC

HOSTILE: dict[DType, list[Any]] = {
    DType.Float32: [
        0.0, -0.0, 1.0, -1.5, 2.5, 3.5, _NAN, _INF, -_INF, 1.401298464324817e-45, 3.4028234663852886e38, 2.0**24,
        2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 0.10000000149011612,
    ],
    DType.Float64: [
        0.0, -0.0, 1.0, -1.5, 2.5, -2.5, 0.1, _NAN, _INF, -_INF, 5e-324, 1.7976931348623157e308, 2.0**53, 2.0**31,
        2147483647.9, -2147483648.9, 2.0**63, -(2.0**63), 9223372036854774784.0, 3.4028235677973362e38,
        3.4028235677973366e38, 1e-46, 0.3, 9007199254740994.0,
    ],
    DType.Int32: [0, 1, -1, 2, 7, -7, 2**31 - 1, -(2**31), 46341, -46341],
    DType.Int64: [
        0, 1, -1, 3, -7, 2**63 - 1, -(2**63), 2**53, 2**53 + 1, -(2**53) - 1, 2**31, -(2**31) - 1, 3037000500,
        -3037000500, 3037000499, 9007199791611905, 2**62, FIRST_INSTANT, FIRST_INSTANT - 1, LAST_INSTANT,
    ],
    DType.String: [
        "", " ", "0", "-1", "+7", "100", "-0050", "1.5", "-.5", "5.", ".", "1e5", "1E+5", "1e400", "-1e-400",
        "4.9e-324", "e5", "1_000", " 5", "5\n", "5\0", "nan", "inf", "-Infinity", "0x1F", "٣", "１", "--5", "+-5",
        "2147483648", "-2147483648", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
        "0" * 40 + "5", "-0", "9" * 400, "1" + "0" * 25, "3.4028235677973366e38", "1.7976931348623159e308", "0.1",
        "123456789012345678901234567890.5", "TRUE", "false", "True ", "t", "yes", "fal\u017fe", "A", "a", "Z", "é",
        "É", "İ", "ß", "\u212a", "🤦🏼\u200d♂️", "e\u0301", "a\0b", "'", "''", '"', "\\", "%", "{0}", "--",
        "\U0010ffff", "\uffff", "\x7f", "\t",
    ],
    DType.Boolean: [True, False],
    DType.Timestamp: [
        0, -1, 1, FIRST_INSTANT, LAST_INSTANT, _FOLD - 1, _FOLD, _FOLD + 1, _FOLD - 3600_000000, _GAP - 1, _GAP,
        -2208988800_000000, 3155760000_000000, 951782399_999999, 1325239200_000000, 1325239199_999999,
        1785000000_000000,
    ],
    DType.Duration: [0, 1, -1, 3600_000000, -86400_000000, 2**63 - 1, -(2**63), 2**53 + 1],
}  # fmt: skip
POOLS: dict[DType, st.SearchStrategy[Any]] = {
    DType.Float32: st.sampled_from(HOSTILE[DType.Float32]) | st.floats(width=32),
    DType.Float64: st.sampled_from(HOSTILE[DType.Float64]) | st.floats(),
    DType.Int32: st.sampled_from(HOSTILE[DType.Int32]) | st.integers(-(2**31), 2**31 - 1),
    DType.Int64: st.sampled_from(HOSTILE[DType.Int64]) | st.integers(-(2**63), 2**63 - 1),
    DType.String: st.sampled_from(HOSTILE[DType.String])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    DType.Boolean: st.booleans(),
    DType.Timestamp: st.sampled_from(HOSTILE[DType.Timestamp]) | st.integers(FIRST_INSTANT, LAST_INSTANT),
    DType.Duration: st.sampled_from(HOSTILE[DType.Duration]) | st.integers(-(2**63), 2**63 - 1),
}
_NULLABLE = {dtype: st.one_of(pool, pool, st.none()) for dtype, pool in POOLS.items()}


def constant(value: Any) -> bool:
    """Whether a value can stand in an expression."""
    return not isinstance(value, float) or math.isfinite(value)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Columns of `SCHEMA`, one to six rows."""
    number = draw(st.integers(1, 6))
    return {name: [draw(_NULLABLE[dtype]) for _ in range(number)] for name, dtype in SCHEMA.items()}


class _Grower:
    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def leaf(self, dtype: DType) -> Node:
        names = [name for name, kind in SCHEMA.items() if kind is dtype]
        if names and self._draw(st.integers(0, 3)):
            return col(self.pick(names))
        return Literal(self._draw(POOLS[dtype].filter(constant)), dtype)

    def grow(self, dtype: DType, depth: int) -> Node:
        if depth == 0 or self._draw(st.integers(0, 5)) == 0:
            return self.leaf(dtype)
        ways = _WAYS[dtype] if self._draw(st.integers(0, 4)) else _ANY_TYPE
        return as_expr(self.pick(ways)(self, dtype, lambda *of: self.grow(self.pick(of), depth - 1)))

    def constants(self, dtype: DType) -> list[Any]:
        return self._draw(st.lists(POOLS[dtype].filter(constant), max_size=30))


Way = Callable[[_Grower, DType, Callable[..., Node]], Any]


def _compared(grower: _Grower, _: DType, sub: Callable[..., Node]) -> Any:
    kind = grower.pick(list(DType))
    kinds = NUMBERS if kind.numeric else (kind,)
    return getattr(sub(*kinds), grower.pick(COMPARISONS))(sub(*kinds))


def _one_of(grower: _Grower, _: DType, sub: Callable[..., Node]) -> Any:
    kind = grower.pick([*NUMBERS, DType.String, DType.Boolean])
    return sub(kind).one_of(grower.constants(grower.pick([DType.Float64, DType.Int64]) if kind.numeric else kind))


def _clip(grower: _Grower, dtype: DType, sub: Callable[..., Node]) -> Any:
    bounds = sorted(grower.constants(dtype)[:2])
    low, high = (None, *bounds)[-2:] if bounds else (None, None)
    return sub(dtype).clip(low, high)


def _slice(grower: _Grower, dtype: DType, sub: Callable[..., Node]) -> Any:
    return sub(dtype).slice(grower.pick([0, 1, 3, 99]), grower.pick([None, 0, 1, 2, 2**31 - 1]))


_ANY_TYPE: list[Way] = [
    lambda grower, dtype, sub: least(sub(dtype), sub(dtype)),
    lambda grower, dtype, sub: greatest(sub(dtype), sub(dtype), sub(dtype)),
    lambda grower, dtype, sub: when(sub(DType.Boolean), sub(dtype), sub(dtype)),
    lambda grower, dtype, sub: when(sub(DType.Boolean), sub(dtype)),
    lambda grower, dtype, sub: sub(dtype).coalesce(sub(dtype)),
]
_WAYS: dict[DType, list[Way]] = {
    DType.Boolean: [
        _compared,
        _compared,
        _one_of,
        lambda grower, dtype, sub: sub(*DType).is_null(),
        lambda grower, dtype, sub: sub(DType.Float32, DType.Float64).is_nan(),
        lambda grower, dtype, sub: getattr(sub(DType.String), grower.pick(PARTS_OF_TEXT))(sub(DType.String)),
        lambda grower, dtype, sub: ~sub(dtype),
        lambda grower, dtype, sub: sub(dtype) & sub(dtype),
        lambda grower, dtype, sub: sub(dtype) | sub(dtype),
        lambda grower, dtype, sub: sub(*NUMBERS, DType.String).cast(dtype),
    ],
    DType.String: [
        lambda grower, dtype, sub: sub(dtype).lower(),
        lambda grower, dtype, sub: sub(dtype).upper(),
        lambda grower, dtype, sub: sub(DType.Int32, DType.Int64, DType.Boolean).cast(dtype),
        lambda grower, dtype, sub: sub(dtype).strip(),
        lambda grower, dtype, sub: sub(dtype) + sub(dtype),
        lambda grower, dtype, sub: sub(dtype).replace(sub(dtype), sub(dtype)),
        _slice,
    ],
    DType.Timestamp: [
        lambda grower, dtype, sub: sub(dtype) + sub(DType.Duration),
        lambda grower, dtype, sub: sub(dtype) - sub(DType.Duration),
        lambda grower, dtype, sub: sub(DType.Duration) + sub(dtype),
        lambda grower, dtype, sub: sub(dtype).start_of(grower.pick(UNITS), grower.pick(ZONES)),
        lambda grower, dtype, sub: sub(DType.Int64).cast(dtype),
    ],
    DType.Duration: [
        lambda grower, dtype, sub: sub(DType.Timestamp) - sub(DType.Timestamp),
        lambda grower, dtype, sub: sub(dtype) + sub(dtype),
        lambda grower, dtype, sub: sub(dtype) - sub(dtype),
        lambda grower, dtype, sub: sub(dtype) * sub(DType.Int32, DType.Int64),
        lambda grower, dtype, sub: -sub(dtype),
        lambda grower, dtype, sub: abs(sub(dtype)),
        lambda grower, dtype, sub: sub(DType.Int64).cast(dtype),
    ],
    DType.Int32: [
        lambda grower, dtype, sub: getattr(sub(DType.Timestamp), grower.pick(TIME_PARTS))(grower.pick(ZONES)),
        lambda grower, dtype, sub: sub(DType.String).length(),
        lambda grower, dtype, sub: getattr(sub(dtype), grower.pick(WHOLES))(),
        _clip,
        lambda grower, dtype, sub: sub(*NUMBERS, DType.String, DType.Boolean).cast(dtype),
    ],
    DType.Int64: [
        lambda grower, dtype, sub: getattr(sub(dtype), grower.pick(ARITHMETIC[:3]))(sub(DType.Int32, dtype)),
        lambda grower, dtype, sub: -sub(dtype, DType.Int32),
        _clip,
        lambda grower, dtype, sub: abs(sub(dtype, DType.Int32)),
        lambda grower, dtype, sub: sub(*(kind for kind in DType if kind is not dtype)).cast(dtype),
    ],
    DType.Float32: [
        lambda grower, dtype, sub: -sub(dtype),
        lambda grower, dtype, sub: getattr(sub(dtype), grower.pick(WHOLES))(),
        _clip,
        lambda grower, dtype, sub: abs(sub(dtype)),
        lambda grower, dtype, sub: sub(*NUMBERS, DType.String, DType.Boolean).cast(dtype),
    ],
    DType.Float64: [
        lambda grower, dtype, sub: getattr(sub(dtype), grower.pick(ARITHMETIC))(sub(*NUMBERS)),
        lambda grower, dtype, sub: sub(DType.Int32, DType.Int64) / sub(*NUMBERS),
        lambda grower, dtype, sub: sub(DType.Duration) / sub(DType.Duration),
        lambda grower, dtype, sub: getattr(sub(dtype), grower.pick(WHOLES))(),
        lambda grower, dtype, sub: getattr(sub(*NUMBERS), grower.pick(CURVES))(),
        _clip,
        lambda grower, dtype, sub: -sub(dtype),
        lambda grower, dtype, sub: abs(sub(dtype)),
        lambda grower, dtype, sub: sub(*NUMBERS, DType.String, DType.Boolean, DType.Duration).cast(dtype),
    ],
}


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4) -> Node:
    """An expression of any type, at most `depth` functions deep."""
    grower = _Grower(draw)
    return grower.grow(grower.pick(list(DType)), depth)
