"""The online reading of an expression: NumPy over a batch of rows. The rules are those of `types`.

An expression is compiled once to a chain of functions and kept, so that a small batch costs microseconds a node.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.core.expr import operations as ops
from mainspring.core.expr import texts
from mainspring.core.expr.casts import cast
from mainspring.core.expr.operations import Pair
from mainspring.core.expr.tree import Node
from mainspring.core.expr.types import Typed, columns_of, resolve
from mainspring.core.expr.vectors import NUMPY_TYPES, Vector, vector
from mainspring.core.expr.wall_clock import part_of, start_of
from mainspring.core.schema import DType, Schema

__all__ = ["Vector", "evaluate", "vector"]

_KEPT = 4096

Step = Callable[[Mapping[str, Vector]], Pair]

_FUNCTIONS: Mapping[str, Callable[..., Pair]] = {
    "int_add": ops.int_add,
    "int_sub": ops.int_sub,
    "int_mul": ops.int_mul,
    "int_neg": ops.int_neg,
    "int_abs": ops.int_abs,
    "float_add": ops.both(operator.add),
    "float_sub": ops.both(operator.sub),
    "float_mul": ops.both(operator.mul),
    "float_div": ops.float_div,
    "float_neg": ops.alone(operator.neg),
    "float_abs": ops.alone(np.abs),
    "instant_add": ops.instant_add,
    "instant_sub": ops.instant_sub,
    "instant_between": ops.both(operator.sub),
    "eq": ops.both(operator.eq),
    "ne": ops.both(operator.ne),
    "lt": ops.both(operator.lt),
    "le": ops.both(operator.le),
    "gt": ops.both(operator.gt),
    "ge": ops.both(operator.ge),
    "and": ops.kleene_and,
    "or": ops.kleene_or,
    "not": ops.alone(operator.invert),
    "is_null": ops.is_null,
    "coalesce": ops.coalesce,
    "when": ops.when,
    "is_nan": ops.alone(np.isnan),
    "floor": ops.alone(np.floor),
    "ceil": ops.alone(np.ceil),
    "round": ops.alone(np.rint),
    "sqrt": ops.sqrt,
    "log": ops.log,
    "exp": ops.alone(ops.exp),
    "lower": ops.alone(texts.lower),
    "upper": ops.alone(texts.upper),
    "length": ops.alone(texts.length),
    "strip": ops.alone(texts.strip),
    "concat": ops.both(operator.add),
    "contains": texts.together(np.bool_, lambda text, part: part in text),
    "starts_with": texts.together(np.bool_, str.startswith),
    "ends_with": texts.together(np.bool_, str.endswith),
    "replace": texts.together(np.object_, texts.replaced),
}


@dataclass(frozen=True, slots=True)
class _Compiled:
    expr: Node  # kept so that its id cannot become another's
    types: tuple[tuple[str, DType], ...]  # of the columns it reads
    run: Step


_compiled: dict[int, _Compiled] = {}


def evaluate(expr: Node, columns: Mapping[str, Vector], schema: Schema, rows: int) -> Vector:
    """Return the expression's value for each row, of type `dtype_of(expr, schema)`.

    Args:
        columns: At least the columns that the expression reads, each of its schema type and shape (rows,).
        rows: How many rows there are; it decides where the expression reads no column.

    Raises:
        Invalid: As `types.dtype_of`.
    """
    known = _compiled.get(id(expr))
    if known is None or known.expr is not expr or any(schema.get(name) is not dtype for name, dtype in known.types):
        if len(_compiled) >= _KEPT:
            _compiled.clear()
        run = _compile(resolve(expr, schema))
        known = _Compiled(expr, tuple((name, schema[name]) for name in columns_of(expr)), run)
        _compiled[id(expr)] = known
    with np.errstate(all="ignore"):
        values, valid = known.run(columns)
    if values.shape[0] != rows or valid.shape[0] != rows:
        return Vector(np.broadcast_to(values, (rows,)).copy(), np.broadcast_to(valid, (rows,)).copy())
    return Vector(values, valid)


def _compile(node: Typed) -> Step:
    if node.operation == "column":
        return _column(node.name)
    if node.operation == "literal":
        return _constant(node)
    function = _function(node)
    steps = [_compile(argument) for argument in node.arguments]
    if len(steps) == 1:
        (only,) = steps
        return lambda columns: function(only(columns))
    if len(steps) == 2:
        left, right = steps
        return lambda columns: function(left(columns), right(columns))
    return lambda columns: function(*[step(columns) for step in steps])


def _column(name: str) -> Step:
    def step(columns: Mapping[str, Vector]) -> Pair:
        column = columns[name]
        return column.values, column.valid

    return step


def _constant(node: Typed) -> Step:
    plain: Any = node.value
    if plain is None:
        plain = "" if node.dtype is DType.String else 0
    pair = (np.array([plain], dtype=NUMPY_TYPES[node.dtype]), np.array([node.value is not None]))
    return lambda _: pair


def _function(node: Typed) -> Callable[..., Pair]:
    if node.operation == "cast":
        return cast(node.arguments[0].dtype, node.dtype)
    if node.operation == "time_part":
        return ops.alone(part_of(node.name, node.zone))
    if node.operation == "time_start":
        return ops.instant(start_of(node.name, node.zone))
    if node.operation == "clip":
        return ops.alone(ops.clip(*node.options))
    if node.operation == "slice":
        return ops.alone(texts.slice_of(*node.options))
    if node.operation in ("least", "greatest"):
        return ops.extreme(node.operation, floats=node.dtype in (DType.Float32, DType.Float64))
    if node.operation == "one_of":
        options = frozenset(node.options)
        return ops.alone(lambda values: np.array([value in options for value in values.tolist()], dtype=np.bool_))
    return _FUNCTIONS[node.operation]
