"""Online evaluation of an expression: NumPy over a batch of rows. The rules are those of `types`.

An expression is compiled once to a chain of operations and casts, and cached: a small batch costs microseconds per
node.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.core.expr import operations as ops
from mainspring.core.expr.operations import NUMPY_TYPES, Array, Pair, Vector, alone, objects, vector, within
from mainspring.core.expr.tree import Node
from mainspring.core.expr.types import DECIMAL, INTEGER, Typed, columns_of, resolve
from mainspring.core.expr.zones import UNITS, offsets_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND

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
    "lower": ops.alone(ops.lower),
    "upper": ops.alone(ops.upper),
    "length": ops.alone(ops.length),
    "strip": ops.alone(ops.strip),
    "concat": ops.both(operator.add),
    "contains": ops.together(np.bool_, lambda text, part: part in text),
    "starts_with": ops.together(np.bool_, str.startswith),
    "ends_with": ops.together(np.bool_, str.endswith),
    "replace": ops.together(np.object_, ops.replaced),
}


@dataclass(frozen=True, slots=True)
class _Compiled:
    expr: Node  # kept alive so that its id cannot be reused
    types: tuple[tuple[str, DType], ...]  # of the columns it reads
    run: Step


_compiled: dict[int, _Compiled] = {}


def evaluate(expr: Node, columns: Mapping[str, Vector], schema: Schema, rows: int) -> Vector:
    """Return the expression's value for each row, of type `dtype_of(expr, schema)`.

    Args:
        columns: At least the columns that the expression reads, each of its schema type and shape (rows,).
        rows: Number of rows, which is needed if the expression reads no column.

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
        return _cast(node.arguments[0].dtype, node.dtype)
    if node.operation == "time_part":
        return ops.alone(_part_of(node.name, node.zone))
    if node.operation == "time_start":
        return ops.instant(_start_of(node.name, node.zone))
    if node.operation == "clip":
        return ops.alone(ops.clip(*node.options))
    if node.operation == "slice":
        return ops.alone(ops.slice_of(*node.options))
    if node.operation in ("least", "greatest"):
        return ops.extreme(node.operation, floats=node.dtype in (DType.Float32, DType.Float64))
    if node.operation == "one_of":
        options = frozenset(node.options)
        return ops.alone(lambda values: np.array([value in options for value in values.tolist()], dtype=np.bool_))
    return _FUNCTIONS[node.operation]


_FLOATS = (DType.Float32, DType.Float64)


def _cast(source: DType, target: DType) -> Callable[[Pair], Pair]:
    """Return the conversion between two types."""
    to = NUMPY_TYPES[target]
    if source is DType.String:
        return _from_string(target)
    if target is DType.String:
        return alone(_bool_text if source is DType.Boolean else _int_text)
    if target is DType.Boolean:
        return _truth_of_float if source in _FLOATS else alone(lambda values: values != 0)
    if target is DType.Timestamp:
        return within
    if source in _FLOATS and target not in _FLOATS:
        return _cut(target)
    if source is DType.Float64 and target is DType.Float32:
        return _to_float32
    if source is DType.Int64 and target is DType.Int32:
        return _to_int32
    return alone(lambda values: values.astype(to))


def _bool_text(values: Array) -> Array:
    return objects(["true" if value else "false" for value in values.tolist()])


def _int_text(values: Array) -> Array:
    return objects([str(value) for value in values.tolist()])


def _truth_of_float(argument: Pair) -> Pair:
    values, valid = argument
    return values != 0, valid & ~np.isnan(values)


def _to_int32(argument: Pair) -> Pair:
    values, valid = argument
    small = values.astype(np.int32)
    return small, valid & (small == values)


def _to_float32(argument: Pair) -> Pair:
    values, valid = argument
    single = values.astype(np.float32)
    return single, valid & ~(np.isinf(single) & ~np.isinf(values))


def _cut(target: DType) -> Callable[[Pair], Pair]:
    to, limit = NUMPY_TYPES[target], 2.0 ** (31 if target is DType.Int32 else 63)

    def apply(argument: Pair) -> Pair:
        whole = np.trunc(argument[0])
        fits = (whole >= -limit) & (whole < limit)
        return np.where(fits, whole, 0).astype(to), argument[1] & fits

    return apply


def _from_string(target: DType) -> Callable[[Pair], Pair]:
    to, parse = NUMPY_TYPES[target], _PARSERS[target]

    def apply(argument: Pair) -> Pair:
        parsed = [parse(text) for text in argument[0].tolist()]
        known = np.array([value is not None for value in parsed], dtype=np.bool_)
        return np.array([0 if value is None else value for value in parsed]).astype(to), argument[1] & known

    return apply


def _parse_bool(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower() if text.isascii() else "")


def _parse_float(text: str) -> float | None:
    number = float(text) if _DECIMAL(text) else np.inf
    return number if np.isfinite(number) else None


def _parse_float32(text: str) -> float | None:
    number = _parse_float(text)
    return None if number is None or np.isinf(np.float32(number)) else number


def _parse_int(bits: int) -> Callable[[str], int | None]:
    limit = 1 << (bits - 1)

    def parse(text: str) -> int | None:
        digits = text.lstrip("+-").lstrip("0") or "0"
        if not _INTEGER(text) or len(digits) > 19:  # int() rejects thousands of digits
            return None
        number = -int(digits) if text[0] == "-" else int(digits)
        return number if -limit <= number < limit else None

    return parse


_INTEGER = re.compile(INTEGER).fullmatch
_DECIMAL = re.compile(DECIMAL).fullmatch
_PARSERS: dict[DType, Callable[[str], Any]] = {
    DType.Boolean: _parse_bool,
    DType.Int32: _parse_int(32),
    DType.Int64: _parse_int(64),
    DType.Float32: _parse_float32,
    DType.Float64: _parse_float,
}


def _part_of(part: str, zone: str) -> Callable[[Array], Array]:
    """Return a function from instants to the field, as int32."""
    offset, field = _offset_of(zone), _FIELDS[part]
    return lambda instants: field(instants + offset(instants)).astype(np.int32)


def _start_of(start: str, zone: str) -> Callable[[Array], Array]:
    """Return a function from instants to the starts of their units: local starts, by the offsets of that time."""
    offset = _offset_of(zone)

    def apply(instants: Array) -> Array:
        there = offset(instants)
        local = _start(start, instants + there)
        return np.asarray(local - offset(local - there))

    return apply


def _offset_of(zone: str) -> Callable[[Array], Array]:
    table = offsets_of(zone)
    changes, offsets = np.array(table.instants, dtype=np.int64), np.array(table.offsets, dtype=np.int64)
    return lambda instants: np.asarray(offsets[np.searchsorted(changes, instants, side="right")])


def _start(start: str, local: Array) -> Any:
    if start == "start_of_month":
        return local.astype("M8[us]").astype("M8[M]").astype("M8[us]").astype(np.int64)
    unit, first = UNITS[start]
    return (local + first) // unit * unit - first


def _days(local: Array) -> Any:
    months = local.astype("M8[us]").astype("M8[M]")
    return (local.astype("M8[us]").astype("M8[D]") - months.astype("M8[D]")).astype(np.int64) + 1


_FIELDS: Mapping[str, Callable[[Array], Any]] = {
    "year": lambda local: local.astype("M8[us]").astype("M8[Y]").astype(np.int64) + 1970,
    "month": lambda local: local.astype("M8[us]").astype("M8[M]").astype(np.int64) % 12 + 1,
    "day": _days,
    "hour": lambda local: local // HOUR % 24,
    "minute": lambda local: local // MINUTE % 60,
    "second": lambda local: local // SECOND % 60,
    "weekday": lambda local: (local // DAY + 3) % 7 + 1,
}
