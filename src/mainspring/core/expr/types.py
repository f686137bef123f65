"""The rules of expressions: what each function takes, what it gives, and which conversions happen on the way.

`resolve` turns a tree into typed operations with every conversion written out. The two readings (`sql`, `evaluate`)
implement those operations and decide nothing themselves. The rules:

- **Null** in gives null out, except for `is_null`, `coalesce`, `when` (a null condition counts as false), and Kleene's
  `and` and `or`.
- **Arithmetic** is done in Int64 or Float64, whatever the operands' width. An integer result that does not fit is
  null. Division is of floats; division by zero (of either sign) is null. `-x` and `abs(x)` keep a float's width.
- **Comparisons** follow IEEE 754: NaN is unequal to everything and neither less nor greater, -0.0 equals 0.0. An
  integer beside a float is converted to Float64 (rounded to nearest) first. Strings compare by code point.
- **`when` and `coalesce`** give the common type of their branches: the same type, Int64 for two integer types, else
  Float64. A literal takes the other branch's type where that holds it exactly.
- **Casts** give null where the value does not fit: float to integer cuts towards zero, NaN and infinities are null; to
  Float32 rounds, and is null where a finite value would become infinite; a string must be wholly a plain decimal
  number, or `true` or `false` in any case; a number is true unless it is zero, NaN is null.
- **Timestamps** are instants of the years 1 to 9999; one that falls outside is null. Timestamp ± Duration is a
  Timestamp, Timestamp - Timestamp a Duration, Duration / Duration a Float64; a Duration is an integer of microseconds.
- **Wall clocks** use the zone's offsets between 1900 and 2070, constant before and after (`zones`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.expr.constants import fit, own_type
from mainspring.core.expr.render import render
from mainspring.core.expr.tree import Call, Cast, Column, Literal, Node, Scalar, TimePart, Unnamed
from mainspring.core.expr.zones import offsets_of
from mainspring.core.schema import DType, Schema

TIME_PARTS = ("hour", "minute", "weekday", "month")

_INTEGERS = (DType.Int32, DType.Int64)
_FLOATS = (DType.Float32, DType.Float64)
_NUMBERS = _INTEGERS + _FLOATS
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
    "and": 2, "or": 2, "not": 1, "is_null": 1, "coalesce": 2, "when": 3, "lower": 1, "upper": 1, "length": 1,
}  # fmt: skip
FUNCTIONS = (*_ARITY, "one_of")


@dataclass(frozen=True, slots=True)
class Typed:
    """One operation with its type. Its arguments have exactly the types it needs.

    `operation` is `column` (`name`), `literal` (`value`), `cast`, `time_part` (`name` is the part), a tree's function
    name where one rule does for all types, or: int_add, int_sub, int_mul, int_neg, int_abs (of Int64 and Duration),
    float_add, float_sub, float_mul, float_div, float_neg, float_abs, instant_add, instant_sub (a duration),
    instant_between (two instants).
    """

    operation: str
    dtype: DType
    arguments: tuple[Typed, ...] = ()
    name: str = ""
    value: Scalar = None
    options: tuple[bool | int | float | str, ...] = ()  # of one_of
    zone: str = ""


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
        raise Invalid(f"{render(expr)} stands where a column must.", fix="use features in the class that has them.")
    if isinstance(expr, Cast):
        return _cast(expr, _resolve(expr.argument, schema))
    if isinstance(expr, TimePart):
        argument = _resolve(expr.argument, schema)
        if argument.dtype is not DType.Timestamp or expr.part not in TIME_PARTS:
            raise _wrong(expr, argument)
        offsets_of(expr.zone)  # refuses an unknown zone
        return Typed("time_part", DType.Int32, (argument,), name=expr.part, zone=expr.zone)
    return _call(expr, schema)


def _literal(literal: Literal) -> Typed:
    value, dtype = literal.value, literal.dtype
    if dtype is None:
        if value is None:
            raise Invalid("None stands where a value must.", fix="use is_null(), or when(...) without otherwise.")
        dtype = own_type(value)
    fitted = value if value is None else fit(value, dtype)
    if value is not None and fitted is None:
        raise Invalid(f"The constant {value!r} is not a {dtype!r}.", fix="use a finite value that fits.")
    return Typed("literal", dtype, value=fitted)


def _cast(cast: Cast, argument: Typed) -> Typed:
    if argument.dtype is cast.dtype:
        return argument
    if cast.dtype not in _CASTS[argument.dtype]:
        raise _wrong(cast, argument)
    return Typed("cast", cast.dtype, (argument,))


def _as(argument: Typed, dtype: DType) -> Typed:
    """Return the argument converted to a wider type; a constant is converted here."""
    if argument.dtype is dtype:
        return argument
    if argument.operation == "literal" and isinstance(argument.value, int | float):
        return Typed("literal", dtype, value=float(argument.value) if dtype in _FLOATS else argument.value)
    return Typed("cast", dtype, (argument,))


def _call(call: Call, schema: Schema) -> Typed:
    function, arguments = call.function, call.arguments
    if function not in FUNCTIONS or len(arguments) != _ARITY.get(function, max(1, len(arguments))):
        raise Invalid(f"There is no function {function!r} of {len(arguments)} arguments in {render(call)}.")
    if function == "when":
        return _when(call, schema)
    if function == "coalesce":
        first, second = _branches(call, arguments, schema)
        return Typed("coalesce", first.dtype, (first, second))
    if function == "one_of":
        return _one_of(call, schema)
    resolved = [_resolve(argument, schema) for argument in arguments]
    dtypes = [argument.dtype for argument in resolved]
    if function == "is_null":
        return Typed("is_null", DType.Boolean, tuple(resolved))
    if function in ("and", "or", "not") and all(dtype is DType.Boolean for dtype in dtypes):
        return Typed(function, DType.Boolean, tuple(resolved))
    if function in ("lower", "upper", "length") and dtypes == [DType.String]:
        return Typed(function, DType.Int32 if function == "length" else DType.String, tuple(resolved))
    if function in ("eq", "ne", "lt", "le", "gt", "ge"):
        return Typed(function, DType.Boolean, _alike(call, *resolved))
    if function in ("neg", "abs") and dtypes[0] in (*_NUMBERS, DType.Duration):
        return _sign(function, resolved[0])
    if len(resolved) == 2:
        return _arithmetic(call, *resolved)
    raise _wrong(call, *resolved)


def _alike(call: Call, left: Typed, right: Typed) -> tuple[Typed, Typed]:
    """Return both sides of a comparison in one type."""
    if left.dtype is right.dtype:
        return left, right
    if not (left.dtype.numeric and right.dtype.numeric):
        raise _wrong(call, left, right)
    wide = DType.Int64 if left.dtype in _INTEGERS and right.dtype in _INTEGERS else DType.Float64
    return _as(left, wide), _as(right, wide)


def _sign(function: str, argument: Typed) -> Typed:
    if argument.dtype in _FLOATS:
        return Typed(f"float_{function}", argument.dtype, (argument,))
    wide = DType.Duration if argument.dtype is DType.Duration else DType.Int64
    return Typed(f"int_{function}", wide, (_as(argument, wide),))


def _arithmetic(call: Call, left: Typed, right: Typed) -> Typed:
    function, dtypes = call.function, (left.dtype, right.dtype)
    if left.dtype.numeric and right.dtype.numeric:
        wide = DType.Float64
        if function != "div" and left.dtype in _INTEGERS and right.dtype in _INTEGERS:
            wide = DType.Int64
        kind = "int" if wide is DType.Int64 else "float"
        return Typed(f"{kind}_{function}", wide, (_as(left, wide), _as(right, wide)))
    time, duration = DType.Timestamp, DType.Duration
    if function in ("add", "sub") and dtypes == (duration, duration):
        return Typed(f"int_{function}", duration, (left, right))
    if function in ("add", "sub") and dtypes == (time, duration):
        return Typed(f"instant_{function}", time, (left, right))
    if function == "add" and dtypes == (duration, time):
        return Typed("instant_add", time, (right, left))
    if function == "sub" and dtypes == (time, time):
        return Typed("instant_between", duration, (left, right))
    if function == "div" and dtypes == (duration, duration):
        return Typed("float_div", DType.Float64, (_as(left, DType.Float64), _as(right, DType.Float64)))
    if function == "mul" and left.dtype is duration and right.dtype in _INTEGERS:
        return Typed("int_mul", duration, (left, _as(right, DType.Int64)))
    if function == "mul" and right.dtype is duration and left.dtype in _INTEGERS:
        return Typed("int_mul", duration, (_as(left, DType.Int64), right))
    raise _wrong(call, left, right)


def _when(call: Call, schema: Schema) -> Typed:
    condition = _resolve(call.arguments[0], schema)
    if condition.dtype is not DType.Boolean:
        raise _wrong(call, condition)
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
    return _alike(call, first, second)


def _is_none(node: Node) -> bool:
    return isinstance(node, Literal) and node.value is None and node.dtype is None


def _one_of(call: Call, schema: Schema) -> Typed:
    value = _resolve(call.arguments[0], schema)
    options = []
    for node in call.arguments[1:]:
        if not isinstance(node, Literal) or node.value is None:
            raise Invalid(
                f"{render(call)} lists something that is not a plain value; null equals nothing.",
                fix="list constants; add | x.is_null() for null.",
            )
        options.append(_resolve(node, schema))
    for option in options:
        value, _ = _alike(call, value, option)
    plain = tuple(_as(option, value.dtype).value for option in options)
    return Typed("one_of", DType.Boolean, (value,), options=tuple(each for each in plain if each is not None))


def _wrong(expr: Node, *arguments: Typed) -> Invalid:
    what = "cast" if isinstance(expr, Cast) else expr.part if isinstance(expr, TimePart) else "the function"
    if isinstance(expr, Call):
        what = expr.function
    types = " and ".join(repr(argument.dtype) for argument in arguments)
    target = f" to {expr.dtype!r}" if isinstance(expr, Cast) else ""
    return Invalid(f"{what} does not take {types}{target}, in {render(expr)}.", fix="convert with .cast(...) first.")
