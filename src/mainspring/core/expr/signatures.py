"""Signatures of functions: typed operations, and result types by the types of the arguments."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.expr.render import render
from mainspring.core.expr.tree import Call, Cast, Literal, Node, Scalar, TimePart
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT

INTEGERS = (DType.Int32, DType.Int64)
FLOATS = (DType.Float32, DType.Float64)


@dataclass(frozen=True, slots=True)
class Typed:
    """One operation with its type. Its arguments have exactly the types it needs.

    `operation` is `column` (`name`), `literal` (`value`), `cast`, `time_part` and `time_start` (`name` is the part), a
    tree's function name where one rule does for all types, or: int_add, int_sub, int_mul, int_neg, int_abs (of Int64
    and Duration), float_add, float_sub, float_mul, float_div, float_neg, float_abs, instant_add, instant_sub (a
    duration), instant_between (two instants), concat.
    """

    operation: str
    dtype: DType
    arguments: tuple[Typed, ...] = ()
    name: str = ""
    value: Scalar = None
    options: tuple[bool | int | float | str | None, ...] = ()  # of one_of, clip (low, high), slice (start, length)
    zone: str = ""


def widened(argument: Typed, dtype: DType) -> Typed:
    """Return the argument converted to a wider type; a constant is converted here."""
    if argument.dtype is dtype:
        return argument
    if argument.operation == "literal" and isinstance(argument.value, int | float):
        return Typed("literal", dtype, value=float(argument.value) if dtype in FLOATS else argument.value)
    return Typed("cast", dtype, (argument,))


def wrong(expr: Node, *arguments: Typed) -> Invalid:
    what = "cast" if isinstance(expr, Cast) else expr.part if isinstance(expr, TimePart) else "the function"
    if isinstance(expr, Call):
        what = expr.function
    types = " and ".join(repr(argument.dtype) for argument in arguments)
    target = f" to {expr.dtype!r}" if isinstance(expr, Cast) else ""
    return Invalid(f"{what} does not take {types}{target}, in {render(expr)}.", fix="convert with .cast(...) first.")


_BITS = {DType.Int32: 32, DType.Int64: 64, DType.Duration: 64}


def own_type(value: bool | int | float | str) -> DType:
    kinds = {bool: DType.Boolean, int: DType.Int64, float: DType.Float64, str: DType.String}
    return kinds[type(value)]


def fit(value: bool | int | float | str, dtype: DType) -> bool | int | float | str | None:
    """Return the value as a constant of the type, `None` where the type does not hold it exactly."""
    if isinstance(value, str):
        return value if dtype is DType.String and not _has_surrogate(value) else None
    if isinstance(value, bool):
        return value if dtype is DType.Boolean else None
    if dtype in (DType.Float32, DType.Float64):
        try:
            number = float(value)
            kept = struct.unpack("f", struct.pack("f", number))[0] if dtype is DType.Float32 else number
        except OverflowError:
            return None
        return number if math.isfinite(number) and kept == value else None
    if isinstance(value, float):
        return None
    if dtype is DType.Timestamp:
        return value if FIRST_INSTANT <= value <= LAST_INSTANT else None
    limit = 1 << (_BITS[dtype] - 1) if dtype in _BITS else 0
    return value if -limit <= value < limit else None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


# Functions with one rule: the argument types (arguments are widened to a float type) and the result type.
PLAIN: Mapping[str, tuple[tuple[DType, ...], DType]] = {
    "lower": ((DType.String,), DType.String),
    "upper": ((DType.String,), DType.String),
    "strip": ((DType.String,), DType.String),
    "replace": ((DType.String,) * 3, DType.String),
    "length": ((DType.String,), DType.Int32),
    "contains": ((DType.String,) * 2, DType.Boolean),
    "starts_with": ((DType.String,) * 2, DType.Boolean),
    "ends_with": ((DType.String,) * 2, DType.Boolean),
    "sqrt": ((DType.Float64,), DType.Float64),
    "log": ((DType.Float64,), DType.Float64),
    "exp": ((DType.Float64,), DType.Float64),
}


def typed_call(call: Call, resolved: Sequence[Typed]) -> Typed:
    """Return a function call whose arguments are resolved.

    Raises:
        Invalid: The function does not accept them.
    """
    function, dtypes = call.function, [argument.dtype for argument in resolved]
    if function == "is_null":
        return Typed("is_null", DType.Boolean, tuple(resolved))
    if function in ("and", "or", "not") and all(dtype is DType.Boolean for dtype in dtypes):
        return Typed(function, DType.Boolean, tuple(resolved))
    if function in PLAIN:
        return _plain(call, resolved)
    if function == "is_nan" and dtypes[0] in FLOATS:
        return Typed(function, DType.Boolean, tuple(resolved))
    if function in ("floor", "ceil", "round") and dtypes[0].numeric:
        return Typed(function, dtypes[0], tuple(resolved)) if dtypes[0] in FLOATS else resolved[0]
    if function == "add" and dtypes == [DType.String, DType.String]:
        return Typed("concat", DType.String, tuple(resolved))
    if function in ("eq", "ne", "lt", "le", "gt", "ge"):
        return Typed(function, DType.Boolean, alike(call, *resolved))
    if function in ("neg", "abs") and (dtypes[0].numeric or dtypes[0] is DType.Duration):
        return _sign(function, resolved[0])
    if function in ("add", "sub", "mul", "div"):
        return _arithmetic(call, *resolved)
    raise wrong(call, *resolved)


def alike(call: Call, left: Typed, right: Typed) -> tuple[Typed, Typed]:
    """Return both sides of a comparison in one type."""
    if left.dtype is right.dtype:
        return left, right
    if not (left.dtype.numeric and right.dtype.numeric):
        raise wrong(call, left, right)
    wide = DType.Int64 if left.dtype in INTEGERS and right.dtype in INTEGERS else DType.Float64
    return widened(left, wide), widened(right, wide)


def _sign(function: str, argument: Typed) -> Typed:
    if argument.dtype in FLOATS:
        return Typed(f"float_{function}", argument.dtype, (argument,))
    wide = DType.Duration if argument.dtype is DType.Duration else DType.Int64
    return Typed(f"int_{function}", wide, (widened(argument, wide),))


def _arithmetic(call: Call, left: Typed, right: Typed) -> Typed:
    function, dtypes = call.function, (left.dtype, right.dtype)
    if left.dtype.numeric and right.dtype.numeric:
        wide = DType.Float64
        if function != "div" and left.dtype in INTEGERS and right.dtype in INTEGERS:
            wide = DType.Int64
        kind = "int" if wide is DType.Int64 else "float"
        return Typed(f"{kind}_{function}", wide, (widened(left, wide), widened(right, wide)))
    time, duration = DType.Timestamp, DType.Duration
    if function in ("add", "sub") and dtypes == (duration, duration):
        return Typed(f"int_{function}", duration, (left, right))
    if function in ("add", "sub") and dtypes == (time, duration):
        return Typed(f"instant_{function}", time, (left, right))
    if function == "add" and dtypes == (duration, time):
        return Typed("instant_add", time, (right, left))
    if function == "sub" and dtypes == (time, time):
        return Typed("instant_between", duration, (left, right))
    if function == "div" and dtypes == (duration, duration):
        return Typed("float_div", DType.Float64, (widened(left, DType.Float64), widened(right, DType.Float64)))
    if function == "mul" and left.dtype is duration and right.dtype in INTEGERS:
        return Typed("int_mul", duration, (left, widened(right, DType.Int64)))
    if function == "mul" and right.dtype is duration and left.dtype in INTEGERS:
        return Typed("int_mul", duration, (widened(left, DType.Int64), right))
    raise wrong(call, left, right)


def _plain(call: Call, resolved: Sequence[Typed]) -> Typed:
    taken, given = PLAIN[call.function]
    for argument, dtype in zip(resolved, taken, strict=True):
        if not (argument.dtype is dtype or (dtype in FLOATS and argument.dtype.numeric)):
            raise wrong(call, *resolved)
    arguments = tuple(widened(argument, dtype) for argument, dtype in zip(resolved, taken, strict=True))
    return Typed(call.function, given, arguments)


def with_constants(call: Call, value: Typed) -> Typed:
    """Return `clip` or `slice` of a value; all arguments but the first are plain constants.

    Raises:
        Invalid: An argument is not a constant, or the value has another type.
    """
    constants = [node.value for node in call.arguments[1:] if isinstance(node, Literal)]
    if len(constants) != len(call.arguments) - 1:
        raise Invalid(
            f"{render(call)} depends on a value that is not constant.", fix="use when(...), or plain numbers."
        )
    return _slice(call, value, constants) if call.function == "slice" else _clip(call, value, constants)


def _slice(call: Call, value: Typed, constants: Sequence[Scalar]) -> Typed:
    if value.dtype is not DType.String:
        raise wrong(call, value)
    if len(constants) not in (1, 2) or not all(type(n) is int and 0 <= n < 1 << 31 for n in constants):
        raise Invalid(f"{render(call)} must be cut at whole numbers from 0.", fix="use slice(start, length).")
    return Typed("slice", DType.String, (value,), options=(*constants, None)[:2])


def _clip(call: Call, value: Typed, constants: Sequence[Scalar]) -> Typed:
    """Return the clipped value; a bound that its type cannot represent makes it a Float64."""
    if not value.dtype.numeric:
        raise wrong(call, value)
    for argument in (value, widened(value, DType.Float64)):
        bounds = [None if bound is None else fit(bound, argument.dtype) for bound in constants]
        if len(bounds) == 2 and [bound is None for bound in bounds] == [bound is None for bound in constants]:
            low, high = bounds
            if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
                raise Invalid(f"{render(call)} has its bounds in the wrong order.", fix="put the lower one first.")
            return Typed("clip", argument.dtype, (argument,), options=(low, high))
    raise Invalid(f"{render(call)} has a bound that is not a number.", fix="clip between two numbers.")
