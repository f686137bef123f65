"""A program for Spark's environment: random expressions over hostile values, there and as they are evaluated online."""

from __future__ import annotations

import math
import sys
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kit.expressions import SCHEMA, expressions, rows
from kit.warehouse_engines import session
from mainspring.core.errors import Invalid
from mainspring.core.expr import Node
from mainspring.core.expr.dialects import SPARK, Dialect
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.render import render
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.expr.warehouse_sql import to_warehouse_sql
from mainspring.core.schema import DType
from mainspring.data.arrow import ARROW_TYPES

TOGETHER = 10  # expressions of one statement
LONGEST = 15_000  # characters of one


def text_of(node: Node, dialect: Dialect = SPARK) -> str | None:
    """An expression's SQL over the columns of `h`; `None` if it is so long that Spark takes minutes to read it."""

    def column(name: str, dtype: DType) -> str:
        raw = f"h.{dialect.column(name)}"
        return dialect.write("micros", raw) if dtype is DType.Timestamp else raw

    try:
        text = to_warehouse_sql(node, SCHEMA, dialect, column)
    except Invalid as refused:
        if "characters in" not in str(refused):
            raise
        return None
    return text if len(text) < LONGEST else None


def agree(found: Any, wanted: Any) -> bool:
    if type(found) is not type(wanted):
        return False
    if not isinstance(wanted, float) or not (math.isfinite(wanted) and math.isfinite(found)):
        return found == wanted or (wanted != wanted and found != found)
    # Java's EXP and LN may differ in the last bit.
    return math.isclose(found, wanted, rel_tol=1e-13, abs_tol=1e-300)


def main(examples: int) -> None:
    equal, wrong = 0, []
    with session("expressions") as spark:

        @settings(
            max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(columns=rows(), nodes=st.lists(expressions(3), min_size=TOGETHER, max_size=TOGETHER))
        def compare(columns: dict[str, list[Any]], nodes: list[Node]) -> None:
            nonlocal equal
            table = pa.table({name: pa.array(columns[name], ARROW_TYPES[dtype]) for name, dtype in SCHEMA.items()})
            number = list(range(len(table)))
            numbered = table.append_column("number", pa.array(number, pa.int64()))
            spark.createDataFrame(numbered).createOrReplaceTempView("hostile")
            written = [(node, text) for node in nodes for text in [text_of(node)] if text is not None]
            if not written:
                return
            values = [f"{text} AS v{n}" for n, (_, text) in enumerate(written)]
            found = spark.sql(f"SELECT number, {', '.join(values)} FROM hostile AS h ORDER BY number").toArrow()
            for n, (node, _) in enumerate(written):
                vectors = {name: vector(columns[name], SCHEMA[name]) for name in columns_of(node)}
                wanted = evaluate(node, vectors, SCHEMA, len(table)).to_list()
                for row, (ours, theirs) in enumerate(zip(wanted, found.column(f"v{n}").to_pylist(), strict=True)):
                    if agree(theirs, ours):
                        equal += 1
                    else:
                        of = {name: columns[name][row] for name in columns_of(node)}
                        wrong.append(
                            f"{render(node)} of {of}: {theirs!r}, should be {ours!r} {dtype_of(node, SCHEMA)!r}"
                        )

        compare()
    for each in wrong[:40]:
        print(each)
    print(f"spark: {equal} of {equal + len(wrong)} values of expressions equal")
    assert not wrong


if __name__ == "__main__":
    main(int(sys.argv[1]))
