"""A subset of the observations is spread evenly over time, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.training.sets.assemble import subset


def rows(number: int) -> pa.Table:
    return pa.table({"at": np.arange(number)})


@given(number=st.integers(0, 5_000), share=st.floats(0.001, 1.0), seed=st.integers(0, 9))
def test_every_part_of_the_time_has_its_share(number: int, share: float, seed: int) -> None:
    taken = subset(rows(number), share, seed)["at"].to_numpy()
    assert len(taken) == (number if share == 1 else max(1, round(number * share)) if number else 0)
    assert (np.diff(taken) > 0).all()  # in order, none twice
    expected = np.arange(1, len(taken) + 1) * number / max(1, len(taken))
    assert (np.abs(taken - expected) <= number / max(1, len(taken)) + 1).all()


def test_the_choice_is_by_the_seed_and_has_no_period() -> None:
    first, again, other = (subset(rows(10_000), 0.1, seed)["at"].to_numpy() for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    of_hour = np.bincount(first % 10, minlength=10)
    assert of_hour.min() > 60  # a hundred of each in the mean


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_no_other_share(share: float) -> None:
    with pytest.raises(Invalid, match="share"):
        subset(rows(10), share, 0)
