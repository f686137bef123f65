"""SQL dialects of warehouses: Spark, Snowflake, BigQuery and DuckDB, by what differs between them.

An instant is a number of microseconds inside a statement: it becomes one where a column is read, and a timestamp again
in the result. So time is arithmetic of integers, the same everywhere. Standard SQL that all of them read alike is not
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import SQL_TYPES, literal_sql, quote_text
from mainspring.core.expr.tree import Scalar
from mainspring.core.expr.types import WHITE_SPACE
from mainspring.core.schema import DType

_FIRST_PRINTED = " "


@dataclass(frozen=True)
class Dialect:
    """A dialect.

    Attributes:
        quote: The character around a name.
        types: The type of each kind of column.
        templates: SQL of operations, by name; an operation that is not here has no equal.
        dotted: Whether a column's name may contain a dot.
        nan_is_largest: Whether NaN is above all numbers and equal to itself, as in DuckDB; else as in IEEE 754.
    """

    name: str
    quote: str
    types: Mapping[DType, str]
    templates: Mapping[str, str]
    dotted: bool = True
    nan_is_largest: bool = True

    def column(self, name: str) -> str:
        """Return a name, quoted.

        Raises:
            Invalid: It contains a control character.
        """
        if any(each < _FIRST_PRINTED for each in name):
            raise Invalid(f"{name!r} cannot name a column in {self.name}.", fix="leave out control characters.")
        name = name if self.dotted else name.replace(".", "__")
        inner = name.replace(self.quote, self.quote * 2)
        if self is BIGQUERY:
            inner = name.replace("\\", "\\\\").replace(self.quote, f"\\{self.quote}")
        return f"{self.quote}{inner}{self.quote}"

    def table(self, name: str) -> str:
        """Return the name of a table, each of its parts quoted: `lake.payments`.

        Raises:
            Invalid: A part is empty or contains a control character.
        """
        parts = name.split(".")
        if not all(parts):
            raise Invalid(f"{name!r} is not a table's name.", fix="write name, schema.name or catalog.schema.name.")
        return ".".join(map(self.column, parts))

    def text(self, text: str) -> str:
        """Return a string literal."""
        if self is DUCKDB:  # a backslash is one
            return quote_text(text)
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        return "'" + "".join(e if e >= _FIRST_PRINTED else f"\\u{ord(e):04x}" for e in escaped) + "'"

    def literal(self, value: Scalar, dtype: DType) -> str:
        """Return a constant of exactly this type; an instant is its number of microseconds."""
        kind = self.types[dtype]
        if value is None:
            return f"CAST(NULL AS {kind})"
        if dtype is DType.String:
            return self.text(str(value))
        return literal_sql(value, dtype) if dtype is DType.Boolean else f"CAST('{value!r}' AS {kind})"

    def write(self, operation: str, *arguments: str) -> str:
        """Return the SQL of an operation.

        Raises:
            Invalid: The dialect has no equal of it.
        """
        if operation not in self.templates:
            raise no_equal(self, operation)
        return self.templates[operation].format(*arguments)


def no_equal(dialect: Dialect, what: str) -> Invalid:
    """Return the error for something that a dialect cannot give the same result for."""
    return Invalid(
        f"{dialect.name} has no exact equal of {what!r}, and an approximation would be another feature.",
        fix="read it from the lake, with `mainspring features read` or --engine lake, or leave it out.",
    )


_COMMON = {
    "float_add": "{0} + {1}",
    "float_sub": "{0} - {1}",
    "float_mul": "{0} * {1}",
    "float_div": "{0} / NULLIF({1}, 0)",
    "float_neg": "-{0}",
    "float_abs": "ABS({0})",
    "instant_between": "{0} - {1}",
    "and": "{0} AND {1}",
    "or": "{0} OR {1}",
    "not": "NOT {0}",
    "is_null": "{0} IS NULL",
    "coalesce": "COALESCE({0}, {1})",
    "when": "CASE WHEN {0} THEN {1} ELSE {2} END",
    "lower": "TRANSLATE({0}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')",
    "upper": "TRANSLATE({0}, 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')",
    "length": "LENGTH({0})",
    "concat": "{0} || {1}",
    "replace": "REPLACE({0}, {1}, {2})",
    "strip": "TRIM({0}, ' \\t\\n\\r\\f\\u000b')",
    "floor": "FLOOR({0})",
    "ceil": "CEIL({0})",
    # Halves to even: only they lie exactly between two whole numbers.
    "round": "CASE WHEN ABS({0} - FLOOR({0})) = 0.5 THEN 2 * ROUND({0} / 2) ELSE ROUND({0}) END",
    "exp": "EXP({0})",
    "sqrt": "SQRT({0})",
    "log": "LN({0})",
    "trunc": "TRUNC({0})",
    "over": "(({0}) - MOD({0}, {1})) / {1}",  # of two whole numbers, of which the first is not negative
}

SPARK = Dialect(
    "spark",
    "`",
    {
        DType.String: "STRING",
        DType.Boolean: "BOOLEAN",
        DType.Int32: "INT",
        DType.Int64: "BIGINT",
        DType.Float32: "FLOAT",
        DType.Float64: "DOUBLE",
        DType.Timestamp: "BIGINT",
        DType.Duration: "BIGINT",
    },
    {
        **_COMMON,
        "micros": "UNIX_MICROS({0})",
        "instant": "TIMESTAMP_MICROS({0})",
        "int_add": "TRY_ADD(CAST({0} AS BIGINT), CAST({1} AS BIGINT))",
        "int_sub": "TRY_SUBTRACT(CAST({0} AS BIGINT), CAST({1} AS BIGINT))",
        "int_mul": "TRY_MULTIPLY(CAST({0} AS BIGINT), CAST({1} AS BIGINT))",
        "int_neg": "TRY_SUBTRACT(CAST(0 AS BIGINT), CAST({0} AS BIGINT))",
        "over": "({0}) DIV {1}",
        "is_nan": "CASE WHEN {0} IS NOT NULL THEN ISNAN({0}) END",
        "contains": "CONTAINS({0}, {1})",
        "starts_with": "STARTSWITH({0}, {1})",
        "ends_with": "ENDSWITH({0}, {1})",
        "length": "CHAR_LENGTH({0})",
        "strip": "BTRIM({0}, ' \\t\\n\\r\\u000c\\u000b')",  # \\f is a letter to it
        # FLOOR and CEIL of a double are whole numbers here; one from 2^52 on is whole already.
        "floor": "CASE WHEN ABS({0}) < 4503599627370496 THEN CAST(FLOOR({0}) AS DOUBLE) ELSE {0} END",
        "ceil": "CASE WHEN ABS({0}) < 4503599627370496 THEN CAST(CEIL({0}) AS DOUBLE) ELSE {0} END",
        "round": "CASE WHEN ABS({0}) < 4503599627370496 THEN RINT({0}) ELSE {0} END",
        "trunc": "{0}",  # a cast to a whole number truncates
        "float32": "CASE WHEN ABS({0}) >= 3.4028235677973366E38D AND ABS({0}) < CAST('inf' AS DOUBLE) THEN NULL "
        "ELSE CAST({0} AS FLOAT) END",
        "matches": "{0} RLIKE {1}",
        "parsed": "TRY_CAST({0} AS {1})",
        "date": "DATE_ADD(DATE'1970-01-01', CAST({0} AS INT))",
    },
)

_WITHIN = "CASE WHEN {0} BETWEEN -9223372036854775808 AND 9223372036854775807 THEN {0} END"
_N = "CAST({0} AS NUMBER(38, 0))"
_M = "CAST({1} AS NUMBER(38, 0))"
SNOWFLAKE = Dialect(
    "snowflake",
    '"',
    {
        DType.String: "VARCHAR",
        DType.Boolean: "BOOLEAN",
        DType.Int32: "NUMBER(38, 0)",
        DType.Int64: "NUMBER(38, 0)",
        DType.Float32: "FLOAT",
        DType.Float64: "FLOAT",
        DType.Timestamp: "NUMBER(38, 0)",
        DType.Duration: "NUMBER(38, 0)",
    },
    {
        **_COMMON,
        "micros": "DATE_PART(EPOCH_MICROSECOND, {0})",
        "instant": "TO_TIMESTAMP_TZ({0}, 6)",
        "int_add": _WITHIN.format(f"({_N} + {_M})"),
        "int_sub": _WITHIN.format(f"({_N} - {_M})"),
        "int_mul": _WITHIN.format(f"({_N} * {_M})"),
        "int_neg": _WITHIN.format(f"(-{_N})"),
        "is_nan": "{0} = CAST('NaN' AS FLOAT)",
        "contains": "CONTAINS({0}, {1})",
        "starts_with": "STARTSWITH({0}, {1})",
        "ends_with": "ENDSWITH({0}, {1})",
        "date": "DATEADD(DAY, {0}, DATE '1970-01-01')",
        "as_of": "{0} AT(TIMESTAMP => TO_TIMESTAMP_TZ({2}, 6)) AS {1}",
        "now": "DATE_PART(EPOCH_MICROSECOND, CURRENT_TIMESTAMP())",
    },
)

BIGQUERY = Dialect(
    "bigquery",
    "`",
    {
        DType.String: "STRING",
        DType.Boolean: "BOOL",
        DType.Int32: "INT64",
        DType.Int64: "INT64",
        DType.Float32: "FLOAT64",
        DType.Float64: "FLOAT64",
        DType.Timestamp: "INT64",
        DType.Duration: "INT64",
    },
    {
        **_COMMON,
        "micros": "UNIX_MICROS({0})",
        "instant": "TIMESTAMP_MICROS({0})",
        "int_add": "SAFE_ADD({0}, {1})",
        "int_sub": "SAFE_SUBTRACT({0}, {1})",
        "int_mul": "SAFE_MULTIPLY({0}, {1})",
        "int_neg": "SAFE_NEGATE({0})",
        "float_div": "IEEE_DIVIDE({0}, NULLIF({1}, 0))",
        "over": "DIV({0}, {1})",
        "is_nan": "IS_NAN({0})",
        "contains": "({1} = '' OR STRPOS({0}, {1}) > 0)",
        "starts_with": "STARTS_WITH({0}, {1})",
        "ends_with": "ENDS_WITH({0}, {1})",
        "length": "CHAR_LENGTH({0})",
        "date": "DATE_ADD(DATE '1970-01-01', INTERVAL {0} DAY)",
        "as_of": "{0} AS {1} FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({2})",
        "now": "UNIX_MICROS(CURRENT_TIMESTAMP())",
    },
    dotted=False,
    nan_is_largest=False,
)

_WIDE = "CAST({0} AS HUGEINT)"
DUCKDB = Dialect(
    "duckdb",
    '"',
    {**SQL_TYPES, DType.Timestamp: "BIGINT"},
    {
        **_COMMON,
        "micros": "EPOCH_US({0})",
        "instant": "MAKE_TIMESTAMPTZ({0})",
        "int_add": f"TRY_CAST({_WIDE} + {{1}} AS BIGINT)",
        "int_sub": f"TRY_CAST({_WIDE} - {{1}} AS BIGINT)",
        "int_mul": f"TRY_CAST({_WIDE} * {{1}} AS BIGINT)",
        "int_neg": f"TRY_CAST(-{_WIDE} AS BIGINT)",
        "over": "({0}) // {1}",
        "is_nan": "ISNAN({0})",
        "contains": "CONTAINS({0}, {1})",
        "starts_with": "STARTS_WITH({0}, {1})",
        "ends_with": "ENDS_WITH({0}, {1})",
        "strip": f"TRIM({{0}}, {quote_text(WHITE_SPACE)})",
        "round": "ROUND_EVEN({0}, 0)",
        "float32": "TRY_CAST({0} AS FLOAT)",
        "matches": "REGEXP_MATCHES({0}, {1})",
        "parsed": "TRY_CAST({0} AS {1})",
        "date": "DATE '1970-01-01' + CAST({0} AS INTEGER)",
    },
)

DIALECTS = {each.name: each for each in (SPARK, SNOWFLAKE, BIGQUERY, DUCKDB)}


def dialect(name: str) -> Dialect:
    """Return a dialect by its name.

    Raises:
        Invalid: There is none of this name.
    """
    if name not in DIALECTS:
        raise Invalid(f"There is no dialect {name!r}.", fix=f"use one of {', '.join(DIALECTS)}.")
    return DIALECTS[name]
