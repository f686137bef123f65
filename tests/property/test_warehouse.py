"""The statement of each dialect gives the oracle's values; what a dialect cannot give is refused by name."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import deep, examples
from kit.engines import ROOT, python_of
from kit.expressions import SCHEMA as EXPRESSION_SCHEMA
from kit.expressions import expressions, rows
from kit.histories import FIELDS, History, histories
from kit.spark_expressions import agree, text_of
from kit.warehouse import as_run_here, by_duckdb, check, instants_of
from mainspring.core.errors import Invalid
from mainspring.core.expr import Node, col
from mainspring.core.expr.dialects import DIALECTS, DUCKDB, Dialect
from mainspring.core.expr.dialects import dialect as dialect_named
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.expr.warehouse_sql import to_warehouse_sql
from mainspring.core.schema import DType
from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.features.layout import SKETCHES, layout_of
from mainspring.features.warehouse import Tables, statement

COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=examples(gate=4, deep=60),
)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@COMMON
@given(history=histories(), data=st.data())
def test_a_statement_is_the_oracle(dialect: Dialect, history: History, data: st.DataObject) -> None:
    arrival, history = data.draw(st.sampled_from([None, "_seq"])), as_run_here(history, dialect)
    check(history, data.draw(instants_of(history)), dialect, arrival, by_duckdb(dialect))


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@COMMON
@given(history=histories())
def test_a_statement_is_read_by_a_parser_or_refused_by_name(dialect: Dialect, history: History) -> None:
    sketches = [each.name for each in layout_of(history.view).windows if set(each.parts) & set(SKETCHES)]
    if sketches:
        with pytest.raises(Invalid, match=rf"{dialect.name} has no exact equal of 'Facts\.({'|'.join(sketches)}), a"):
            statement([history.view], dialect, Tables())
        return
    text = statement([history.view, history.ask], dialect, Tables(), fields=FIELDS)
    (tree,) = sqlglot.parse(text, dialect=dialect.name)
    assert tree is not None
    assert not list(tree.find_all(sqlglot.exp.Command))


@COMMON
@given(history=histories())
def test_a_feature_that_is_left_out_is_not_refused(history: History) -> None:
    sketches = {each.name for each in layout_of(history.view).windows if set(each.parts) & set(SKETCHES)}
    left = [f"Facts.{name}" for name in history.view.features if name not in sketches]
    if left:
        text = statement([history.view], DIALECTS["spark"], Tables(), columns=left)
        assert all(f"`{name}`" in text for name in left)


@pytest.mark.parametrize(
    ("engine", "program", "least"),
    [
        ("spark", ("kit.warehouse_engines", "spark", "40"), 1000),
        ("snowflake", ("kit.warehouse_engines", "snowflake", "60"), 1000),
        ("spark", ("kit.spark_expressions", "60"), 1000),
    ],
    ids=["spark", "snowflake", "spark-expressions"],
)
@deep
@pytest.mark.timeout(1800)
def test_the_engine_itself_gives_the_oracles_values(engine: str, program: tuple[str, ...], least: int) -> None:
    ran = subprocess.run(
        [str(python_of(engine)), "-W", "ignore", "-m", *program],
        cwd=ROOT / "tests", env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    equal, of = re.findall(r"(\d+) of (\d+) values", ran.stdout)[-1]
    assert int(equal) == int(of) > least


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@settings(COMMON, max_examples=examples(gate=5, deep=300))
@given(expression=expressions(3))
def test_an_expression_is_read_by_a_parser_or_refused(dialect: Dialect, expression: Node) -> None:
    try:
        text = to_warehouse_sql(expression, EXPRESSION_SCHEMA, dialect, lambda name, _: dialect.column(name))
    except Invalid as refused:
        if not re.search(rf"characters in|{dialect.name} has no exact equal of", str(refused)):
            raise
        return
    if len(text) < 5_000:
        (tree,) = sqlglot.parse(f"SELECT {text} AS v", dialect=dialect.name)
        assert tree is not None


@settings(COMMON, max_examples=examples(gate=15, deep=1000))
@given(columns=rows(), expression=expressions(3))
def test_an_expression_in_duckdbs_dialect_is_as_it_is_online(columns: dict[str, list[Any]], expression: Node) -> None:
    text, types = text_of(expression, DUCKDB), ARROW_TYPES
    if text is None:
        return
    table = pa.table({name: pa.array(columns[name], types[dtype]) for name, dtype in EXPRESSION_SCHEMA.items()})
    vectors = {name: vector(columns[name], EXPRESSION_SCHEMA[name]) for name in columns_of(expression)}
    wanted = evaluate(expression, vectors, EXPRESSION_SCHEMA, len(table)).to_list()
    with duck.session() as con:
        con.register("hostile", table)
        found = [value for (value,) in con.sql(f"SELECT {text} FROM hostile AS h").fetchall()]
    for row, (theirs, ours) in enumerate(zip(found, wanted, strict=True)):
        assert agree(theirs, ours), (text, {name: columns[name][row] for name in vectors}, theirs, ours)


def test_what_has_no_equal_is_refused_by_name() -> None:
    schema = {"s": DType.String, "x": DType.Float64, "y": DType.Float32, "t": DType.Timestamp}

    def write(expression: Node, name: str) -> str:
        return to_warehouse_sql(expression, schema, DIALECTS[name], lambda column, _: column)

    for name in ("snowflake", "bigquery"):
        with pytest.raises(Invalid, match=f"{name} has no exact equal of 'cast of text to Int64'"):
            write(col("s").cast(DType.Int64), name)
        with pytest.raises(Invalid, match=f"{name} has no exact equal of 'float32'"):
            write(col("x").cast(DType.Float32), name)
    with pytest.raises(Invalid, match="There is no dialect 'oracle'"):
        dialect_named("oracle")
    deep_one = col("x")
    for _ in range(40):
        deep_one = deep_one.clip(0, 1)
    with pytest.raises(Invalid, match="more than 200,000 characters in spark"):
        write(deep_one, "spark")


def test_spark_is_given_only_escapes_that_it_knows() -> None:
    text = to_warehouse_sql(col("s").strip(), {"s": DType.String}, DIALECTS["spark"], lambda column, _: column)
    (stripped,) = re.findall(r"'(.*)'", text)
    assert stripped.encode().decode("unicode_escape") == " \t\n\r\f\v"
    assert not re.findall(r"\\[^nrtu]", stripped)


def test_names_and_text_cannot_leave_their_quotes() -> None:
    for dialect in DIALECTS.values():
        for hostile in ("a'b", "a\\'b", 'a"b', "a`b", "a\\", "\n;--"):
            (tree,) = sqlglot.parse(f"SELECT {dialect.text(hostile)} AS x", dialect=dialect.name)
            (literal,) = tree.find_all(sqlglot.exp.Literal)
            assert literal.is_string
    with pytest.raises(Invalid, match="is not a table's name"):
        DIALECTS["spark"].table("lake..orders")
    with pytest.raises(Invalid, match="cannot name a column in snowflake"):
        DIALECTS["snowflake"].column("a\nb")
