"""An expression with its types: every conversion written out, so that the two readings decide nothing themselves."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.expr.render import render
from mainspring.core.expr.tree import Call, Cast, Node, Scalar, TimePart
from mainspring.core.schema import DType

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
