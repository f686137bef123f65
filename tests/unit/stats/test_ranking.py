"""Metrics of a ranking against scikit-learn's, ties included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from mainspring.core.errors import Invalid
from mainspring.stats import metrics

scores = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
rows = st.lists(st.tuples(st.booleans(), scores), min_size=1, max_size=60)


@given(rows)
def test_average_precision_is_scikit_learns(given: list[tuple[bool, float]]) -> None:
    y, score = np.array([y for y, _ in given]), np.array([score for _, score in given])
    if y.any():
        expected = oracle.average_precision_score(y, score)
        assert metrics.average_precision(y, score) == pytest.approx(expected, abs=1e-12)
    else:
        assert math.isnan(metrics.average_precision(y, score))


@given(rows, st.sampled_from([0.1, 0.5, 0.75, 0.9, 1.0]))
def test_recall_at_a_precision_is_the_best_of_scikit_learns_curve(
    given: list[tuple[bool, float]], least: float
) -> None:
    y, score = np.array([y for y, _ in given]), np.array([score for _, score in given])
    found = metrics.recall_at_precision(least)(y, score)
    if y.any():
        precision, recall, _ = oracle.precision_recall_curve(y, score)
        assert found == pytest.approx(recall[precision >= least].max(), abs=1e-12)
    else:
        assert math.isnan(found)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=6), st.integers(1, 7))
def test_the_first_k_are_those_of_any_order_of_the_ties(given: list[tuple[bool, float]], k: int) -> None:
    """The mean over every order of the rows, each sorted by score, stably."""
    hits = []
    for order in itertools.permutations(given):
        ranked = sorted(order, key=lambda row: -row[1])
        hits.append(sum(y for y, _ in ranked[:k]))
    y, score = np.array([y for y, _ in given]), np.array([score for _, score in given])
    precision, recall = metrics.precision_at_k(k)(y, score), metrics.recall_at_k(k)(y, score)
    if k > len(given) or not y.any():
        assert math.isnan(precision)
        assert math.isnan(recall)
    else:
        assert precision == pytest.approx(np.mean(hits) / k)
        assert recall == pytest.approx(np.mean(hits) / y.sum())


def test_a_share_is_of_all_rows_and_at_least_one_of_them() -> None:
    y, score = np.arange(200) >= 190, np.arange(200) / 200
    assert metrics.precision_at_k(0.05)(y, score) == 1.0
    assert metrics.recall_at_k(0.025)(y, score) == 0.5
    assert metrics.recall_at_k(0.001)(y, score) == 0.1


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (metrics.recall_at_precision(0.9), "recall_at_precision_0.9"),
        (metrics.recall_at_precision(1), "recall_at_precision_1.0"),
        (metrics.precision_at_k(1_000_000), "precision_at_1000000"),
        (metrics.recall_at_k(0.01), "recall_at_0.01"),
    ],
)
def test_a_metric_with_a_number_is_found_by_its_name(made: metrics.Metric, name: str) -> None:
    found = metrics.named(name)
    assert (made.name, made.higher_is_better) == (name, True)
    assert found is not None
    assert found.name == name
    assert metrics.higher_is_better(name) is True


@pytest.mark.parametrize("name", ["recall_at_", "recall_at_precision_2", "precision_at_0.90", "recall_at_x", "gain"])
def test_no_other_name_is_one(name: str) -> None:
    assert metrics.named(name) is None
    assert metrics.higher_is_better(name) is None


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (metrics.recall_at_precision, 0), (metrics.recall_at_precision, 1.1), (metrics.recall_at_precision, "0.9"),
        (metrics.precision_at_k, 0), (metrics.recall_at_k, 2.5), (metrics.recall_at_k, True),
        (metrics.recall_at_k, math.nan),
    ],
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_refused(make: Callable[..., object], number: object) -> None:
    with pytest.raises(Invalid, match=repr(number)):
        make(number)
