"""Metrics that are functions of a project: named, with a direction, and never silently without a value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.stats import metrics
from mainspring.stats.intervals import intervals
from mainspring.stats.metrics import MetricFailed

Y, SCORE = [0, 1, 1], [0.2, 0.9, 0.4]


@ms.metric(higher_is_better=True)
def caught(y: Any, score: Any) -> float:
    """Positives that score at least a half."""
    return float(((score >= 0.5) & (y == 1)).sum())


def test_it_is_called_as_its_function_is_and_measured_beside_the_others() -> None:
    assert (caught.name, caught.higher_is_better, caught(Y, SCORE)) == ("caught", True, 1.0)
    assert metrics.score("binary", Y, SCORE, [caught])["caught"] == 1.0
    assert metrics.higher_is_better("caught", [caught]) is True


def test_it_may_be_given_another_name() -> None:
    assert ms.metric(higher_is_better=False, name="loss.eur")(lambda y, score: 1).name == "loss.eur"


@pytest.mark.parametrize("name", ["auc", "recall_at_5", "cost", "baseline.auc", "holdout.x", "a b", "<lambda>"])
def test_a_name_that_is_taken_or_none_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="metric"):
        ms.metric(higher_is_better=True, name=name)(lambda y, score: 1.0)


def test_a_direction_must_be_said_and_a_metric_is_made_of_a_function() -> None:
    with pytest.raises(Invalid, match="higher_is_better='yes'"):
        ms.metric(higher_is_better="yes")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="made from 3"):
        ms.metric(higher_is_better=True, name="three")(3)  # type: ignore[arg-type]


def test_one_that_raises_names_itself_and_the_line() -> None:
    @ms.metric(higher_is_better=True)
    def broken(y: Any, score: Any) -> float:
        raise KeyError("amount")

    with pytest.raises(MetricFailed, match=r"'broken' failed at .*test_own_metrics.py:\d+: KeyError: 'amount'"):
        metrics.score("binary", Y, SCORE, [broken])


@pytest.mark.parametrize("value", [None, "high", True, np.array([1.0, 2.0]), 1j])
def test_one_that_returns_no_number_is_named(value: Any) -> None:
    odd = ms.metric(higher_is_better=True, name="odd")(lambda y, score: value)
    with pytest.raises(MetricFailed, match="'odd' returned"):
        odd(Y, SCORE)


@pytest.mark.parametrize("value", [1, np.float32(1.0), np.int64(1)])
def test_any_real_number_is_one(value: Any) -> None:
    assert ms.metric(higher_is_better=True, name="one")(lambda y, score: value)(Y, SCORE) == 1.0


def test_one_that_is_not_finite_is_not_defined() -> None:
    for value in (math.nan, math.inf):
        assert "none" not in metrics.score(
            "binary", Y, SCORE, [ms.metric(higher_is_better=True, name="none")(lambda y, score, value=value: value)]
        )


def test_none_can_change_what_the_next_is_given() -> None:
    @ms.metric(higher_is_better=True)
    def writes(y: Any, score: Any) -> float:
        score[:] = 0.0
        return 0.0

    with pytest.raises(MetricFailed, match="read-only"):
        writes(Y, np.array(SCORE))


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.float32])
def test_classes_are_whole_numbers_wherever_a_metric_is_measured(kind: Any) -> None:
    @ms.metric(higher_is_better=True)
    def certainty(y: Any, score: Any) -> float:
        return float(score[np.arange(y.size), y].mean())

    y, scores = np.array([0, 2, 1, 1] * 10, kind), np.array([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]] * 20)
    assert metrics.score("multiclass", y, scores, [certainty])["certainty"] == pytest.approx(0.425)
    assert "certainty" in intervals("multiclass", y, scores, seed=0, resamples=20, more=[certainty])


def test_a_label_that_is_no_class_is_not_taken_for_one() -> None:
    found = metrics.score("binary", [0.0, 1.0, math.nan], [0.1, 0.9, 0.5])
    assert "brier" not in found
