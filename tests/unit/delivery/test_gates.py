"""Gates as verdicts: which side is better, what equal means, and by how much a version fell short."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.delivery.gates import Comparison, judge
from mainspring.delivery.model import GateResult
from mainspring.stats.metrics import HIGHER_IS_BETTER
from mainspring.training.gate_kinds import Gate
from mainspring.training.gates import at_least, at_most, beats


def test_beats_asks_for_a_margin_over_the_baseline() -> None:
    (passed,) = judge([beats("auc", by=0.1)], {"auc": 0.75}, {"auc": 0.6}, None)
    assert passed == GateResult(
        gate="auc beats by 0.1",
        against="baseline",
        value=0.75,
        needed=pytest.approx(0.7),
        passed=True,
        short_by=0.0,
    )
    (failed,) = judge([beats("auc", by=0.1)], {"auc": 0.65}, {"auc": 0.6}, None)
    assert not failed.passed
    assert failed.short_by == pytest.approx(0.05)
    assert str(failed) == "auc beats by 0.1 against baseline: 0.6500, needs 0.7000: not passed, short by 0.05"


def test_where_less_is_better_the_margin_goes_down() -> None:
    (passed,) = judge([beats("brier", by=0.05)], {"brier": 0.15}, {"brier": 0.21}, None)
    assert (passed.passed, passed.needed) == (True, pytest.approx(0.16))
    (failed,) = judge([beats("brier", by=0.05)], {"brier": 0.2}, {"brier": 0.21}, None)
    assert (failed.passed, failed.short_by) == (False, pytest.approx(0.04))


def test_the_champion_must_only_not_be_better() -> None:
    comparison = Comparison("3", {"auc": 0.7}, {"auc": 0.7})
    baseline, champion = judge([beats("auc", by=0.1)], {"auc": 0.8}, {"auc": 0.5}, comparison)
    assert (baseline.against, champion.against) == ("baseline", "champion 3")
    # On the shared rows, not on the manifest's: 0.7 each.
    assert (champion.value, champion.needed, champion.passed) == (0.7, 0.7, True)
    worse = Comparison("3", {"auc": 0.7}, {"auc": 0.71})
    _, champion = judge([beats("auc", by=0.1)], {"auc": 0.8}, {"auc": 0.5}, worse)
    assert (champion.passed, champion.short_by) == (False, pytest.approx(0.01))


def test_limits_have_a_side() -> None:
    results = judge([at_most("brier", 0.2), at_least("auc", 0.7)], {"brier": 0.2, "auc": 0.6}, {}, None)
    assert [(each.against, each.passed, each.short_by) for each in results] == [
        ("limit", True, 0.0),
        ("limit", False, pytest.approx(0.1)),
    ]


def test_a_limit_is_its_own_side_whatever_the_metric() -> None:
    low, high = judge([at_most("auc", 0.85), at_least("rmse", 0.1)], {"auc": 0.91, "rmse": 0.05}, {}, None)
    assert (low.passed, low.short_by) == (False, pytest.approx(0.06))
    assert (high.passed, high.short_by) == (False, pytest.approx(0.05))


@pytest.mark.parametrize(
    ("metrics", "baseline", "why"),
    [
        ({}, {"auc": 0.5}, "the candidate has no auc"),
        ({"auc": math.nan}, {"auc": 0.5}, "the candidate has no auc"),
        ({"auc": 0.9}, {}, "the baseline has no auc"),
        ({"auc": 0.9}, {"auc": math.nan}, "the baseline has no auc"),
    ],
)
def test_what_cannot_be_compared_does_not_pass(metrics: dict[str, float], baseline: dict[str, float], why: str) -> None:
    (result,) = judge([beats("auc")], metrics, baseline, None)
    assert (result.passed, result.value, result.needed, result.short_by) == (False, None, None, None)
    assert why in result.note
    assert why in str(result)


def test_a_champion_that_cannot_be_scored_does_not_pass() -> None:
    _, champion = judge([beats("auc")], {"auc": 0.9}, {"auc": 0.5}, Comparison("3", {}, {}, "it needs V.old."))
    assert (champion.passed, champion.note) == (False, "it needs V.old.")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(Invalid, match="acu"):
        judge([at_least("acu", 0.5)], {"auc": 0.9}, {}, None)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.sampled_from(sorted(HIGHER_IS_BETTER)))
def test_what_is_missing_is_exactly_enough(value: float, baseline: float, by: float, metric: str) -> None:
    """A version that had been better by `short_by` would have passed, and by less would not."""
    gate = Gate("beats", metric, by)
    (result,) = judge([gate], {metric: value}, {metric: baseline}, None)
    assert result.short_by is not None
    better = 1 if HIGHER_IS_BETTER[metric] else -1
    assert judge([gate], {metric: value + better * result.short_by}, {metric: baseline}, None)[0].passed
    if not result.passed:
        almost = value + better * (result.short_by - 1e-9)
        assert not judge([gate], {metric: almost}, {metric: baseline}, None)[0].passed or result.short_by < 2e-9
