"""Values at the edges, and refusals, of the tests on events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.events import (
    log_e_above,
    log_e_arm_shares,
    log_e_below,
    log_e_differs,
    log_e_sample_ratio,
    log_e_share_above,
    risk_interval,
    risk_ratio,
)


def test_nothing_seen_is_no_evidence() -> None:
    for test in (log_e_above, log_e_below, log_e_differs):
        assert float(test([], [], [])) == pytest.approx(0, abs=1e-12)
        assert float(test([0.1], [0], [0])) == pytest.approx(0, abs=1e-12)
    found = risk_interval([0.1], [0], [0])
    assert (found.low, found.high) == (0, math.inf)
    assert math.isnan(risk_ratio([0.1], [0], [0]))
    assert float(log_e_share_above(0, 0, 0.1)) == pytest.approx(0, abs=1e-12)


def test_a_stratum_without_a_choice_is_no_evidence() -> None:
    assert float(log_e_above([0.0, 0.1, 1.0], [9, 5, 9], [9, 5, 9])) == float(log_e_above([0.1], [5], [5]))


def test_an_event_of_a_rare_candidate_weighs_most() -> None:
    of_weights = [float(log_e_above([w], [3], [0])) for w in (0.01, 0.1, 0.5, 0.9)]
    assert of_weights == sorted(of_weights, reverse=True)
    assert of_weights[0] > math.log(100) > of_weights[2]


def test_events_of_one_arm_alone_leave_one_bound_open() -> None:
    bad, good = risk_interval([0.1], [20], [0]), risk_interval([0.5], [0], [60])
    assert bad.low > 1
    assert bad.high == math.inf
    assert risk_ratio([0.1], [20], [0]) == math.inf
    assert good.low == 0 == risk_ratio([0.5], [0], [60])
    assert good.high < 1


def test_looks_are_judged_at_once_as_one_by_one() -> None:
    candidate, control = np.array([[1, 2], [3, 5], [9, 9]]), np.array([[4, 1], [6, 2], [8, 2]])
    at_once = log_e_above([0.1, 0.3], candidate, control)
    one_by_one = [float(log_e_above([0.1, 0.3], *counts)) for counts in zip(candidate, control, strict=True)]
    assert at_once == pytest.approx(one_by_one)


def test_millions_of_events_stay_finite() -> None:
    assert 0 < float(log_e_above([0.5], [1_010_000], [990_000])) < math.inf
    assert float(log_e_above([0.5], [5_000_000], [5_000_000])) < 0
    found = risk_interval([0.5], [5_000_000], [5_000_000])
    assert 0.99 < found.low < 1 < found.high < 1.01


def test_the_arm_that_differs_most_is_named() -> None:
    weights = [[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]
    by_arm = log_e_arm_shares(weights, [[5_000, 3_000, 1_500], [8_000, 1_000, 1_000]])
    assert by_arm.argmax() == 2
    assert float(log_e_sample_ratio(weights, [[5_000, 3_000, 2_000], [8_000, 1_000, 1_000]])) < 0
    assert float(log_e_sample_ratio([[0.5, 0.5, 0.0]], [[50, 50, 1]])) == math.inf
    for weights, units in (([[1.0, 0.0]], [[9, 1]]), ([[0.0, 1.0]], [[1, 9]])):
        assert float(log_e_sample_ratio(weights, units)) == math.inf


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: log_e_above([0.1], [1, 2], [1, 2]), "do not match"),
        (lambda: log_e_above([1.5], [1], [1]), "not all probabilities"),
        (lambda: log_e_above([math.nan], [1], [1]), "not all probabilities"),
        (lambda: log_e_above([0.5], [-1], [1]), "negative"),
        (lambda: log_e_above([0.5], [math.nan], [1]), "negative or not a number"),
        (lambda: log_e_above([0.5], [1], [1], 0.0), "relative risk of 0.0"),
        (lambda: risk_interval([0.5], [1], [1], 1.0), "confidence of 1.0"),
        (lambda: log_e_share_above(2, 1, 0.5), "more events than units"),
        (lambda: log_e_share_above(1, 2, 0.0), "share of 0.0"),
        (lambda: log_e_sample_ratio([[0.5, 0.4]], [[1, 1]]), "add up to"),
        (lambda: log_e_sample_ratio([[0.5, 0.5]], [[1, 1, 1]]), "do not match"),
    ],
)
def test_refusals(call: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        call()
