"""Metrics against scikit-learn's."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from mainspring.core.errors import Invalid
from mainspring.stats import metrics
from mainspring.stats.intervals import row_losses
from mainspring.stats.metrics import accuracy
from mainspring.stats.thresholds import Costs

probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
binary_rows = st.lists(st.tuples(st.booleans(), probabilities), min_size=1, max_size=60)
numbers = st.floats(-1e6, 1e6)


@given(binary_rows)
def test_binary_metrics_are_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    y, score = np.array([y for y, _ in rows], dtype=np.int64), np.array([score for _, score in rows])
    assert metrics.brier(y, score) == pytest.approx(oracle.brier_score_loss(y, score, pos_label=1), abs=1e-12)
    assert metrics.log_loss(y, score) == pytest.approx(oracle.log_loss(y, score, labels=[0, 1]), rel=1e-9, abs=1e-9)
    assert metrics.accuracy(y, score) == pytest.approx(oracle.accuracy_score(y, score >= 0.5))
    if 0 < y.sum() < y.size:
        assert metrics.auc(y, score) == pytest.approx(oracle.roc_auc_score(y, score), abs=1e-12)
    else:
        assert math.isnan(metrics.auc(y, score))


@given(st.lists(st.tuples(st.integers(0, 2), st.tuples(*[st.floats(0.01, 1)] * 3)), min_size=1, max_size=40))
def test_metrics_of_several_classes_are_scikit_learns(rows: list[tuple[int, tuple[float, ...]]]) -> None:
    y, score = np.array([y for y, _ in rows]), np.array([score for _, score in rows])
    score /= score.sum(axis=1, keepdims=True)
    assert metrics.log_loss(y, score) == pytest.approx(oracle.log_loss(y, score, labels=[0, 1, 2]), rel=1e-9)
    assert metrics.accuracy(y, score) == pytest.approx(oracle.accuracy_score(y, score.argmax(axis=1)))
    assert set(metrics.score("multiclass", y, score)) == {"log_loss", "accuracy"}


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_regression_metrics_are_scikit_learns(rows: list[tuple[float, float]]) -> None:
    y, score = [y for y, _ in rows], [score for _, score in rows]
    assert metrics.rmse(y, score) == pytest.approx(oracle.root_mean_squared_error(y, score), rel=1e-9, abs=1e-12)
    assert metrics.mae(y, score) == pytest.approx(oracle.mean_absolute_error(y, score), rel=1e-9, abs=1e-12)


def test_auc_of_a_million_rows_with_ties_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    y = random.random(1_000_000) < 0.2
    score = np.round(random.normal(y, 2.0), 2)
    assert metrics.auc(y, score) == pytest.approx(oracle.roc_auc_score(y, score), abs=1e-12)


@pytest.mark.parametrize(
    "y", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], np.array([True, False, True], dtype=object)]
)
def test_labels_may_be_of_any_type(y: list[float]) -> None:
    assert metrics.score("binary", y, [0.9, 0.2, 0.4]) == {
        "auc": 1.0,
        "average_precision": 1.0,
        "brier": pytest.approx((0.01 + 0.04 + 0.36) / 3),
        "log_loss": pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3),
        "accuracy": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_without_rows_nothing_is_defined_and_nothing_warns(task: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.score(task, [], []) == {}


def test_auc_of_one_class_is_left_out() -> None:
    assert "auc" not in metrics.score("binary", [1, 1], [0.5, 0.6])
    assert set(metrics.score("binary", [0, 0], [0.5, 0.6])) == {"brier", "log_loss", "accuracy"}


def test_a_score_that_is_no_number_makes_metrics_undefined() -> None:
    assert math.isnan(metrics.auc([0, 1], [0.5, float("nan")]))
    assert "auc" not in metrics.score("binary", [0, 1], [0.5, float("nan")])


def test_rows_without_a_score_are_neither_right_nor_cheap() -> None:
    """A model that answers NaN flags nobody: where 98 of 100 rows are negative that would be an accuracy of 0.98."""
    y, nothing = np.r_[np.zeros(98), np.ones(2)], np.full(100, math.nan)
    partly = np.r_[np.zeros(99), math.nan]
    several = np.tile([0.9, 0.1], (100, 1))
    several[3, 1] = math.nan
    named_ = {each.name: each for each in Costs(false_positive=1, false_negative=5).metrics(0.5)}
    for scores in (nothing, partly):
        assert math.isnan(accuracy(y, scores))
        assert all(math.isnan(named_[name](y, scores)) for name in ("cost", "precision", "recall"))
        assert np.isnan(row_losses("accuracy", y, scores)).sum() == np.isnan(scores).sum()
    assert math.isnan(accuracy(y, several))
    assert np.isnan(row_losses("accuracy", y, several)).sum() == 1


def test_every_metric_says_which_way_is_better() -> None:
    named = {name for task in ("binary", "multiclass", "regression") for name in metrics.metrics_of(task)}
    assert named == set(metrics.HIGHER_IS_BETTER)
    for name, higher in metrics.HIGHER_IS_BETTER.items():
        function = getattr(metrics, name)
        good, bad = function([0, 1, 1], [0.1, 0.9, 0.8]), function([0, 1, 1], [0.9, 0.2, 0.1])
        assert (good > bad) is higher


def test_an_unknown_task_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(Invalid, match="'ranking' is not a task"):
        metrics.score("ranking", [1], [1])
    with pytest.raises(Invalid, match=r"shape \(2,\) do not match predictions of shape \(3,\)"):
        metrics.auc([0, 1], [0, 1, 1])


def test_a_class_is_the_place_of_its_text_among_the_outputs() -> None:
    assert metrics.class_places([2, "1", 2], ("1", "2")).tolist() == [1, 0, 1]
    with pytest.raises(metrics.UnknownClasses, match="does not know: 3, 9") as refused:
        metrics.class_places([9, 1, 3, 9], ("1", "2"))
    assert refused.value.names == ("3", "9")
