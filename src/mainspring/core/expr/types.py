"""The rules of expressions: argument types, result types, and implicit conversions of each function.

`resolve` turns a tree into typed operations with every conversion written out. The two implementations (`sql`,
`evaluate`) execute those operations and decide nothing themselves. The rules:

- **Null** in gives null out, except for `is_null`, `coalesce`, `when` (a null condition counts as false), and Kleene's
  `and` and `or`.
- **Arithmetic** is done in Int64 or Float64, whatever the operands' width. An integer result that does not fit is
  null. Division is of floats; division by zero (of either sign) is null. `-x` and `abs(x)` keep a float's width.
- **`sqrt`, `log`, `exp`** are Float64, and null outside of their domain. `floor`, `ceil`, `round` (halves to even) and
  `clip` keep a number's type. `least` and `greatest` pass over nulls; there NaN is above every number, -0.0 is 0.0.
- **Strings** are sequences of code points; `+` joins them.
- **Comparisons** follow IEEE 754: NaN is unequal to everything and neither less nor greater, -0.0 equals 0.0. An
  integer beside a float is converted to Float64 (rounded to nearest) first. Strings compare by code point.
- **`when`, `coalesce`, `least`, `greatest`** give the common type of their branches: the same type, Int64 for two
  integer types, else Float64. A literal takes the other branch's type where that holds it exactly.
- **Casts** give null where the value does not fit: float to integer cuts towards zero, NaN and infinities are null; to
  Float32 rounds, and is null where a finite value would become infinite; a string must be wholly a plain decimal
  number, or `true` or `false` in any case; a number is true unless it is zero, NaN is null.
- **Timestamps** are instants of the years 1 to 9999; one that falls outside is null. Timestamp ± Duration is a
  Timestamp, Timestamp - Timestamp a Duration, Duration / Duration a Float64; a Duration is an integer of microseconds.
- **Wall clocks** use the zone's offsets between 1900 and 2070, constant before and after (`zones`).
"""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.core.errors import Invalid
from mainspring.core.expr.render import render
from mainspring.core.expr.signatures import (
    FLOATS,
    INTEGERS,
    PLAIN,
    Typed,
    alike,
    fit,
    own_type,
    typed_call,
    widened,
    with_constants,
    wrong,
)
from mainspring.core.expr.tree import Call, Cast, Column, Literal, Node, TimePart, Unnamed
from mainspring.core.expr.zones import offsets_of
from mainspring.core.schema import DType, Schema

__all__ = ["FUNCTIONS", "TIME_PARTS", "TIME_STARTS", "Typed", "columns_of", "dtype_of", "resolve"]

TIME_PARTS = ("year", "month", "day", "hour", "minute", "second", "weekday")
TIME_STARTS = ("start_of_hour", "start_of_day", "start_of_week", "start_of_month")
# Patterns of numbers in strings (RE2 and `re` agree on these) and white space, for both implementations.
INTEGER = r"[+-]?[0-9]+"
DECIMAL = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
WHITE_SPACE = " \t\n\r\f\v"

_NUMBERS = INTEGERS + FLOATS
_CASTS: Mapping[DType, tuple[DType, ...]] = {
    DType.Boolean: (*_NUMBERS, DType.String),
    DType.Int32: (*_NUMBERS, DType.Boolean, DType.String),
    DType.Int64: (*_NUMBERS, DType.Boolean, DType.String, DType.Timestamp, DType.Duration),
    DType.Float32: (*_NUMBERS, DType.Boolean),
    DType.Float64: (*_NUMBERS, DType.Boolean),
    DType.String: (*_NUMBERS, DType.Boolean),
    DType.Timestamp: (DType.Int64,),
    DType.Duration: (DType.Int64, DType.Float64),
}
_ARITY = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "abs": 1, "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,
    "and": 2, "or": 2, "not": 1, "is_null": 1, "coalesce": 2, "when": 3, "least": 2, "greatest": 2, "clip": 3,
    "floor": 1, "ceil": 1, "round": 1, "is_nan": 1,
}  # fmt: skip
_ARITY_OF = {**_ARITY, **{name: len(taken) for name, (taken, _) in PLAIN.items()}}
FUNCTIONS = (*_ARITY_OF, "one_of", "slice")


def dtype_of(expr: Node, schema: Schema) -> DType:
    """Return the type of the expression's values.

    Raises:
        Invalid: It names a column that `schema` lacks, or a function is given types it does not take.
    """
    return resolve(expr, schema).dtype


def columns_of(expr: Node) -> set[str]:
    """Return the names of the columns that the expression reads."""
    if isinstance(expr, Column):
        return {expr.name}
    if isinstance(expr, (Literal, Unnamed)):
        return set()
    arguments = expr.arguments if isinstance(expr, Call) else (expr.argument,)
    return set().union(*(columns_of(argument) for argument in arguments))


def resolve(expr: Node, schema: Schema) -> Typed:
    """Return the expression as typed operations.

    Raises:
        Invalid: As `dtype_of`.
    """
    try:
        return _resolve(expr, schema)
    except RecursionError:
        raise Invalid("An expression is nested too deeply.", fix="split it into several features.") from None


def _resolve(expr: Node, schema: Schema) -> Typed:
    if isinstance(expr, Column):
        if expr.name not in schema:
            raise Invalid(f"There is no column {expr.name!r}.", fix=f"the columns are {sorted(schema)}.")
        return Typed("column", schema[expr.name], name=expr.name)
    if isinstance(expr, Literal):
        return _literal(expr)
    if isinstance(expr, Unnamed):
        raise Invalid(
            f"{render(expr)} is used where a column is required.", fix="use features in the class that has them."
        )
    if isinstance(expr, Cast):
        return _cast(expr, _resolve(expr.argument, schema))
    if isinstance(expr, TimePart):
        argument = _resolve(expr.argument, schema)
        if argument.dtype is not DType.Timestamp or expr.part not in (*TIME_PARTS, *TIME_STARTS):
            raise wrong(expr, argument)
        offsets_of(expr.zone)  # refuses an unknown zone
        if expr.part in TIME_STARTS:
            return Typed("time_start", DType.Timestamp, (argument,), name=expr.part, zone=expr.zone)
        return Typed("time_part", DType.Int32, (argument,), name=expr.part, zone=expr.zone)
    return _call(expr, schema)


def _literal(literal: Literal) -> Typed:
    value, dtype = literal.value, literal.dtype
    if dtype is None:
        if value is None:
            raise Invalid(
                "None is used where a value is required.", fix="use is_null(), or when(...) without otherwise."
            )
        dtype = own_type(value)
    fitted = value if value is None else fit(value, dtype)
    if value is not None and fitted is None:
        raise Invalid(f"The constant {value!r} is not a {dtype!r}.", fix="use a finite value that fits.")
    return Typed("literal", dtype, value=fitted)


def _cast(cast: Cast, argument: Typed) -> Typed:
    if argument.dtype is cast.dtype:
        return argument
    if cast.dtype not in _CASTS[argument.dtype]:
        raise wrong(cast, argument)
    return Typed("cast", cast.dtype, (argument,))


def _call(call: Call, schema: Schema) -> Typed:
    function, arguments = call.function, call.arguments
    if function not in FUNCTIONS or len(arguments) != _ARITY_OF.get(function, max(1, len(arguments))):
        raise Invalid(f"There is no function {function!r} of {len(arguments)} arguments in {render(call)}.")
    if function == "when":
        return _when(call, schema)
    if function in ("coalesce", "least", "greatest"):
        first, second = _branches(call, arguments, schema)
        return Typed(function, first.dtype, (first, second))
    if function == "one_of":
        return _one_of(call, schema)
    if function in ("clip", "slice"):
        return with_constants(call, _resolve(arguments[0], schema))
    return typed_call(call, [_resolve(argument, schema) for argument in arguments])


def _when(call: Call, schema: Schema) -> Typed:
    condition = _resolve(call.arguments[0], schema)
    if condition.dtype is not DType.Boolean:
        raise wrong(call, condition)
    then, otherwise = _branches(call, call.arguments[1:], schema)
    return Typed("when", then.dtype, (condition, then, otherwise))


def _branches(call: Call, nodes: tuple[Node, ...], schema: Schema) -> tuple[Typed, Typed]:
    """Return two alternatives in their common type; an untyped None takes the other's."""
    typed = [None if _is_none(node) else _resolve(node, schema) for node in nodes]
    first, second = typed
    if first is None or second is None:
        known = first or second
        if known is None:
            raise Invalid(f"{render(call)} is always null and has no type.", fix="give one branch a value.")
        null = Typed("literal", known.dtype)
        return first or null, second or null
    for literal, other in ((first, second), (second, first)):
        if literal.operation == "literal" and literal.value is not None and literal.dtype is not other.dtype:
            fitted = fit(literal.value, other.dtype) if other.dtype.numeric else None
            if fitted is not None:
                adapted = Typed("literal", other.dtype, value=fitted)
                return (adapted, second) if literal is first else (first, adapted)
    return alike(call, first, second)


def _is_none(node: Node) -> bool:
    return isinstance(node, Literal) and node.value is None and node.dtype is None


def _one_of(call: Call, schema: Schema) -> Typed:
    value = _resolve(call.arguments[0], schema)
    options = []
    for node in call.arguments[1:]:
        if not isinstance(node, Literal) or node.value is None:
            raise Invalid(
                f"{render(call)} lists something that is not a plain value; null never equals anything.",
                fix="list constants; add | x.is_null() for null.",
            )
        options.append(_resolve(node, schema))
    for option in options:
        value, _ = alike(call, value, option)
    plain = tuple(widened(option, value.dtype).value for option in options)
    return Typed("one_of", DType.Boolean, (value,), options=tuple(each for each in plain if each is not None))
