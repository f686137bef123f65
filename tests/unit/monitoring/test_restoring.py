"""A column is mapped back to its training by quantiles: what moved returns, and what did not stays."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.monitoring.incidents.restoring import restored
from mainspring.stats.reference import ColumnReference, profile

RNG = np.random.default_rng(5)
ROWS = 20_000


def reference(values: Any) -> ColumnReference:
    return profile({"x": values}).columns["x"]


NORMAL = reference(RNG.normal(10, 2, ROWS))
HALF_NULL = reference(np.where(RNG.random(ROWS) < 0.5, np.nan, RNG.normal(10, 2, ROWS)))
COUNTS = reference(RNG.poisson(3, ROWS))
COLOURS = reference(RNG.choice(["red", "green", "blue"], ROWS, p=[0.5, 0.3, 0.2]))


@pytest.mark.parametrize("fault", [lambda x: x + 50, lambda x: x * 0, lambda x: -x, lambda x: x * 1e6])
def test_numbers_have_the_distribution_of_the_training_again(fault: Any) -> None:
    found = np.array(restored(fault(RNG.normal(10, 2, 2_000)).tolist(), NORMAL))
    assert abs(found.mean() - 10) < 0.1
    assert abs(found.std() - 2) < 0.1


def test_numbers_keep_their_order_and_those_that_did_not_move_their_value() -> None:
    given_ = RNG.normal(10, 2, 4_000)
    found = np.array(restored(given_.tolist(), NORMAL))
    assert (np.diff(found[np.argsort(given_)]) >= 0).all()
    assert np.abs(found - given_).mean() < 0.1


def test_counts_stay_whole() -> None:
    found = restored([float(each) for each in RNG.poisson(9, 2_000)], COUNTS)
    assert all(each == round(each) for each in found)
    assert abs(np.mean(found) - 3) < 0.2


def test_nulls_are_as_common_as_in_training() -> None:
    for values in ([None] * 1_000, RNG.normal(10, 2, 1_000).tolist()):
        found = restored(values, HALF_NULL)
        assert sum(each is None for each in found) == pytest.approx(500, abs=15)
        assert abs(np.mean([each for each in found if each is not None]) - 10) < 0.3


def test_categories_that_are_too_common_give_way_to_those_that_are_too_rare() -> None:
    found = Counter(restored(["red"] * 100, COLOURS))
    assert found == Counter(restored(["mauve"] * 100, COLOURS))
    assert [found[each] for each in ("red", "green", "blue")] == pytest.approx([50, 30, 20], abs=2)
    usual = ["red", "green", "red", "blue", "red", "green", "red", "green", "red", "blue"]
    assert restored(usual, COLOURS) == usual


@given(st.lists(st.none() | st.floats() | st.floats(-5, 5), max_size=60))
def test_any_numbers_become_numbers_within_the_training(values: list[float | None]) -> None:
    for made in (NORMAL, HALF_NULL, COUNTS):
        found = restored(values, made)
        assert len(found) == len(values)
        assert found == restored(values, made)
        assert all(each is None or (math.isfinite(each) and -20 < each < 40) for each in found)


@given(st.lists(st.none() | st.text(max_size=3) | st.sampled_from(["red", "green"]), max_size=60))
def test_any_texts_become_texts(values: list[str | None]) -> None:
    found = restored(values, COLOURS)
    assert len(found) == len(values)
    assert all(isinstance(each, str) for each in found)
