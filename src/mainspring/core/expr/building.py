"""Expressions made without an operator: columns, choices, durations; and trees made from other trees."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from mainspring.core.expr.tree import Call, Cast, Column, Literal, Node, Operators, TimePart, Unnamed, as_expr
from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR, MICROSECOND, MINUTE, SECOND


def rewrite(expr: Node, leaf: Callable[[Column | Unnamed], Node]) -> Node:
    """Return the expression with `leaf` of every column and of everything unnamed in its place."""
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
