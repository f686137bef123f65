"""Expressions: one tree, read twice (SQL offline, NumPy online)."""

from mainspring.core.expr.tree import (
    Call,
    Cast,
    Column,
    Expr,
    Literal,
    Node,
    TimePart,
    as_expr,
    col,
    days,
    hours,
    microseconds,
    minutes,
    seconds,
    when,
)

__all__ = [
    "Call",
    "Cast",
    "Column",
    "Expr",
    "Literal",
    "Node",
    "TimePart",
    "as_expr",
    "col",
    "days",
    "hours",
    "microseconds",
    "minutes",
    "seconds",
    "when",
]
