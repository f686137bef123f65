"""A device computes every expression to the bit as the package does on NumPy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.devices import bits, here, hostile_pairs, on_device
from kit.expressions import HOSTILE, SCHEMA, ZONES, expressions, rows
from mainspring.core.errors import Invalid
from mainspring.core.expr import Node, col
from mainspring.core.expr.types import TIME_PARTS, TIME_STARTS, dtype_of
from mainspring.core.schema import DType, Schema


def check(found: list[list[Any]], wanted: list[list[Any]]) -> None:
    assert [[bits(value) for value in values] for values in found] == [
        [bits(value) for value in values] for values in wanted
    ]


@settings(max_examples=examples(gate=50, deep=3_000))
@given(st.lists(expressions(), min_size=1, max_size=4), rows())
def test_random_expressions_over_hostile_rows(chosen: list[Node], columns: dict[str, list[Any]]) -> None:
    check(on_device(chosen, columns, SCHEMA), here(chosen, columns, SCHEMA))


def test_every_cast_of_every_hostile_value() -> None:
    for dtype, values in HOSTILE.items():
        if dtype is DType.Duration:  # of no column
            continue
        schema: Schema = {"a": dtype}
        casts = [col("a").cast(target) for target in DType if _allowed(dtype, target)]
        columns = {"a": [*values, None]}
        check(on_device(casts, columns, schema), here(casts, columns, schema))


def _allowed(source: DType, target: DType) -> bool:
    try:
        dtype_of(col("a").cast(target), {"a": source})
    except Invalid:
        return False
    return True


def test_every_field_of_every_wall_clock() -> None:
    schema: Schema = {"t": DType.Timestamp}
    fields = [getattr(col("t"), part)(zone) for part in TIME_PARTS for zone in ZONES]
    fields += [col("t").start_of(unit.removeprefix("start_of_"), zone) for unit in TIME_STARTS for zone in ZONES]
    columns = {"t": [*HOSTILE[DType.Timestamp], *range(1383000000_000000, 1384000000_000000, 7_777_777_777), None]}
    check(on_device(fields, columns, schema), here(fields, columns, schema))


@pytest.mark.parametrize("dtype", [DType.String, DType.Int32, DType.Int64, DType.Float32, DType.Float64])
def test_pairs_of_hostile_values(dtype: DType) -> None:
    chosen, columns, schema = hostile_pairs(dtype)
    check(on_device(chosen, columns, schema), here(chosen, columns, schema))
