"""The two readings of an expression give the same: NumPy online, DuckDB running our SQL offline.

First every function alone on every pair of hostile values, then random trees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from kit.depth import examples
from kit.expressions import (
    ARITHMETIC,
    COMPARISONS,
    HOSTILE,
    NUMBERS,
    PARTS_OF_TEXT,
    SCHEMA,
    UNITS,
    ZONES,
    constant,
    expressions,
    rows,
)
from mainspring.core.errors import Invalid
from mainspring.core.expr import Expr, Literal, Node, as_expr, col, greatest, least, when
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.sql import to_sql
from mainspring.core.expr.types import TIME_PARTS, columns_of, dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import parse_instant, to_datetime

ARROW = {
    DType.Float32: pa.float32(),
    DType.Float64: pa.float64(),
    DType.Int32: pa.int32(),
    DType.Int64: pa.int64(),
    DType.String: pa.string(),
    DType.Boolean: pa.bool_(),
    DType.Timestamp: pa.timestamp("us", tz="UTC"),
}
DUCKDB = {
    DType.Float32: "FLOAT",
    DType.Float64: "DOUBLE",
    DType.Int32: "INTEGER",
    DType.Int64: "BIGINT",
    DType.String: "VARCHAR",
    DType.Boolean: "BOOLEAN",
    DType.Timestamp: "TIMESTAMP WITH TIME ZONE",
    DType.Duration: "BIGINT",
}
COLUMN_TYPES = list(ARROW)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
    yield connection
    connection.close()


def check(
    duck: duckdb.DuckDBPyConnection, expr: Node, columns: dict[str, list[Any]], schema: Schema = SCHEMA
) -> list[Any]:
    """Assert that both readings give the same and of the declared type, and return it."""
    rows = len(next(iter(columns.values())))
    table = pa.table({name: pa.array(columns[name], ARROW[schema[name]]) for name in columns})
    duck.register("hostile", table)
    dtype, sql = dtype_of(expr, schema), to_sql(expr, schema, qualifier="hostile")
    value = f"epoch_us({sql})" if dtype is DType.Timestamp else sql
    found = duck.execute(f"SELECT typeof({sql}), {value} FROM hostile").fetchall()
    assert {kind for kind, _ in found} == {DUCKDB[dtype]}
    vectors = {name: vector(columns[name], schema[name]) for name in columns_of(expr)}
    result = evaluate(expr, vectors, schema, rows).to_list()
    assert exactly(result) == exactly([value for _, value in found])
    return result


def exactly(values: list[Any]) -> list[Any]:
    """Values in a form in which equal means the same type and the same bits, NaN equal to NaN."""
    return [(type(value), repr(value) if isinstance(value, float) else value) for value in values]


def pairs(left: DType, right: DType) -> tuple[Schema, dict[str, list[Any]]]:
    """Columns `a` and `b` that hold every pair of hostile values."""
    both = list(itertools.product([*HOSTILE[left], None], [*HOSTILE[right], None]))
    return {"a": left, "b": right}, {"a": [a for a, _ in both], "b": [b for _, b in both]}


def check_pairs(
    duck: duckdb.DuckDBPyConnection, build: Callable[[Expr, Expr], Any], left: DType, right: DType, constants: int = 4
) -> None:
    schema, columns = pairs(left, right)
    check(duck, build(col("a"), col("b")), columns, schema)
    columns = {"a": [*HOSTILE[left], None]}
    for value in filter(constant, HOSTILE[right][:: max(1, len(HOSTILE[right]) // constants)]):
        check(duck, build(col("a"), Literal(value, right)), columns, schema)
        check(duck, build(Literal(value, right), col("a")), columns, schema)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_every_pair(duck: duckdb.DuckDBPyConnection, name: str) -> None:
    for left, right in [*itertools.product(NUMBERS, NUMBERS), *zip(COLUMN_TYPES, COLUMN_TYPES, strict=True)]:
        check_pairs(duck, lambda a, b: getattr(a, name)(b), left, right)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_of_every_pair(duck: duckdb.DuckDBPyConnection, name: str) -> None:
    for left, right in itertools.product(NUMBERS, NUMBERS):
        check_pairs(duck, lambda a, b: getattr(a, name)(b), left, right, constants=examples(gate=4, deep=30))


@pytest.mark.parametrize("dtype", COLUMN_TYPES)
def test_choices_of_every_pair(duck: duckdb.DuckDBPyConnection, dtype: DType) -> None:
    for other in NUMBERS if dtype.numeric else [dtype]:
        check_pairs(duck, lambda a, b: a.coalesce(b), dtype, other)
        check_pairs(duck, lambda a, b: when(a.is_null(), b, a), dtype, other)
        check_pairs(duck, lambda a, b: when(b.is_null(), a), dtype, other)


def test_kleene_logic_of_every_pair(duck: duckdb.DuckDBPyConnection) -> None:
    schema, columns = pairs(DType.Boolean, DType.Boolean)
    a, b = col("a"), col("b")
    true, false, null = True, False, None
    assert columns["a"] == [true] * 3 + [false] * 3 + [null] * 3
    assert check(duck, a & b, columns, schema) == [true, false, null, false, false, false, null, false, null]
    assert check(duck, a | b, columns, schema) == [true, true, true, true, false, null, true, null, null]
    assert check(duck, ~a, columns, schema) == [false] * 3 + [true] * 3 + [null] * 3
    assert check(duck, when(a, 1, 0), columns, schema) == [1] * 3 + [0] * 6


@pytest.mark.parametrize("source", list(DType))
def test_casts_of_every_value(duck: duckdb.DuckDBPyConnection, source: DType) -> None:
    stored = DType.Int64 if source is DType.Duration else source
    columns = {"a": [*HOSTILE[source], None]}
    for target in DType:
        expr = col("a").cast(source).cast(target)
        try:
            dtype_of(expr, {"a": stored})
        except Invalid:
            continue
        check(duck, expr, columns, {"a": stored})


def test_functions_of_one_value(duck: duckdb.DuckDBPyConnection) -> None:
    for dtype in COLUMN_TYPES:
        a, columns = col("a"), {"a": [*HOSTILE[dtype], None]}
        built = [a.is_null(), a, a.one_of([value for value in HOSTILE[dtype] if constant(value)][::2])]
        if dtype is DType.Timestamp:
            built = built[:2]
        if dtype.numeric:
            built += [-a, abs(a), a.one_of([1, 2.5, 9007199254740993]), a.one_of([]), abs(-a) * -1]
            built += [a.floor(), a.ceil(), a.round(), a.sqrt(), a.log(), a.exp(), a.clip(-1, 2), a.clip(0.1), a.clip()]
            built += [a.clip(None, 3.0)]
        if dtype in (DType.Float32, DType.Float64):
            built += [a.is_nan(), a.clip(-0.0, 0.0)]
        if dtype is DType.String:
            built += [a.strip(), *(a.slice(*cut) for cut in [(0,), (1,), (0, 0), (2, 3), (1, 2**31 - 1), (2**31 - 1,)])]
            built += [a.lower(), a.upper(), a.length(), a.one_of(["A"])]
        for expr in built:
            check(duck, as_expr(expr), columns, {"a": dtype})


@pytest.mark.parametrize("name", [*PARTS_OF_TEXT, "__add__"])
def test_strings_in_strings_of_every_pair(duck: duckdb.DuckDBPyConnection, name: str) -> None:
    check_pairs(duck, lambda a, b: getattr(a, name)(b), DType.String, DType.String, constants=examples(gate=5, deep=40))


@pytest.mark.parametrize("old", ["", "a", "0", "00", "\0", "é", "\U0010ffff", "'", "{0}", "%"])
def test_replacing_in_every_pair(duck: duckdb.DuckDBPyConnection, old: str) -> None:
    schema, columns = pairs(DType.String, DType.String)
    check(duck, col("a").replace(old, col("b")), columns, schema)
    check(duck, col("a").replace(col("b"), old), columns, schema)


@pytest.mark.parametrize("dtype", COLUMN_TYPES)
def test_least_and_greatest_of_every_pair(duck: duckdb.DuckDBPyConnection, dtype: DType) -> None:
    for other in NUMBERS if dtype.numeric else [dtype]:
        check_pairs(duck, least, dtype, other)
        check_pairs(duck, greatest, dtype, other)
    nan, one = float("nan"), 1.5
    schema, columns = {"a": DType.Float64, "b": DType.Float64}, {"a": [nan, one, None, -0.0], "b": [one, nan, one, 0.0]}
    assert check(duck, least(col("a"), col("b")), columns, schema) == [1.5, 1.5, 1.5, 0.0]
    assert [x != x for x in check(duck, greatest(col("a"), col("b")), columns, schema)] == [True, True, False, False]


def test_a_unit_starts_on_the_wall_clock(duck: duckdb.DuckDBPyConnection) -> None:
    def starts(instant: str, unit: str, zone: str) -> str:
        columns = {"a": [parse_instant(instant)]}
        (found,) = check(duck, col("a").start_of(unit, zone), columns, {"a": DType.Timestamp})
        return to_datetime(found).isoformat()

    # New York's clocks went back from 02:00 (06:00 UTC) to 01:00 on 3 November 2013, and on on 10 March.
    assert starts("2013-11-03T05:30:00Z", "hour", "America/New_York") == "2013-11-03T05:00:00+00:00"
    assert starts("2013-11-03T06:30:00Z", "hour", "America/New_York") == "2013-11-03T06:00:00+00:00"
    assert starts("2013-11-03T20:00:00Z", "day", "America/New_York") == "2013-11-03T04:00:00+00:00"
    assert starts("2013-11-04T20:00:00Z", "day", "America/New_York") == "2013-11-04T05:00:00+00:00"
    assert starts("2013-03-10T20:00:00Z", "day", "America/New_York") == "2013-03-10T05:00:00+00:00"
    assert starts("2013-11-06T20:00:00Z", "week", "America/New_York") == "2013-11-04T05:00:00+00:00"
    assert starts("2013-11-06T20:00:00Z", "month", "America/New_York") == "2013-11-01T04:00:00+00:00"
    assert starts("1969-12-31T23:30:00Z", "week", "UTC") == "1969-12-29T00:00:00+00:00"
    # Lord Howe's went on by half an hour, from 02:00 (15:30 UTC) to 02:30: that hour began when it did.
    assert starts("2013-10-05T15:45:00Z", "hour", "Australia/Lord_Howe") == "2013-10-05T15:30:00+00:00"


@pytest.mark.parametrize("zone", ZONES)
def test_wall_clocks_of_hostile_instants(duck: duckdb.DuckDBPyConnection, zone: str) -> None:
    columns = {"a": [*HOSTILE[DType.Timestamp], None]}
    for part in TIME_PARTS:
        check(duck, getattr(col("a"), part)(zone), columns, {"a": DType.Timestamp})
    for unit in UNITS:
        check(duck, col("a").start_of(unit, zone), columns, {"a": DType.Timestamp})


def test_times_and_durations_of_every_pair(duck: duckdb.DuckDBPyConnection) -> None:
    def span(expr: Expr) -> Expr:
        return expr.cast(DType.Duration)

    for build in (lambda t, d: t + span(d), lambda t, d: t - span(d), lambda t, d: span(d) + t):
        schema, columns = pairs(DType.Timestamp, DType.Int64)
        check(duck, build(col("a"), col("b")), columns, schema)
        for value in HOSTILE[DType.Duration]:
            check(duck, build(col("a"), Literal(value, DType.Duration)), columns, schema)
    check_pairs(duck, lambda a, b: a - b, DType.Timestamp, DType.Timestamp)
    for build in (lambda a, b: span(a) + span(b), lambda a, b: span(a) - span(b), lambda a, b: span(a) / span(b)):
        check_pairs(duck, build, DType.Int64, DType.Int64)
    schema, columns = pairs(DType.Int64, DType.Int32)
    check(duck, span(col("a")) * col("b"), columns, schema)
    check_pairs(duck, lambda a, b: b * span(a), DType.Int64, DType.Int64, constants=examples(gate=4, deep=0x7FFF))


def test_deep_nesting_computes_each_part_once(duck: duckdb.DuckDBPyConnection) -> None:
    schema, columns = pairs(DType.Float64, DType.Float64)
    expr: Any = col("a")
    for _ in range(6):
        expr = when(expr > col("b"), expr - col("b"), abs(expr))
    assert "lambda" in to_sql(expr, schema)
    check(duck, expr, columns, schema)


@settings(max_examples=examples(gate=20, deep=300), deadline=None, suppress_health_check=list(HealthCheck))
@given(expr=expressions(), columns=rows())
def test_random_trees(duck: duckdb.DuckDBPyConnection, expr: Node, columns: dict[str, list[Any]]) -> None:
    check(duck, expr, columns)


@settings(max_examples=examples(gate=12, deep=50), deadline=None)
@given(expr=expressions())
def test_json_keeps_an_expression(expr: Node) -> None:
    again = msgspec.json.decode(msgspec.json.encode(expr), type=Node)
    assert to_sql(again, SCHEMA) == to_sql(expr, SCHEMA)
