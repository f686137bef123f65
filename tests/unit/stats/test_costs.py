"""The threshold at which mistakes cost least, against every other one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from mainspring.core.errors import Invalid, InvalidData
from mainspring.stats import metrics
from mainspring.stats.thresholds import THRESHOLD, Costs, decided

probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
costs = st.builds(Costs, false_positive=st.floats(0.1, 10), false_negative=st.floats(0.1, 100))


@given(st.lists(st.tuples(st.booleans(), probabilities), min_size=2, max_size=40), costs)
def test_no_other_threshold_costs_less(rows: list[tuple[bool, float]], given: Costs) -> None:
    y, score = np.array([y for y, _ in rows]), np.array([score for _, score in rows])
    assume(0 < y.sum() < y.size)
    threshold = given.choose(y, score)
    cost = metrics.score("binary", y, score, given.metrics(threshold))["cost"]
    for other in [*score.tolist(), 2.0]:
        flagged = score >= other
        wrong, missed = (flagged & ~y).sum(), (~flagged & y).sum()
        assert cost <= (given.false_positive * wrong + given.false_negative * missed) / y.size + 1e-9


def test_it_lies_between_scores_and_of_several_is_the_highest() -> None:
    y, score = [0, 0, 1, 1], [0.1, 0.2, 0.6, 0.8]
    assert Costs(false_positive=1, false_negative=20).choose(y, score) == pytest.approx(0.4)
    assert Costs(false_positive=1, false_negative=1).choose([1, 0, 1, 0], [0.8, 0.6, 0.4, 0.2]) == pytest.approx(0.7)


@given(st.lists(st.tuples(st.booleans(), probabilities), min_size=1, max_size=40), st.floats(0, 1))
def test_precision_and_recall_are_scikit_learns(rows: list[tuple[bool, float]], threshold: float) -> None:
    y, score = np.array([y for y, _ in rows]), np.array([score for _, score in rows])
    found = metrics.score("binary", y, score, Costs(false_positive=1, false_negative=1).metrics(threshold))
    flagged = score >= threshold
    assert ("precision" in found, "recall" in found) == (flagged.any(), y.any())
    if flagged.any():
        assert found["precision"] == pytest.approx(oracle.precision_score(y, flagged))
    if y.any():
        assert found["recall"] == pytest.approx(oracle.recall_score(y, flagged))
    assert found["cost"] == pytest.approx((flagged != y).mean())


def test_what_a_manifest_keeps_gives_the_same_metrics_again() -> None:
    given = Costs(false_positive=2, false_negative=30)
    kept = decided({THRESHOLD: given.recorded(0.3)})
    y, score = [0, 1, 1], [0.4, 0.2, 0.9]
    assert [each(y, score) for each in kept] == [each(y, score) for each in given.metrics(0.3)] == [32 / 3, 0.5, 0.5]
    assert decided({}) == ()


@pytest.mark.parametrize("cost", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_cost_is_a_positive_number(cost: object) -> None:
    with pytest.raises(Invalid, match="false negative costs"):
        Costs(false_positive=1, false_negative=cost)  # type: ignore[arg-type]


@pytest.mark.parametrize(("y", "score"), [([0, 0], [0.1, 0.2]), ([1, 1], [0.1, 0.2]), ([0, 1], [0.1, float("nan")])])
def test_rows_that_cannot_choose_are_refused(y: list[int], score: list[float]) -> None:
    with pytest.raises(InvalidData, match="No threshold"):
        Costs(false_positive=1, false_negative=1).choose(y, score)
