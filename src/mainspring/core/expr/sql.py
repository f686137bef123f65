"""Offline evaluation of an expression: DuckDB SQL that gives the result of `evaluate` for every input, and never
raises.

If DuckDB's own rule differs from ours (`types`), the SQL implements ours: DuckDB orders NaN above everything and equal
to itself, raises on integer overflow and on instants out of range, rounds where we truncate, and has its own zones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count

from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import Node, Scalar
from mainspring.core.expr.types import DECIMAL, INTEGER, WHITE_SPACE, Typed, resolve
from mainspring.core.expr.zones import UNITS, offsets_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import DAY, FIRST_INSTANT, HOUR, LAST_INSTANT, MINUTE, SECOND

SQL_TYPES = {
    DType.String: "VARCHAR",
    DType.Boolean: "BOOLEAN",
    DType.Int32: "INTEGER",
    DType.Int64: "BIGINT",
    DType.Float32: "FLOAT",
    DType.Float64: "DOUBLE",
    DType.Timestamp: "TIMESTAMPTZ",
    DType.Duration: "BIGINT",
}
_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
_FLOATS = (DType.Float32, DType.Float64)
_LONGEST_REPEATED = 400
# DuckDB divides integers towards zero, so fields are computed from a number that is never negative, counted from this
# start: more than a week before the year 1, and a whole number of weeks before 1970.
_SHIFT = 102_740 * 7 * DAY


def to_sql(expr: Node, schema: Schema, *, qualifier: str | None = None) -> str:
    """Return one SQL expression of type `dtype_of(expr, schema)`; a Duration is a BIGINT of microseconds.

    Args:
        qualifier: The table or alias that the columns belong to.

    Raises:
        Invalid: As `types.dtype_of`.
    """
    try:
        return _Compiler(qualifier).sql(resolve(expr, schema))
    except RecursionError:
        raise Invalid("An expression is nested too deeply.", fix="split it into several features.") from None


def quote_name(name: str) -> str:
    """Return an identifier, quoted.

    Raises:
        Invalid: It contains a NUL character.
    """
    if "\0" in name:
        raise Invalid(f"{name!r} cannot name a column.", fix="leave out the NUL character.")
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("'", "''") + "'"


def literal_sql(value: Scalar, dtype: DType) -> str:
    """Return a constant of exactly this type."""
    if value is None:
        return f"CAST(NULL AS {SQL_TYPES[dtype]})"
    if dtype is DType.Boolean:
        return "TRUE" if value else "FALSE"
    if dtype is DType.String:
        return quote_text(str(value))
    if dtype is DType.Timestamp:
        return f"make_timestamptz(CAST({value} AS BIGINT))"
    return f"CAST('{value!r}' AS {SQL_TYPES[dtype]})"


class _Compiler:
    def __init__(self, qualifier: str | None) -> None:
        self._prefix = "" if qualifier is None else quote_name(qualifier) + "."
        self._numbers = count()

    def sql(self, node: Typed) -> str:
        """Return the SQL of a node, safe between any two operators."""
        if node.operation == "column":
            return self._prefix + quote_name(node.name)
        if node.operation == "literal":
            return literal_sql(node.value, node.dtype)
        arguments = [self.sql(argument) for argument in node.arguments]
        return f"({self._operation(node, arguments)})"

    def _operation(self, node: Typed, arguments: Sequence[str]) -> str:
        operation, first = node.operation, arguments[0]
        if operation in ("eq", "ne", "lt", "le", "gt", "ge"):
            return self._comparison(node, arguments)
        if operation in ("instant_add", "instant_sub"):
            sign = "+" if operation == "instant_add" else "-"
            return self._instant(f"CAST(epoch_us({first}) AS HUGEINT) {sign} {arguments[1]}")
        if operation == "cast":
            return self._cast(node.arguments[0].dtype, node.dtype, first)
        if operation == "time_part":
            return _part_sql(node.name, self._local(node.zone, f"epoch_us({first})"))
        if operation == "time_start":
            return self._time_start(node, first)
        if operation == "one_of":
            return _one_of(node, first)
        if operation == "slice":
            start, length = node.options
            return f"substring({first}, {int(start or 0) + 1}{'' if length is None else f', {length}'})"
        if operation == "clip":
            return self._clip(node, first)
        if operation in ("sqrt", "log"):
            outside = "< 0" if operation == "sqrt" else "<= 0"
            return self._bind(first, lambda x: f"CASE WHEN {x} {outside} THEN NULL ELSE {_DOMAINS[operation]}({x}) END")
        if operation in ("least", "greatest") and node.dtype in _FLOATS:
            zero = literal_sql(0.0, node.dtype)  # -0.0 is 0.0, so either could be the smaller
            return f"{operation}({arguments[0]}, {arguments[1]}) + {zero}"
        return _TEMPLATES[operation].format(*arguments)

    def _comparison(self, node: Typed, arguments: Sequence[str]) -> str:
        operation, (left, right) = node.operation, arguments
        low, high = node.arguments
        if operation in ("gt", "ge"):
            operation, left, right, low, high = "l" + operation[1], right, left, high, low
        operator = {"eq": "=", "ne": "<>", "lt": "<", "le": "<="}[operation]
        if not _can_be_nan(high) or (operation in ("eq", "ne") and not _can_be_nan(low)):
            return f"{left} {operator} {right}"  # DuckDB and IEEE agree while NaN is not on the greater side
        if operation in ("lt", "le") and isinstance(low.value, float) and low.dtype is DType.Float64:
            least = math.nextafter(low.value, math.inf) if operation == "lt" else low.value
            return f"{right} BETWEEN {literal_sql(least, DType.Float64)} AND CAST('inf' AS DOUBLE)"
        unordered = "=" if operation == "ne" else "<>"  # x <> x is false, x = x true, and both null where x is
        return self._bind(
            left,
            lambda left: self._bind(
                right,
                lambda right: (
                    f"CASE WHEN isnan({right}) THEN {left} {unordered} {left} ELSE {left} {operator} {right} END"
                ),
            ),
        )

    def _instant(self, exact: str) -> str:
        return self._bind(
            exact,
            lambda instant: (
                f"CASE WHEN ({instant}) BETWEEN {FIRST_INSTANT} AND {LAST_INSTANT} "
                f"THEN make_timestamptz(CAST({instant} AS BIGINT)) END"
            ),
        )

    def _cast(self, source: DType, target: DType, value: str) -> str:
        if source is DType.String:
            return _parsed(target, value)
        if target is DType.Boolean:
            return f"nullif({value}, CAST('nan' AS {SQL_TYPES[source]})) <> 0" if source in _FLOATS else f"{value} <> 0"
        if source is DType.Timestamp:
            return f"epoch_us({value})"
        if target is DType.Timestamp:
            return self._instant(value)
        if source in _FLOATS and target not in _FLOATS:
            value = f"trunc({value})"
        return f"TRY_CAST({value} AS {SQL_TYPES[target]})"

    def _local(self, zone: str, instant: str) -> str:
        return self._bind(instant, lambda us: f"{us} + {offset_sql(zone, us)}")

    def _time_start(self, node: Typed, instant: str) -> str:
        zone = node.zone
        start = _start_sql(node.name, self._local(zone, f"epoch_us({instant})"))
        first = self._bind(f"epoch_us({instant})", lambda us: f"{start} - {offset_sql(zone, us)}")
        return self._instant(self._bind(f"({first})", lambda us: f"CAST({start} AS HUGEINT) - {offset_sql(zone, us)}"))

    def _clip(self, node: Typed, value: str) -> str:
        low, high = (None if bound is None else literal_sql(bound, node.dtype) for bound in node.options)

        def body(x: str) -> str:
            cases = [f"WHEN isnan({x}) THEN {x}"] if node.dtype in _FLOATS else []
            cases += [] if low is None else [f"WHEN {x} < {low} THEN {low}"]
            cases += [] if high is None else [f"WHEN {x} > {high} THEN {high}"]
            return f"CASE {' '.join(cases)} ELSE {x} END" if cases else x

        return self._bind(value, body)

    def _bind(self, value: str, body: Callable[[str], str]) -> str:
        """Return `body(value)`; a long value is bound, so it is written and computed only once."""
        if len(value) <= _LONGEST_REPEATED:
            return body(value)
        name = f"_bound{next(self._numbers)}"
        return f"list_transform([{value}], lambda {name}: {body(name)})[1]"


_TEMPLATES = {
    "int_add": "TRY_CAST(CAST({0} AS HUGEINT) + CAST({1} AS HUGEINT) AS BIGINT)",
    "int_sub": "TRY_CAST(CAST({0} AS HUGEINT) - CAST({1} AS HUGEINT) AS BIGINT)",
    "int_mul": "TRY_CAST(CAST({0} AS HUGEINT) * CAST({1} AS HUGEINT) AS BIGINT)",
    "int_neg": "TRY_CAST(-CAST({0} AS HUGEINT) AS BIGINT)",
    "int_abs": "TRY_CAST(abs(CAST({0} AS HUGEINT)) AS BIGINT)",
    "float_add": "{0} + {1}",
    "float_sub": "{0} - {1}",
    "float_mul": "{0} * {1}",
    "float_div": "{0} / nullif({1}, 0)",
    "float_neg": "-{0}",
    "float_abs": "abs({0})",
    "instant_between": "epoch_us({0}) - epoch_us({1})",
    "and": "{0} AND {1}",
    "or": "{0} OR {1}",
    "not": "NOT {0}",
    "is_null": "{0} IS NULL",
    "coalesce": "coalesce({0}, {1})",
    "when": "CASE WHEN {0} THEN {1} ELSE {2} END",
    "lower": f"translate({{0}}, '{_UPPER}', '{_LOWER}')",
    "upper": f"translate({{0}}, '{_LOWER}', '{_UPPER}')",
    "length": "CAST(length({0}) AS INTEGER)",
    "concat": "{0} || {1}",
    "contains": "contains({0}, {1})",
    "starts_with": "starts_with({0}, {1})",
    "ends_with": "ends_with({0}, {1})",
    "replace": "replace({0}, {1}, {2})",
    "strip": f"trim({{0}}, {quote_text(WHITE_SPACE)})",
    "is_nan": "isnan({0})",
    "floor": "floor({0})",
    "ceil": "ceil({0})",
    "round": "round_even({0}, 0)",
    "exp": "exp({0})",
    "least": "least({0}, {1})",
    "greatest": "greatest({0}, {1})",
}
_DOMAINS = {"sqrt": "sqrt", "log": "ln"}


def _can_be_nan(node: Typed) -> bool:
    if node.dtype not in _FLOATS or node.operation == "literal":
        return False
    return node.operation != "cast" or node.arguments[0].dtype in _FLOATS


def _one_of(node: Typed, value: str) -> str:
    if not node.options:
        return f"{value} <> {value}"  # false, or null
    dtype = node.arguments[0].dtype
    return f"{value} IN ({', '.join(literal_sql(option, dtype) for option in node.options)})"


def _parsed(target: DType, text: str) -> str:
    if target is DType.Boolean:
        return f"CASE {_TEMPLATES['lower'].format(text)} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END"
    if target in _FLOATS:
        number = f"TRY_CAST(regexp_extract({text}, '\\A{DECIMAL}\\z') AS DOUBLE)"
        finite = f"nullif(nullif({number}, CAST('inf' AS DOUBLE)), CAST('-inf' AS DOUBLE))"
        return finite if target is DType.Float64 else f"TRY_CAST({finite} AS FLOAT)"
    return f"TRY_CAST(regexp_extract({text}, '\\A{INTEGER}\\z') AS {SQL_TYPES[target]})"


def _part_sql(part: str, local: str) -> str:
    """Return a field of local time."""
    if part in ("year", "month", "day"):
        return f"CAST({part}(make_timestamp({local})) AS INTEGER)"
    if part == "weekday":
        return f"CAST((({local} + {_SHIFT}) // {DAY} + 3) % 7 + 1 AS INTEGER)"
    unit, cycle = {"hour": (HOUR, 24), "minute": (MINUTE, 60), "second": (SECOND, 60)}[part]
    return f"CAST(({local} + {_SHIFT}) // {unit} % {cycle} AS INTEGER)"


def _start_sql(start: str, local: str) -> str:
    """Return the local time at which a unit of local time began."""
    if start == "start_of_month":
        return f"epoch_us(date_trunc('month', make_timestamp({local})))"
    unit, first = UNITS[start]
    shifted = f"({local} + {_SHIFT + first})"
    return f"({shifted} // {unit} * {unit} - {_SHIFT + first})"


def offset_sql(zone: str, instant: str) -> str:
    """Return the zone's offset at an instant (µs) as a binary search written in CASE."""
    table = offsets_of(zone)

    def between(low: int, high: int) -> str:
        if low == high:
            return str(table.offsets[low])
        middle = (low + high) // 2
        return (
            f"CASE WHEN {instant} < {table.instants[middle]} "
            f"THEN {between(low, middle)} ELSE {between(middle + 1, high)} END"
        )

    return between(0, len(table.instants))
