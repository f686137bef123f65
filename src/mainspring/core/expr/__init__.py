"""Expressions: one tree, read twice (SQL offline, NumPy online)."""

from mainspring.core.expr.building import (
    col,
    days,
    greatest,
    hours,
    least,
    microseconds,
    minutes,
    rewrite,
    seconds,
    when,
)
from mainspring.core.expr.tree import (
    Call,
    Cast,
    Column,
    Expr,
    Literal,
    Node,
    Operators,
    TimePart,
    Unnamed,
    as_expr,
)

__all__ = [
    "Call",
    "Cast",
    "Column",
    "Expr",
    "Literal",
    "Node",
    "Operators",
    "TimePart",
    "Unnamed",
    "as_expr",
    "col",
    "days",
    "greatest",
    "hours",
    "least",
    "microseconds",
    "minutes",
    "rewrite",
    "seconds",
    "when",
]
