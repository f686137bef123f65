"""Evaluation of an expression in a warehouse: SQL of a dialect that gives the result of `evaluate`.

An instant is a BIGINT of microseconds. What a dialect has no exact equal of is refused by name. Arguments are written
as often as an operation needs them, because these dialects cannot bind a value inside an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mainspring.core.errors import Invalid
from mainspring.core.expr.dialects import Dialect, no_equal
from mainspring.core.expr.sql import offset_sql
from mainspring.core.expr.tree import Node
from mainspring.core.expr.types import DECIMAL, INTEGER, Typed, resolve
from mainspring.core.expr.zones import UNITS, offsets_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import DAY, FIRST_INSTANT, HOUR, LAST_INSTANT, MINUTE, SECOND

_FLOATS = (DType.Float32, DType.Float64)
_LONGEST = 200_000  # characters of one expression
_SHIFT = 102_740 * 7 * DAY  # as in core.expr.sql: no local time is negative from there
_COMPARED = {"eq": "=", "ne": "<>", "lt": "<", "le": "<="}
_BOUNDS = {  # as doubles: a float between them, exclusive, truncates to such an integer
    DType.Int32: ("-2147483649", "2147483648"),
    DType.Int64: ("-9223372036854777856", "9223372036854775808"),
}

Column = Callable[[str, DType], str]  # the SQL of a column; of a Timestamp its microseconds


def to_warehouse_sql(expr: Node, schema: Schema, dialect: Dialect, column: Column) -> str:
    """Return one SQL expression of type `dtype_of(expr, schema)`; a Timestamp is a number of microseconds.

    Raises:
        Invalid: As `types.dtype_of`; the dialect has no equal of an operation; the text would be too long.
    """
    return _Compiler(dialect, column).sql(resolve(expr, schema))


def floor_sql(x: str, width: int | str) -> str:
    """Return a whole number rounded down to a multiple of `width`."""
    return f"(({x}) - MOD(MOD({x}, {width}) + {width}, {width}))"


class _Compiler:
    def __init__(self, dialect: Dialect, column: Column) -> None:
        self._dialect = dialect
        self._column = column

    def sql(self, node: Typed) -> str:
        if node.operation == "column":
            return self._column(node.name, node.dtype)
        if node.operation == "literal":
            return self._dialect.literal(node.value, node.dtype)
        arguments = [self.sql(argument) for argument in node.arguments]
        # A wall clock writes its argument once for each change of the zone's offset, a start of time twice over.
        if node.operation in ("time_part", "time_start"):
            changes = len(offsets_of(node.zone).offsets)
            self._check_length(len(arguments[0]) * changes ** (1 if node.operation == "time_part" else 2))
        made = f"({self._operation(node, arguments)})"
        self._check_length(len(made))
        return made

    def _check_length(self, characters: int) -> None:
        if characters > _LONGEST:
            raise Invalid(
                f"An expression takes more than {_LONGEST:,} characters in {self._dialect.name}.",
                fix="split it into several features.",
            )

    def _operation(self, node: Typed, arguments: Sequence[str]) -> str:
        operation, first, write = node.operation, arguments[0], self._dialect.write
        if operation in ("eq", "ne", "lt", "le", "gt", "ge"):
            return self._comparison(node, arguments)
        if operation in ("instant_add", "instant_sub"):
            return _instant(write("int_add" if operation == "instant_add" else "int_sub", *arguments))
        if operation == "int_abs":
            return f"CASE WHEN {first} < 0 THEN {write('int_neg', first)} ELSE {first} END"
        if operation == "cast":
            return self._cast(node.arguments[0].dtype, node.dtype, first)
        if operation == "time_part":
            return self._part(node.name, f"({first} + {offset_sql(node.zone, first)})")
        if operation == "time_start":
            return self._time_start(node, first)
        if operation == "one_of":
            return self._one_of(node, first)
        if operation == "slice":
            start, length = node.options
            return f"SUBSTR({first}, {int(start or 0) + 1}{'' if length is None else f', {length}'})"
        if operation == "clip":
            return self._clip(node, first)
        if operation in ("sqrt", "log"):
            outside = "< 0" if operation == "sqrt" else "<= 0"
            return f"CASE WHEN {first} {outside} THEN NULL ELSE {write(operation, first)} END"
        if operation in ("least", "greatest"):
            return self._extreme(node, *arguments)
        written = write(operation, *arguments)
        whole = operation in ("floor", "ceil", "round") and node.dtype is DType.Float32
        return f"CAST({written} AS {self._dialect.types[node.dtype]})" if whole else written

    def _nan(self, node: Typed, value: str) -> str | None:
        """Condition that a value is NaN; `None` if it cannot be."""
        if node.dtype not in _FLOATS or node.operation == "literal":
            return None
        if node.operation == "cast" and node.arguments[0].dtype not in _FLOATS:
            return None
        return self._dialect.write("is_nan", value)

    def _comparison(self, node: Typed, arguments: Sequence[str]) -> str:
        operation, (left, right), (low, high) = node.operation, arguments, node.arguments
        if operation in ("gt", "ge"):
            operation, left, right, low, high = "l" + operation[1], right, left, high, low
        plain = f"{left} {_COMPARED[operation]} {right}"
        nan = self._nan(high, right) if self._dialect.nan_is_largest else None
        if nan is None or (operation in ("eq", "ne") and self._nan(low, left) is None):
            return plain
        unordered = "=" if operation == "ne" else "<>"  # x <> x is false, x = x true, and both null where x is
        return f"CASE WHEN {nan} THEN {left} {unordered} {left} ELSE {plain} END"

    def _extreme(self, node: Typed, a: str, b: str) -> str:
        """The smaller or the larger; nulls are passed over, NaN is above every number, -0.0 is 0.0."""
        is_least = node.operation == "least"
        if node.dtype is DType.Boolean:
            both = f"{a} AND {b}" if is_least else f"{a} OR {b}"
            return f"CASE WHEN {a} IS NULL THEN {b} WHEN {b} IS NULL THEN {a} ELSE {both} END"
        cases = [f"WHEN {a} IS NULL THEN {b}", f"WHEN {b} IS NULL THEN {a}"]
        for argument, value, other in zip(node.arguments, (a, b), (b, a), strict=True):
            nan = self._nan(argument, value)
            cases += [f"WHEN {nan} THEN {other if is_least else value}"] if nan is not None else []
        extreme = f"CASE {' '.join(cases)} WHEN {a} {'<=' if is_least else '>='} {b} THEN {a} ELSE {b} END"
        return f"{extreme} + {self._dialect.literal(0.0, node.dtype)}" if node.dtype in _FLOATS else extreme

    def _one_of(self, node: Typed, value: str) -> str:
        if not node.options:
            return f"{value} <> {value}" if self._nan(node.arguments[0], value) is None else _false(value)
        options = ", ".join(self._dialect.literal(option, node.arguments[0].dtype) for option in node.options)
        return f"{value} IN ({options})"

    def _clip(self, node: Typed, value: str) -> str:
        low, high = (None if bound is None else self._dialect.literal(bound, node.dtype) for bound in node.options)
        nan = self._nan(node, value)
        cases = [] if nan is None else [f"WHEN {nan} THEN {value}"]
        cases += [] if low is None else [f"WHEN {value} < {low} THEN {low}"]
        cases += [] if high is None else [f"WHEN {value} > {high} THEN {high}"]
        return f"CASE {' '.join(cases)} ELSE {value} END" if cases else value

    def _cast(self, source: DType, target: DType, value: str) -> str:
        kind = self._dialect.types[target]
        if source is DType.String:
            return self._parsed(target, value)
        if target is DType.Boolean:
            nan = f"WHEN {self._dialect.write('is_nan', value)} THEN NULL " if source in _FLOATS else ""
            return f"CASE {nan}WHEN {value} IS NOT NULL THEN {value} <> 0 END"
        if source is DType.Boolean:
            yes, no = ("'true'", "'false'") if target is DType.String else (f"CAST(1 AS {kind})", f"CAST(0 AS {kind})")
            return f"CASE WHEN {value} THEN {yes} WHEN NOT {value} THEN {no} END"
        if target is DType.Timestamp:
            return _instant(value)
        if target is DType.Float32:
            return self._dialect.write("float32", f"CAST({value} AS {self._dialect.types[DType.Float64]})")
        if source in _FLOATS and target in (DType.Int32, DType.Int64):
            low, high = _BOUNDS[target]
            whole = f"CAST({self._dialect.write('trunc', value)} AS {kind})"
            double = f"CAST({value} AS {self._dialect.types[DType.Float64]})"
            low, high = (f"CAST('{bound}' AS {self._dialect.types[DType.Float64]})" for bound in (low, high))
            return f"CASE WHEN {double} > {low} AND {double} < {high} THEN {whole} END"
        if target is DType.Int32:
            return f"CASE WHEN {value} BETWEEN -2147483648 AND 2147483647 THEN CAST({value} AS {kind}) END"
        return f"CAST({value} AS {kind})"

    def _parsed(self, target: DType, text: str) -> str:
        if target is DType.Boolean:
            lower = self._dialect.write("lower", text)
            return f"CASE {lower} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END"
        if "parsed" not in self._dialect.templates:
            raise no_equal(self._dialect, f"cast of text to {target!r}")
        pattern = INTEGER if target in (DType.Int32, DType.Int64) else DECIMAL
        number = self._dialect.write(
            "parsed", text, self._dialect.types[DType.Float64 if target in _FLOATS else target]
        )
        if target in _FLOATS:
            number = f"NULLIF(NULLIF({number}, CAST('inf' AS DOUBLE)), CAST('-inf' AS DOUBLE))"
            number = self._dialect.write("float32", number) if target is DType.Float32 else number
        whole = self._dialect.text(rf"\A{pattern}\z")
        return f"CASE WHEN {self._dialect.write('matches', text, whole)} THEN {number} END"

    def _part(self, part: str, local: str) -> str:
        over, kind = self._dialect.write, self._dialect.types[DType.Int32]
        shifted = f"({local} + {_SHIFT})"
        if part in ("year", "month", "day"):
            days = f"({over('over', shifted, str(DAY))}) - {_SHIFT // DAY}"
            return f"CAST(EXTRACT({part.upper()} FROM {over('date', days)}) AS {kind})"
        if part == "weekday":
            return f"CAST(MOD(({over('over', shifted, str(DAY))}) + 3, 7) + 1 AS {kind})"
        unit, cycle = {"hour": (HOUR, 24), "minute": (MINUTE, 60), "second": (SECOND, 60)}[part]
        return f"CAST(MOD({over('over', shifted, str(unit))}, {cycle}) AS {kind})"

    def _time_start(self, node: Typed, instant: str) -> str:
        local = f"({instant} + {offset_sql(node.zone, instant)})"
        if node.name == "start_of_month":
            start = f"({floor_sql(local, DAY)} - ({self._part('day', local)} - 1) * CAST('{DAY}' AS {self._big}))"
        else:
            unit, first = UNITS[node.name]
            start = f"({floor_sql(f'{local} + {first}', unit)} - {first})"
        offset = offset_sql(node.zone, f"({start} - {offset_sql(node.zone, instant)})")
        return _instant(f"({start} - {offset})")

    @property
    def _big(self) -> str:
        return self._dialect.types[DType.Int64]


def _instant(exact: str) -> str:
    return f"CASE WHEN {exact} BETWEEN {FIRST_INSTANT} AND {LAST_INSTANT} THEN {exact} END"


def _false(value: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN FALSE END"
