from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.expr import as_expr, col, when
from mainspring.core.expr.sql import quote_name, quote_text, to_sql
from mainspring.core.schema import DType

NAMES = ['"', "a b", "select", "x;--", "é", "'", "x\\", "%s", "{0}", "$1", "?", '";DROP TABLE t;--', "/*", "\n"]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_of_columns_and_tables_are_only_names(name: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE {quote_name(name)} ({quote_name(name)} DOUBLE)")
        connection.execute(f"INSERT INTO {quote_name(name)} VALUES (2)")
        sql = to_sql(col(name) * col(name), {name: DType.Float64}, qualifier=name)
        assert connection.execute(f"SELECT {sql} FROM {quote_name(name)}").fetchall() == [(4.0,)]


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_hostile_texts_are_only_texts(duck: duckdb.DuckDBPyConnection, text: str) -> None:
    found = to_sql(as_expr(text).one_of([text, "x"]), {})
    assert duck.execute(f"SELECT {quote_text(text)}, {found}").fetchall() == [(text, True)]


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot name a column"):
        to_sql(col("a\0b"), {"a\0b": DType.Int64})


def test_a_qualifier_stands_before_every_column() -> None:
    schema = {"a": DType.Float64, "b": DType.Boolean}
    assert to_sql(when(col("b"), -col("a")), schema, qualifier="t").count('"t".') == 2
    assert "." not in to_sql(col("a"), schema)


def test_a_condition_on_a_constant_stays_one_comparison() -> None:
    """So that DuckDB can push it down and skip row groups."""
    sql = to_sql(col("y") > 15, {"y": DType.Float64})
    assert sql.count('"y"') == 1
    assert "CASE" not in sql


def test_nesting_does_not_multiply_the_text() -> None:
    expr = col("y")
    sizes = []
    for _ in range(12):
        expr = when(expr > col("z"), expr * col("y"), col("z"))
        sizes.append(len(to_sql(expr, {"y": DType.Float64, "z": DType.Float64})))
    assert sizes[-1] < 2_000_000
