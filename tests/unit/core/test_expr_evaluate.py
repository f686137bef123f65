"""What `evaluate` does beside what the property tests compare with DuckDB: shapes, conversion, caching."""

import gc
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mainspring.core.errors import InvalidData
from mainspring.core.expr import as_expr, col, days, greatest, least, when
from mainspring.core.expr.evaluate import Vector, evaluate, vector
from mainspring.core.schema import DType


def value(expr: Any, dtype: DType, *values: Any) -> list[Any]:
    return evaluate(expr, {"a": vector(values, dtype)}, {"a": dtype}, len(values)).to_list()


def test_the_documented_rules() -> None:
    a = col("a")
    nan = float("nan")
    assert value(a > 15, DType.Float64, nan, 16.0, None) == [False, True, None]
    assert value(a == a, DType.Float64, nan, 1.0) == [False, True]
    assert value(1 / a, DType.Float64, 0.0, -0.0, 2.0) == [None, None, 0.5]
    assert value(a + 1, DType.Int64, 2**63 - 1, 1) == [None, 2]
    assert value(a * -1, DType.Int64, -(2**63), 3) == [None, -3]
    assert value(a.cast(DType.Int32), DType.Float64, 2.9, -2.9, nan, 2.0**31) == [2, -2, None, None]
    assert value(a.cast(DType.Float32), DType.Float64, 1e300, 0.1) == [None, pytest.approx(0.1)]
    assert value(when(a, 1, 0), DType.Boolean, True, False, None) == [1, 0, 0]
    assert value(a.lower(), DType.String, "ÀB", "Ab") == ["Àb", "ab"]
    assert value(a.one_of(["x"]), DType.String, "x", "y", None) == [True, False, None]
    assert value(a + days(365 * 8000), DType.Timestamp, 0, 10**17) == [365 * 8000 * 86_400 * 10**6, None]


def test_the_documented_rules_of_functions() -> None:
    a = col("a")
    nan, inf = float("nan"), float("inf")
    assert value(a.round(), DType.Float64, 0.5, 1.5, -2.5, 2.6) == [0.0, 2.0, -2.0, 3.0]
    assert value(a.floor(), DType.Float32, -1.5, 2.0) == [-2.0, 2.0]
    assert value(a.ceil(), DType.Int64, 3, None) == [3, None]
    assert value(a.sqrt(), DType.Int64, 9, -1, None) == [3.0, None, None]
    assert value(a.log(), DType.Float64, 1.0, 0.0, -1.0, inf) == [0.0, None, None, inf]
    assert value(a.exp(), DType.Float64, 0.0, 1e6, -1e6) == [1.0, inf, 0.0]
    assert value(a.clip(0, 1), DType.Float64, -0.5, 0.5, 9.0, None) == [0.0, 0.5, 1.0, None]
    assert value(a.clip(high=2.5), DType.Int64, 1, 9) == [1.0, 2.5]
    assert value(a.is_nan(), DType.Float64, nan, 1.0, None) == [True, False, None]
    assert value(least(a, 2), DType.Float64, 1.0, nan, None) == [1.0, 2.0, 2.0]
    assert value(greatest(a, 1, 3), DType.Int64, 2, 7, None) == [3, 7, 3]
    assert value(a + "-" + a, DType.String, "x", None) == ["x-x", None]
    assert value(a.slice(1, 2), DType.String, "abcd", "a", "") == ["bc", "", ""]
    assert value(a.strip(), DType.String, " \t a b\n", "\u00a0x") == ["a b", "\u00a0x"]
    assert value(a.replace("ab", ""), DType.String, "aabb") == ["ab"]
    assert value(a.replace("", "x"), DType.String, "ab") == ["ab"]
    assert value(a.contains(""), DType.String, "", "a") == [True, True]
    assert value(a.starts_with("a") & a.ends_with("b"), DType.String, "ab", "ba") == [True, False]


def test_wall_clocks_across_a_fold() -> None:
    zone = "America/New_York"
    instants = [datetime(2013, 11, 3, hour, 30, tzinfo=UTC) for hour in (4, 5, 6, 7)]
    assert value(col("a").hour(zone), DType.Timestamp, *instants) == [0, 1, 1, 2]
    assert value(col("a").weekday(zone), DType.Timestamp, datetime(2013, 7, 1, 3, tzinfo=UTC)) == [7]
    assert value(col("a").month(), DType.Timestamp, datetime(1969, 12, 31, 23, 59, tzinfo=UTC)) == [12]


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("expr", [as_expr(7), col("a"), col("a") + 7, when(col("a") > 0, 1), as_expr(1) + 2])
def test_shape_and_type_for_any_number_of_rows(expr: Any, rows: int) -> None:
    result = evaluate(expr, {"a": vector([1] * rows, DType.Int64)}, {"a": DType.Int64}, rows)
    assert result.values.shape == result.valid.shape == (rows,)
    assert (result.values.dtype, result.valid.dtype) == (np.int64, np.bool_)


def test_inputs_are_not_changed() -> None:
    given = vector([1.0, None], DType.Float64)
    before = (given.values.copy(), given.valid.copy())
    evaluate(-col("a").coalesce(5), {"a": given}, {"a": DType.Float64}, 2)
    np.testing.assert_array_equal(given.values, before[0])
    np.testing.assert_array_equal(given.valid, before[1])


def test_one_expression_under_two_schemas() -> None:
    expr = col("a") + 1
    for _ in range(2):
        assert value(expr, DType.Int64, 2**53) == [2**53 + 1]
        assert value(expr, DType.Float64, 2.0**53) == [2.0**53]


def test_a_new_expression_in_the_place_of_an_old_one_is_itself() -> None:
    for number in range(6_000):
        assert value(col("a") + number, DType.Int64, 1) == [1 + number]
        if number % 2_000 == 0:
            gc.collect()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", None, ""], DType.String),
        ([True, None], DType.Boolean),
        ([-(2**31), None, 2**31 - 1], DType.Int32),
        ([-(2**63), None, 2**63 - 1], DType.Int64),
        ([0.5, None, -0.0], DType.Float32),
        ([0.1, None, float("inf")], DType.Float64),
        ([0, None], DType.Timestamp),
        ([None, None], DType.String),
        ([], DType.Float32),
    ],
)
def test_plain_values_come_back(values: list[Any], dtype: DType) -> None:
    assert repr(vector(values, dtype).to_list()) == repr(values)


def test_what_may_stand_for_a_type() -> None:
    assert vector([1], DType.Float32).to_list() == [1.0]
    assert vector([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), None], DType.Timestamp).to_list() == [1_000_000, None]


@pytest.mark.parametrize(
    ("values", "dtype", "says"),
    [
        (["1.5"], DType.Float64, "'1.5' of type str is not a Float64"),
        ([True], DType.Float64, "True of type bool"),
        ([True], DType.Int64, "True of type bool"),
        ([1.0], DType.Int64, "1.0 of type float"),
        ([1], DType.String, "1 of type int"),
        ([1], DType.Boolean, "1 of type int"),
        ([None, 2**31], DType.Int32, "2147483648 does not fit Int32"),
        ([2**63], DType.Int64, "9223372036854775808 does not fit Int64"),
        ([1e300], DType.Float32, r"1e\+300 does not fit Float32"),
        ([10**400], DType.Float64, "does not fit Float64"),
    ],
)
def test_what_does_not_fit_a_type_is_named(values: list[Any], dtype: DType, says: str) -> None:
    with pytest.raises(InvalidData, match=says):
        vector(values, dtype)


def test_strings_are_plain_python_strings() -> None:
    result = evaluate(col("a").upper(), {"a": vector(["a"], DType.String)}, {"a": DType.String}, 1)
    assert isinstance(result, Vector)
    assert type(result.to_list()[0]) is str
