"""Weights, against scikit-learn's and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.training_sets import toy
from mainspring.core.errors import Invalid
from mainspring.core.time import DAY
from mainspring.training.sets.weights import class_weights, sample_weights

labels = st.one_of(
    st.lists(st.integers(0, 3), min_size=1, max_size=50).map(lambda values: np.array(values, np.int64)),
    st.lists(st.sampled_from(["bread", "cake"]), min_size=1, max_size=50).map(lambda values: np.array(values, object)),
)


@given(labels)
def test_balanced_is_what_scikit_learn_calls_it(values: np.ndarray) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(values)
    theirs = compute_class_weight("balanced", classes=classes, y=values)
    assert class_weights(values) == pytest.approx(dict(zip(classes.tolist(), theirs, strict=True)))
    ours = class_weights(values)
    assert sample_weights(values, np.zeros(len(values), np.int64)) == pytest.approx([ours[each] for each in values])


@given(labels, st.integers(1, 1000), st.data())
def test_every_class_weighs_the_same_and_the_mean_is_one(
    values: np.ndarray, half_life: int, data: st.DataObject
) -> None:
    at = np.array(sorted(data.draw(st.lists(st.integers(0, 5000), min_size=len(values), max_size=len(values)))))
    weights = sample_weights(values, at, half_life=half_life)
    assert weights.mean() == pytest.approx(1)
    sums = [weights[values == each].sum() for each in np.unique(values)]
    assert sums == pytest.approx([sums[0]] * len(sums))


def test_half_a_life_counts_half() -> None:
    weights = sample_weights(np.zeros(3), np.array([0, 30, 60]) * DAY, balanced=False, half_life=30 * DAY)
    assert weights / weights[-1] == pytest.approx([0.25, 0.5, 1])


def test_a_set_weighs_its_training_rows() -> None:
    data = toy()
    assert set(data.class_weights()) == {0, 1}
    assert len(data.sample_weights(half_life="30d")) == len(data.train)
    regression = toy(task="regression")
    assert regression.sample_weights() == pytest.approx(np.ones(len(regression.train)))
    for wrong in (regression.class_weights, lambda: regression.sample_weights(balanced=True)):
        with pytest.raises(Invalid, match="regression"):
            wrong()
    with pytest.raises(Invalid, match="half-life"):
        data.sample_weights(half_life=0)
