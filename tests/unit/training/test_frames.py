"""Columns for an estimator and for a bundle's model read the same values and the same nulls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mainspring.core.errors import Invalid, NotConvertible
from mainspring.core.schema import DType
from mainspring.training.frames import check_feature_types, exact_in_float32, to_feeds, to_frame

TABLE = pa.table(
    {
        "V.f": pa.array([1.5, None, float("nan")], pa.float32()),
        "V.d": pa.array([0.1, None, 2.0], pa.float64()),
        "V.i": pa.array([2**40, None, -3], pa.int64()),
        "V.n": pa.array([1, 2, 3], pa.int32()),
        "V.b": pa.array([True, None, False], pa.bool_()),
        "V.s": pa.array(["ü", None, ""], pa.string()),
    }
)
DTYPES = {
    "V.f": DType.Float32,
    "V.d": DType.Float64,
    "V.i": DType.Int64,
    "V.n": DType.Int32,
    "V.b": DType.Boolean,
    "V.s": DType.String,
}


def test_every_type_has_one_dtype_with_and_without_nulls() -> None:
    dtypes = ["float32", "float64", "float64", "float64", "float32", "object"]
    for table in (TABLE, TABLE.slice(0, 1), TABLE.slice(0, 0)):
        assert [str(dtype) for dtype in to_frame(table, DTYPES).dtypes] == dtypes


def test_values_and_nulls() -> None:
    frame = to_frame(TABLE, DTYPES)
    nan = float("nan")
    expected = {
        "V.f": [1.5, nan, nan],
        "V.d": [0.1, nan, 2.0],
        "V.i": [float(2**40), nan, -3.0],
        "V.n": [1.0, 2.0, 3.0],
        "V.b": [1.0, nan, 0.0],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values)
    assert frame["V.s"].tolist() == ["ü", None, None]


def test_columns_come_in_the_order_asked_and_no_others() -> None:
    assert list(to_frame(TABLE, {"V.s": DType.String, "V.f": DType.Float32}).columns) == ["V.s", "V.f"]


def test_a_models_inputs_are_columns_of_its_own_types() -> None:
    graph = [("V.s", "tensor(string)"), ("V.i", "tensor(double)"), ("V.f", "tensor(float)")]
    feeds = to_feeds(to_frame(TABLE, DTYPES), graph)
    assert [(name, each.shape, each.dtype) for name, each in feeds.items()] == [
        ("V.s", (3, 1), np.dtype(object)),
        ("V.i", (3, 1), np.dtype(np.float64)),
        ("V.f", (3, 1), np.dtype(np.float32)),
    ]
    assert feeds["V.s"].ravel().tolist() == ["ü", "", ""]
    np.testing.assert_array_equal(feeds["V.i"].ravel(), [float(2**40), np.nan, -3.0])


def test_a_type_that_has_no_place_for_nulls_is_refused_by_name() -> None:
    with pytest.raises(NotConvertible, match=r"'V\.b': 'tensor\(bool\)'"):
        to_feeds(to_frame(TABLE, DTYPES), [("V.f", "tensor(float)"), ("V.b", "tensor(bool)")])


def test_a_null_string_of_any_kind_is_empty() -> None:
    frame = pd.DataFrame({"V.s": pd.Series(["a", None], dtype=object)})
    assert to_feeds(frame, [("V.s", "tensor(string)")])["V.s"].ravel().tolist() == ["a", ""]


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        ([1.5, 2**24, np.nan, np.inf], True),
        ([], True),
        ([2**24 + 1.0], False),
        ([0.1], False),
        ([float(np.float32(0.1))], True),
        ([1e300], False),
        ([1e-60], False),
    ],
)
def test_what_float32_holds(values: list[float], exact: bool) -> None:
    assert exact_in_float32(np.array(values, np.float64)) is exact


@pytest.mark.parametrize("dtype", [DType.Timestamp, DType.Duration])
def test_times_are_no_features(dtype: DType) -> None:
    check_feature_types(DTYPES)
    with pytest.raises(Invalid, match=r"'V\.at' is a "):
        check_feature_types({**DTYPES, "V.at": dtype})
