"""Where a value lies, against all the training values it was binned from."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.console.predictions.percentile import place
from mainspring.stats.reference import profile_column

RNG = np.random.default_rng(5)
NORMAL = RNG.normal(10, 3, 20_000)
COLUMN = profile_column(NORMAL)


@given(st.floats(0.02, 0.98))
def test_a_percentile_is_that_of_the_training_values(rank) -> None:
    value = float(np.quantile(NORMAL, rank))
    said = int(re.fullmatch(r"(\d+)(st|nd|rd|th) percentile", str(place(COLUMN, value).text))[1])
    assert abs(said - 100 * np.mean(value >= NORMAL)) <= 1.0


@pytest.mark.parametrize(("value", "side"), [(NORMAL.min() - 50, "lowest"), (NORMAL.max() + 50, "highest")])
def test_the_tails_are_unusual(value, side) -> None:
    found = place(COLUMN, float(value))
    assert found.unusual
    assert found.text == f"among the {side} 1.6%"
    assert '<polygon class="here"' in found.picture


def test_a_common_value_is_the_same_as_many() -> None:
    found = place(profile_column(np.concatenate([np.zeros(700), RNG.random(300) + 1])), 0.0)
    assert (found.text, found.unusual) == ("the same as 70.0% of training", False)


def test_a_value_outside_all_of_training_is_said_to_be() -> None:
    months = profile_column(np.repeat(np.arange(1.0, 7.0), 500))
    assert place(months, 8).text == "above everything in training"
    assert place(months, 8).unusual
    assert place(months, 3).text == "the same as 16.7% of training"
    constant = profile_column(np.full(100, 4.0))
    assert place(constant, 3.0).text == "below everything in training"
    assert place(constant, 5.0).text == "above everything in training"
    assert not place(constant, 4.0).unusual


def test_categories() -> None:
    column = profile_column(["UA"] * 60 + ["B6"] * 39 + ["HA"])
    assert (place(column, "UA").text, place(column, "UA").unusual) == ("60.0% of training", False)
    assert place(column, "ZZ").text == "did not occur in training"
    assert place(column, "ZZ").unusual
    assert place(column, "B6").picture.count('class="here"') == 1


def test_a_category_that_was_too_rare_for_a_bin() -> None:
    column = profile_column([f"c{i % 100}" for i in range(5_000)])
    known = set(column.categories)
    rare = next(name for name in (f"c{i}" for i in range(100)) if name not in known)
    assert place(column, rare).text == "rare: not among the 64 most frequent"


def test_nulls() -> None:
    with_nulls = profile_column([None] * 40 + [1.0, 2.0, 3.0] * 20)
    assert (place(with_nulls, None).text, place(with_nulls, None).unusual) == ("null, like 40.0% in training", False)
    assert place(COLUMN, None).text == "null, which did not occur in training"
    assert place(COLUMN, math.nan).unusual
    assert place(profile_column([None, None]), 3.0).text == "only nulls in training"


def test_flags_are_numbers() -> None:
    column = profile_column([True] * 30 + [False] * 70)
    assert place(column, True).text == "the same as 30.0% of training"


def test_the_silhouette_has_the_shape_of_the_data() -> None:
    points = re.search(r'<polygon points="([^"]+)"', place(COLUMN, 10.0).picture)[1].split()
    heights = [30 - float(point.split(",")[1]) for point in points[1:-1:2]]
    middle, left, right = heights[14], heights[1], heights[-2]
    assert middle > 3 * left
    assert middle > 3 * right


def test_every_kind_of_column_can_be_drawn() -> None:
    for values in (np.zeros(10), np.array([1.0]), np.array([1e300, -1e300]), np.array([]), ["x"], [None], [True]):
        column = profile_column(values)
        for value in (0.0, -1, 1e308, "x", None, True):
            found = place(column, value)
            assert "nan" not in found.picture
            assert "inf" not in found.picture
