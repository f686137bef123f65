"""The third reading of an expression, in plain Python, gives what the online reading gives."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, given, settings

from kit.depth import examples
from kit.expressions import SCHEMA, expressions, rows
from mainspring.core.errors import Invalid
from mainspring.core.expr import Node
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import DType
from mainspring.features.verify.scalars import scalar


def agree(left: Any, right: Any, dtype: DType) -> bool:
    if left is None or right is None or not isinstance(left, float):
        return left is right if left is None or right is None else bool(left == right)
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    # From an Int64 to a Float32 there are two roundings here, by way of a Float64, and one there.
    return math.isclose(left, right, rel_tol=2**-23 if dtype is DType.Float32 else 0.0)


@settings(
    max_examples=examples(gate=100, deep=400),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(expression=expressions(), columns=rows())
def test_plain_python_agrees_with_the_online_reading(expression: Node, columns: dict[str, list[Any]]) -> None:
    try:
        dtype = dtype_of(expression, SCHEMA)
    except Invalid:
        return
    number = len(next(iter(columns.values())))
    vectors = {name: vector(columns[name], SCHEMA[name]) for name in columns_of(expression)}
    wanted = evaluate(expression, vectors, SCHEMA, number).to_list()
    read = scalar(expression, SCHEMA)
    for place in range(number):
        row = {name: vectors[name].to_list()[place] for name in vectors}
        found = read(row)
        assert agree(found, wanted[place], dtype), (expression, row, found, wanted[place])
