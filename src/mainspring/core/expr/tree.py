"""The expression tree of a feature, a filter or a check over a row, and the functions that build one.

A tree is data. `core.expr.sql` compiles it for the offline read, `core.expr.evaluate` computes it online, and both give
the same value for every input (tests/property). A bundle contains its JSON, so serving needs none of the project's
code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import reduce
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR, MICROSECOND, MINUTE, SECOND, from_datetime

Scalar = bool | int | float | str | None


class Operators:
    """Operators on a value of a row. They build larger expressions; nothing is computed yet.

    Null in gives null out, except for `is_null`, `coalesce`, `when`, and Kleene's `and` and `or`. NaN is a value, not
    null; comparisons follow IEEE 754. Division is of floats; division by zero is null.
    """

    __slots__ = ()

    def __add__(self, other: Any) -> Call:
        return _call("add", self, other)

    def __radd__(self, other: Any) -> Call:
        return _call("add", other, self)

    def __sub__(self, other: Any) -> Call:
        return _call("sub", self, other)

    def __rsub__(self, other: Any) -> Call:
        return _call("sub", other, self)

    def __mul__(self, other: Any) -> Call:
        return _call("mul", self, other)

    def __rmul__(self, other: Any) -> Call:
        return _call("mul", other, self)

    def __truediv__(self, other: Any) -> Call:
        return _call("div", self, other)

    def __rtruediv__(self, other: Any) -> Call:
        return _call("div", other, self)

    def __neg__(self) -> Call:
        return _call("neg", self)

    def __abs__(self) -> Call:
        return _call("abs", self)

    def __eq__(self, other: object) -> Call:  # type: ignore[override]
        return _call("eq", self, other)

    def __ne__(self, other: object) -> Call:  # type: ignore[override]
        return _call("ne", self, other)

    def __lt__(self, other: Any) -> Call:
        return _call("lt", self, other)

    def __le__(self, other: Any) -> Call:
        return _call("le", self, other)

    def __gt__(self, other: Any) -> Call:
        return _call("gt", self, other)

    def __ge__(self, other: Any) -> Call:
        return _call("ge", self, other)

    def __and__(self, other: Any) -> Call:
        return _call("and", self, other)

    def __or__(self, other: Any) -> Call:
        return _call("or", self, other)

    def __invert__(self) -> Call:
        return _call("not", self)

    def __bool__(self) -> bool:
        raise Invalid("An expression has no truth value.", fix="combine conditions with & | ~, not and/or/not.")

    __hash__ = None  # type: ignore[assignment]

    def is_null(self) -> Call:
        """True where the value is null; never null itself."""
        return _call("is_null", self)

    def coalesce(self, other: Any) -> Call:
        """This value, or `other` where it is null."""
        return _call("coalesce", self, other)

    def one_of(self, values: Sequence[Scalar | datetime]) -> Call:
        """True where the value equals one of `values`."""
        return _call("one_of", self, *values)

    def is_nan(self) -> Call:
        """True where a float is NaN."""
        return _call("is_nan", self)

    def clip(self, low: float | None = None, high: float | None = None) -> Call:
        """`low` where a number is below it, `high` where it is above; NaN stays."""
        return _call("clip", self, low, high)

    def floor(self) -> Call:
        """The largest whole number that is not above; of the number's own type."""
        return _call("floor", self)

    def ceil(self) -> Call:
        """The smallest whole number that is not below; of the number's own type."""
        return _call("ceil", self)

    def round(self) -> Call:
        """The nearest whole number, halves to the even one; of the number's own type."""
        return _call("round", self)

    def sqrt(self) -> Call:
        """The square root; of a negative number null."""
        return _call("sqrt", self)

    def log(self) -> Call:
        """The natural logarithm; of what is not above 0 null."""
        return _call("log", self)

    def exp(self) -> Call:
        """e to the power of the number; too large is infinite."""
        return _call("exp", self)

    def cast(self, dtype: DType) -> Cast:
        """The value as another type; null where it does not fit."""
        return Cast(as_expr(self), dtype)

    def lower(self) -> Call:
        """The string in lower case (ASCII letters only, so that every engine agrees)."""
        return _call("lower", self)

    def upper(self) -> Call:
        """The string in upper case (ASCII letters only)."""
        return _call("upper", self)

    def length(self) -> Call:
        """The string's length in Unicode code points."""
        return _call("length", self)

    def contains(self, part: Any) -> Call:
        """True where the string has `part` in it."""
        return _call("contains", self, part)

    def starts_with(self, part: Any) -> Call:
        """True where the string begins with `part`."""
        return _call("starts_with", self, part)

    def ends_with(self, part: Any) -> Call:
        """True where the string ends with `part`."""
        return _call("ends_with", self, part)

    def strip(self) -> Call:
        """The string without the white space of ASCII at both ends."""
        return _call("strip", self)

    def slice(self, start: int, length: int | None = None) -> Call:
        """The string from its code point `start` on, counted from 0; at most `length` code points of it."""
        return _call("slice", self, start, *([] if length is None else [length]))

    def replace(self, old: Any, new: Any) -> Call:
        """The string with `new` in place of every `old`; an empty `old` is nowhere."""
        return _call("replace", self, old, new)

    def year(self, zone: str = "UTC") -> TimePart:
        """The year, on a wall clock in `zone` (an IANA name)."""
        return TimePart(as_expr(self), "year", zone)

    def month(self, zone: str = "UTC") -> TimePart:
        """The month, 1 to 12, in `zone`."""
        return TimePart(as_expr(self), "month", zone)

    def day(self, zone: str = "UTC") -> TimePart:
        """The day of the month, 1 to 31, in `zone`."""
        return TimePart(as_expr(self), "day", zone)

    def hour(self, zone: str = "UTC") -> TimePart:
        """The hour of the day, 0 to 23, on a wall clock in `zone` (an IANA name)."""
        return TimePart(as_expr(self), "hour", zone)

    def minute(self, zone: str = "UTC") -> TimePart:
        """The minute of the hour, 0 to 59, on a wall clock in `zone`."""
        return TimePart(as_expr(self), "minute", zone)

    def weekday(self, zone: str = "UTC") -> TimePart:
        """The day of the week, Monday 1 to Sunday 7 (ISO 8601), in `zone`."""
        return TimePart(as_expr(self), "weekday", zone)

    def second(self, zone: str = "UTC") -> TimePart:
        """The second of the minute, 0 to 59, in `zone`. There are no leap seconds, as in POSIX time."""
        return TimePart(as_expr(self), "second", zone)

    def start_of(self, unit: str, zone: str = "UTC") -> TimePart:
        """The instant at which its hour, day, week (a Monday) or month began on a wall clock in `zone`.

        Where the clocks were put on or back in between, the start is read on the clock as it was then.
        """
        return TimePart(as_expr(self), f"start_of_{unit}", zone)


class Expr(Operators, msgspec.Struct, frozen=True, eq=False):
    """A value computed from one row's columns."""


class Column(Expr, frozen=True, eq=False, tag="column"):
    """A column of the row."""

    name: str


class Literal(Expr, frozen=True, eq=False, tag="literal"):
    """A constant. `dtype` is given if Python's type does not determine it (a duration, an instant)."""

    value: Scalar
    dtype: DType | None = None


class Call(Expr, frozen=True, eq=False, tag="call"):
    """A function of other expressions. The names and their rules are in `core.expr.types`."""

    function: str
    arguments: tuple[Node, ...]


class Cast(Expr, frozen=True, eq=False, tag="cast"):
    """A change of type."""

    argument: Node
    dtype: DType


class TimePart(Expr, frozen=True, eq=False, tag="time_part"):
    """A field of an instant as a wall clock in `zone` shows it."""

    argument: Node
    part: str
    zone: str


class Unnamed(Expr, frozen=True, eq=False, tag="unnamed"):
    """A value without a name yet, such as an aggregation in a class body; `rewrite` replaces it."""

    value: Any


Node = Column | Literal | Call | Cast | TimePart | Unnamed


def _call(function: str, *arguments: Any) -> Call:
    return Call(function, tuple(as_expr(argument) for argument in arguments))


def as_expr(value: Any) -> Node:
    """Return `value` if it is an expression, else a literal.

    Raises:
        Invalid: It is neither an expression nor a bool, int, finite float, str, aware datetime or None.
    """
    if isinstance(value, (Column, Literal, Call, Cast, TimePart, Unnamed)):
        return value
    if isinstance(value, Operators):
        return Unnamed(value)
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no such number
        raise Invalid(f"The constant {value!r} cannot be used in an expression.", fix="compare with a finite number.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return Literal(value)
    if isinstance(value, datetime):
        return Literal(from_datetime(value), DType.Timestamp)
    raise Invalid(
        f"{value!r} of type {type(value).__name__} cannot be used in an expression.", fix="use a plain value."
    )


def rewrite(expr: Node, leaf: Callable[[Column | Unnamed], Node]) -> Node:
    """Return the expression with every column and unnamed value replaced by `leaf` of it."""
    if isinstance(expr, (Column, Unnamed)):
        return leaf(expr)
    if isinstance(expr, Call):
        return Call(expr.function, tuple(rewrite(argument, leaf) for argument in expr.arguments))
    if isinstance(expr, Cast):
        return Cast(rewrite(expr.argument, leaf), expr.dtype)
    if isinstance(expr, TimePart):
        return TimePart(rewrite(expr.argument, leaf), expr.part, expr.zone)
    return expr


def col(name: str) -> Column:
    """The column `name` of the row."""
    return Column(name)


def when(condition: Operators, then: Any, otherwise: Any = None) -> Call:
    """`then` where `condition` is true, `otherwise` where it is false or null."""
    return Call("when", (as_expr(condition), as_expr(then), as_expr(otherwise)))


def least(first: Any, *others: Any) -> Node:
    """The smallest of several values, nulls left out; NaN is above every number, and -0.0 is 0.0."""
    return reduce(lambda left, right: Call("least", (left, as_expr(right))), others, as_expr(first))


def greatest(first: Any, *others: Any) -> Node:
    """The largest of several values, nulls left out; NaN is above every number, and -0.0 is 0.0."""
    return reduce(lambda left, right: Call("greatest", (left, as_expr(right))), others, as_expr(first))


def days(number: int) -> Literal:
    """The duration of `number` days."""
    return Literal(number * DAY, DType.Duration)


def hours(number: int) -> Literal:
    """The duration of `number` hours."""
    return Literal(number * HOUR, DType.Duration)


def minutes(number: int) -> Literal:
    """The duration of `number` minutes."""
    return Literal(number * MINUTE, DType.Duration)


def seconds(number: int) -> Literal:
    """The duration of `number` seconds."""
    return Literal(number * SECOND, DType.Duration)


def microseconds(number: int) -> Literal:
    return Literal(number * MICROSECOND, DType.Duration)
