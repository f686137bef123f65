"""Segments: the same for each window's values, named so that a person knows which rows are in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mainspring.stats.reference import ColumnReference, profile_column
from mainspring.stats.segmenting import AND, MOST_VALUES, quarters, segments_of


def named(values: Any, column: ColumnReference | None) -> list[str]:
    places, names = segments_of("F.x", values, column)
    assert len({*names}) == len(names)
    return [names[place].removeprefix("F.x=") for place in places.tolist()]


def test_texts_are_segments_by_the_categories_of_training() -> None:
    column = profile_column(["JFK"] * 5 + ["EWR"] * 5 + [None])
    assert named(["EWR", "JFK", "LHR", None, 3], column) == ["EWR", "JFK", "(other)", "null", "(other)"]
    assert named(pa.array(["JFK", None]), column) == ["JFK", "null"]


def test_few_numbers_are_segments_each() -> None:
    hours = profile_column(np.repeat(np.arange(6.0, 12.0), 50))
    assert named([6, 11.0, 12, None, 6.5], hours) == ["6", "11", "(other)", "null", "(other)"]
    truths = profile_column(np.repeat([0.0, 1.0], 50))
    assert named([True, False, None], truths) == ["true", "false", "null"]


def test_many_numbers_are_in_quarters_of_training_whichever_rows_come() -> None:
    column = profile_column(np.arange(1.0, 1001.0))
    edges, names = quarters(column)
    assert names == ("up to 250", "250 to 500", "500 to 750", "over 750")
    values = [1.0, *edges.tolist(), 1e9, math.nan, None, math.inf, "x"]
    whole = named(values, column)
    assert whole == [*names[:1] * 2, *names[1:], "null", "null", names[3], "null"]
    assert [named([value], column)[0] for value in values] == whole  # one by one as together
    assert not any(AND in name for name in names)  # which would look like two segments


def test_quarters_with_one_edge_are_one() -> None:
    column = profile_column(np.r_[np.zeros(700), np.arange(1.0, 301.0)])
    assert quarters(column)[1] == ("up to 0", "0 to 50", "over 50")
    assert named([-1.0, 0.0, 60.0], column) == ["up to 0", "up to 0", "over 50"]


@pytest.mark.parametrize("column", [None, profile_column([])])
def test_without_training_the_commonest_values_are_segments(column: ColumnReference | None) -> None:
    values = [f"v{number % 100}" for number in range(10_000)] + ["v1", "v2", None, 3.0, True]
    found = named(values, column)
    assert len({*found}) == MOST_VALUES + 2
    assert found[10_000:10_003] == ["v1", "v2", "null"]


def test_a_million_values_are_a_bounded_number_of_segments() -> None:
    texts = profile_column([f"user{number}" for number in range(20_000)])
    assert len(segments_of("F.user", [f"user{number}" for number in range(50_000)], texts)[1]) < 100
