"""An expression as a person would write it, for messages."""

from __future__ import annotations

from mainspring.core.expr.tree import Call, Cast, Column, Literal, Node, TimePart, Unnamed
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT, format_duration, format_instant

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "and": "&", "or": "|",
}  # fmt: skip
_PREFIX = {"neg": "-", "not": "~"}
_LONGEST = 120


def render(expr: Node) -> str:
    """Return the expression as Python text, cut at 120 characters."""
    text = _render(expr, depth=0)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _render(expr: Node, depth: int) -> str:
    if depth > 8:
        return "..."
    if isinstance(expr, Column):
        return f"col({expr.name!r})"
    if isinstance(expr, Unnamed):
        return f"<{expr.value}>"
    if isinstance(expr, Literal):
        if expr.dtype is DType.Duration and isinstance(expr.value, int):
            return format_duration(expr.value)
        if (
            expr.dtype is DType.Timestamp
            and isinstance(expr.value, int)
            and FIRST_INSTANT <= expr.value <= LAST_INSTANT
        ):
            return format_instant(expr.value)
        return repr(expr.value)
    if isinstance(expr, Cast):
        return f"{_render(expr.argument, depth + 1)}.cast({expr.dtype!r})"
    if isinstance(expr, TimePart):
        return f"{_render(expr.argument, depth + 1)}.{expr.part}({expr.zone!r})"
    return _render_call(expr, [_render(argument, depth + 1) for argument in expr.arguments])


def _render_call(call: Call, arguments: list[str]) -> str:
    if call.function in _INFIX and len(arguments) == 2:
        return f"({arguments[0]} {_INFIX[call.function]} {arguments[1]})"
    if call.function in _PREFIX and len(arguments) == 1:
        return f"{_PREFIX[call.function]}{arguments[0]}"
    return f"{call.function}({', '.join(arguments)})"
