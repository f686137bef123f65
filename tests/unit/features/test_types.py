from __future__ import annotations

from typing import Any

import pytest

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.data.model import Source
from mainspring.features.declaring import feature_view, request_features
from mainspring.features.layout import feature_dtype
from mainspring.features.model import Aggregation, Entity, FeatureView

KEY = Entity("k", keys={"k": ms.String})
COLUMNS = {
    "s": ms.String, "b": ms.Boolean, "i": ms.Int32, "l": ms.Int64, "f": ms.Float32, "d": ms.Float64, "t": ms.Timestamp,
}  # fmt: skip
SOURCE = Source("rows", schema={"k": ms.String, **COLUMNS}, event_time="at")


def one(feature: Aggregation) -> FeatureView:
    return feature_view(entity=KEY, source=SOURCE)(type("View", (), {"x": feature}))


@pytest.mark.parametrize("column", COLUMNS)
def test_last_and_extremes_keep_the_type(column: str) -> None:
    for feature in (ms.last(column), ms.min(column, window="1h"), ms.max(column, window="1h")):
        assert feature_dtype(one(feature), "x") == COLUMNS[column]


@pytest.mark.parametrize("column", COLUMNS)
def test_the_oldest_the_newest_and_the_most_frequent_keep_the_type(column: str) -> None:
    for feature in (ms.first(column, window="1h"), ms.last(column, window="1h"), ms.last_k(column, 2, window="1h")[2]):
        assert feature_dtype(one(feature), "x") == COLUMNS[column]
    if COLUMNS[column] in (DType.Float32, DType.Float64):
        for feature in (ms.top_k(column, 1, window="1h")[1], ms.distinct(column, window="1h")):
            with pytest.raises(Invalid, match=r"cannot count the values of a Float.*cast or round it"):
                feature_dtype(one(feature), "x")
    else:
        assert feature_dtype(one(ms.top_k(column, 1, window="1h")[1]), "x") == COLUMNS[column]
        assert feature_dtype(one(ms.distinct(column, window="1h")), "x") == DType.Int64


@pytest.mark.parametrize("column", COLUMNS)
def test_a_count_is_an_integer(column: str) -> None:
    assert feature_dtype(one(ms.count(column, window="1h")), "x") == DType.Int64


def _median(of: Any, window: str) -> Aggregation:
    return ms.quantile(of, 0.5, window=window)


@pytest.mark.parametrize("kind", [ms.sum, ms.mean, ms.variance, ms.std, _median])
@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ("f", DType.Float32), ("i", DType.Float32), ("b", DType.Float32), (ms.col("d") > 1, DType.Float32),
        ("d", DType.Float64), ("l", DType.Float64), (ms.col("f") * 2, DType.Float64),
    ],
)  # fmt: skip
def test_averages_are_wide_where_their_values_are(kind: Any, of: Any, wanted: DType) -> None:
    assert feature_dtype(one(kind(of, window="1h")), "x") == wanted


@pytest.mark.parametrize(
    "feature",
    [
        ms.mean("s", window="1h"),
        ms.sum("t", window="1h"),
        ms.last(ms.col("t") - ms.col("at")),
        ms.last("nobody"),
        Aggregation(kind="sum", window=3_600_000_000),
    ],
)
def test_what_has_no_type_is_refused(feature: Aggregation) -> None:
    with pytest.raises(Invalid):
        feature_dtype(one(feature), "x")


def test_a_request_feature_has_its_expressions_type() -> None:
    @request_features
    class Request:
        far = ms.col("distance") > 1000
        half = ms.col("distance") / 2

    schema = {"distance": ms.Int64}
    assert feature_dtype(Request, "far", schema) == DType.Boolean
    assert feature_dtype(Request, "half", schema) == DType.Float64
