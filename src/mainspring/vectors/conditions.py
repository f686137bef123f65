"""Filters in the form that other engines read: comparisons of one field with constants, all, some and none of them.

A condition is either fulfilled or not: that null is neither true nor false is resolved here. NaN is a value, which no
range contains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import Node
from mainspring.core.expr.types import Typed, resolve
from mainspring.core.schema import DType, Schema

_FLOATS = (DType.Float32, DType.Float64)
_INTEGERS = (DType.Int32, DType.Int64, DType.Timestamp)
_WIDENED = {DType.Int64: (DType.Int32, DType.Timestamp), DType.Float64: (DType.Int32, DType.Int64, DType.Float32)}
_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
_END = 1 << 63


@dataclass(frozen=True, slots=True)
class Between:
    """A field's value lies between two; one of text may have no end. With `negated`, it has a value that does not.

    Attributes:
        low, high: `None` for no end, which only texts have.
        low_in, high_in: Whether the ends belong to it; of integers always.
    """

    field: str
    low: Any = None
    high: Any = None
    low_in: bool = True
    high_in: bool = True
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Among:
    """A field's value is one of several. With `negated`, it has a value that is none of them."""

    field: str
    values: tuple[Any, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Null:
    """A field is null. With `negated`, it has a value."""

    field: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Every:
    """All parts are fulfilled; without parts it always is."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """A part is fulfilled; without parts it never is."""

    parts: tuple[Condition, ...]


Condition = Between | Among | Null | Every | Some


def condition(where: Node, fields: Schema) -> Condition:
    """Return what a row has to fulfil so that a filter is true.

    Raises:
        Invalid: The filter is no condition on the fields, or does more than compare a field with constants.
    """
    typed = resolve(where, fields)
    if typed.dtype is not DType.Boolean:
        raise Invalid(f"A filter of an index is {typed.dtype!r}, not Boolean.", fix="write a comparison.")
    try:
        return _condition(typed, True)
    except RecursionError:
        raise Invalid("A filter is nested too deeply.", fix="list values with one_of().") from None


def _condition(node: Typed, wanted: bool) -> Condition:
    """Return what a row has to fulfil so that a node is true, or false if not `wanted`."""
    operation, arguments = node.operation, node.arguments
    if operation == "not":
        return _condition(arguments[0], not wanted)
    if operation in ("and", "or"):
        parts = tuple(_condition(each, wanted) for each in arguments)
        return Every(parts) if (operation == "and") is wanted else Some(parts)
    if operation == "literal":
        return Every(()) if node.value is wanted else Some(())
    if operation == "column":
        return Among(node.name, (wanted,))
    if operation == "is_null":
        return Null(_field(arguments[0], operation), not wanted)
    if operation == "is_nan":
        return Between(_field(arguments[0], operation), -math.inf, math.inf, negated=wanted)
    if operation == "one_of":
        return _one_of(node, wanted)
    if operation in _MIRRORED:
        left, right = arguments
        if left.operation == "literal":
            operation, left, right = _MIRRORED[operation], right, left
        if right.operation != "literal":
            raise _refused("a comparison of two fields")
        if right.value is None:
            return Some(())
        return _compared(operation, left, right.value, wanted)
    raise _refused(operation)


def _one_of(node: Typed, wanted: bool) -> Condition:
    (value,) = node.arguments
    if value.operation == "cast":
        parts = tuple(_compared("eq", value, option, wanted) for option in node.options)
        if wanted:
            return Some(parts)
        return Every(parts) if parts else Null(_field(value, "one_of"), True)
    return Among(_field(value, "one_of"), tuple(map(_unsigned, node.options)), not wanted)


def _compared(operation: str, value: Typed, constant: Any, wanted: bool) -> Condition:
    field, constant = _field(value, operation), _unsigned(constant)
    if operation == "ne":
        operation, wanted = "eq", not wanted
    source = _narrow(value).dtype
    if source in _INTEGERS:
        # An integer beside a float is rounded to a float, so the ends are sought among rounded integers.
        number = float if isinstance(constant, float) else int
        first, above = _first(lambda each: number(each) >= constant), _first(lambda each: number(each) > constant)
        low, high = {
            "eq": (first, above), "lt": (-_END, first), "le": (-_END, above), "gt": (above, _END), "ge": (first, _END)
        }[operation]  # fmt: skip
        if low >= high:
            return Null(field, True) if not wanted else Some(())
        return Between(field, low, high - 1, negated=not wanted)
    if operation == "eq":
        return Among(field, (constant,), not wanted)
    end = math.inf if source in _FLOATS else None
    if operation in ("gt", "ge"):
        return Between(field, constant, end, low_in=operation == "ge", negated=not wanted)
    return Between(field, None if end is None else -end, constant, high_in=operation == "le", negated=not wanted)


def _unsigned(constant: Any) -> Any:
    """Return a constant, 0.0 for -0.0, which equals it."""
    return constant + 0.0 if isinstance(constant, float) else constant


def _first(holds: Callable[[int], bool]) -> int:
    """Return the smallest integer of 64 bits for which a condition holds, which holds for all above it."""
    low, high = -_END, _END
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _field(node: Typed, operation: str) -> str:
    """Return the name of a column."""
    node = _narrow(node)
    if node.operation != "column":
        raise _refused(operation if node.operation == "literal" else node.operation)
    return node.name


def _narrow(node: Typed) -> Typed:
    """Return a number as it was before it was widened, which changes no comparison but by rounding to a float."""
    while node.operation == "cast" and node.arguments[0].dtype in _WIDENED.get(node.dtype, ()):
        (node,) = node.arguments
    return node


def _refused(what: str) -> Invalid:
    return Invalid(
        f"This index cannot filter by {what!r}.",
        fix="compare a field with a constant by == != < <= > >= one_of() is_null(), joined by & | ~.",
    )
