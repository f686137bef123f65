"""Fairness gates: rates by brute force, the bound that decides, small groups, and how often a gate is wrong."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, HOUR
from mainspring.delivery.fairness import judge_fairness
from mainspring.delivery.held_out import HeldOut, Scored
from mainspring.delivery.model import GateResult
from mainspring.training.gate_kinds import FairnessGate, Gate
from mainspring.training.gates import fair

_Array = npt.NDArray[Any]


def judged(
    gate: Gate, truth: _Array, flagged: _Array, group: _Array, *, task: str = "binary", hidden: tuple[str, ...] = ()
) -> GateResult:
    at = np.arange(truth.size) * HOUR
    table = pa.table({"Person.group": group})
    scores = np.where(flagged, 0.9, 0.1)
    rows = HeldOut(task, at, table, Scored(truth, scores, {}, 0.5))
    assert isinstance(gate, FairnessGate)
    return judge_fairness(gate, rows, 0.5, hidden)


def by_hand(measure: str, truth: _Array, flagged: _Array, group: _Array) -> dict[str, float]:
    """The largest difference of two groups' rates, and their smallest ratio."""
    conditions = {"demographic parity": [truth >= 0], "equal opportunity": [truth == 1]}.get(
        measure, [truth == 1, truth == 0]
    )
    differences, ratios = [], []
    for kept in conditions:
        rates = [flagged[kept & (group == each)].mean() for each in np.unique(group)]
        differences += [a - b for a, b in itertools.permutations(rates, 2)]
        ratios += [a / b for a, b in itertools.permutations(rates, 2) if b > 0]
    return {"difference": float(max(differences)), "ratio": float(min(ratios, default=math.nan))}


@pytest.mark.parametrize("measure", ["demographic parity", "equal opportunity", "equalised odds"])
@given(seed=st.integers(0, 1000), groups=st.integers(2, 4))
@settings(max_examples=examples(gate=15, deep=100), deadline=None)
def test_without_a_bound_it_is_the_rates_by_hand(measure: str, seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    truth, group = rng.integers(0, 2, 400), rng.integers(0, groups, 400).astype(str)
    flagged = rng.random(400) < rng.uniform(0.2, 0.8)
    expected = by_hand(measure, truth, flagged, group)
    gate = fair("group", measure, at_most=0.1, sure=None, least_rows=1)
    result = judged(gate, truth, flagged, group)
    assert result.value == pytest.approx(expected["difference"])
    assert result.passed is (expected["difference"] <= 0.1 + 1e-12)
    ratio = judged(fair("group", measure, at_least=0.8, sure=None, least_rows=1), truth, flagged, group)
    assert ratio.value == pytest.approx(expected["ratio"])
    assert ratio.passed is (expected["ratio"] >= 0.8 - 1e-12)


def test_the_bound_decides_and_more_rows_bring_it_nearer() -> None:
    rng = np.random.default_rng(1)
    lengths = []
    for rows in (1_000, 16_000):
        group = np.where(rng.random(rows) < 0.5, "a", "b")
        result = judged(fair("group", "demographic parity", at_most=0.05), np.ones(rows), rng.random(rows) < 0.3, group)
        assert result.interval is not None
        assert result.interval[0] <= (result.value or 0) <= result.interval[1]
        assert result.passed is (result.interval[1] <= 0.05)
        lengths.append(result.interval[1] - result.interval[0])
    assert result.passed
    assert lengths[1] < lengths[0] / 3


@pytest.mark.parametrize("ratio", [False, True])
def test_a_limit_that_is_exactly_missed_passes_in_at_most_5_of_100_worlds(ratio: bool) -> None:
    """One group is flagged at 0.4, the other two at 0.5: a difference of 0.1, a ratio of 0.8."""
    gate = fair("group", "demographic parity", **({"at_least": 0.8} if ratio else {"at_most": 0.1}))
    worlds, passed = examples(gate=150, deep=2000), 0
    rng = np.random.default_rng(23)
    for _ in range(worlds):
        group = rng.choice(["a", "b", "c"], 1500)
        flagged = rng.random(1500) < np.where(group == "a", 0.4, 0.5)
        passed += judged(gate, np.ones(1500), flagged, group).passed
    assert passed <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)


def test_a_small_group_is_insufficient_data_and_no_pass() -> None:
    rng = np.random.default_rng(2)
    group = np.where(np.arange(3000) < 2980, np.where(np.arange(3000) % 2, "a", "b"), "c")
    truth, flagged = np.ones(3000), rng.random(3000) < 0.5
    result = judged(fair("group", "equal opportunity", at_most=0.2), truth, flagged, group)
    assert (result.passed, result.short_by) == (False, None)
    assert "insufficient data: group=c among positives (20 rows); a group needs 200 rows" in result.note
    declared = fair("group", "equal opportunity", at_most=0.2, insufficient="pass")
    assert judged(declared, truth, flagged, group).passed


def test_a_group_that_is_never_flagged_is_not_certain() -> None:
    """No row of 200 is flagged: the rate may still be above 0.01, so the bound is not zero."""
    group = np.repeat(["a", "b"], 200)
    order = np.random.default_rng(0).permutation(400)
    result = judged(fair("group", "demographic parity", at_most=0.001), np.ones(400), np.zeros(400, bool), group[order])
    assert (result.value, result.passed) == (0.0, False)
    assert result.interval is not None
    assert result.interval[1] > 0.005
    ratio = judged(fair("group", "demographic parity", at_least=0.8), np.ones(400), np.zeros(400, bool), group[order])
    assert not ratio.passed
    assert "no row is flagged" in ratio.note


def test_several_columns_make_a_group_of_each_combination() -> None:
    """Each column alone is fair: only old women and young men are flagged less often."""
    rng = np.random.default_rng(4)
    sex, age = rng.choice(["f", "m"], 6_000), rng.choice(["old", "young"], 6_000)
    flagged = rng.random(6_000) < np.where((sex == "f") == (age == "old"), 0.3, 0.6)
    table = pa.table({"Person.sex": sex, "Person.age": age})
    truth, scores = np.ones(6_000), np.where(flagged, 0.9, 0.1)
    rows = HeldOut("binary", np.arange(6_000) * HOUR, table, Scored(truth, scores, {}, 0.5))

    def result(*group: str) -> GateResult:
        gate = fair(group, "demographic parity", at_most=0.15)
        assert isinstance(gate, FairnessGate)
        return judge_fairness(gate, rows, 0.5, ("Person.sex",) if group[0] == "Person.sex" else ())

    assert result("sex").passed
    assert result("age").passed
    both = result("sex", "age")
    assert not both.passed
    assert both.value == pytest.approx(0.3, abs=0.05)
    assert re.fullmatch(r"sex=(f|m) and age=\w+ over sex=(f|m) and age=\w+", both.slice or "")
    hidden = result("Person.sex", "age")
    assert re.fullmatch(r"Person.sex group \d and age=\w+ over Person.sex group \d and age=\w+", hidden.slice or "")
    assert hidden.value == both.value
    many = pa.table({"Person.a": np.arange(400) % 20, "Person.b": np.arange(400) // 20})
    rows = HeldOut("binary", np.arange(400) * HOUR, many, Scored(np.ones(400), np.ones(400), {}, 0.5))
    gate = fair(["a", "b"], at_most=0.1)
    assert isinstance(gate, FairnessGate)
    assert "400 combinations" in judge_fairness(gate, rows, 0.5).note


def test_one_group_a_wrong_column_another_task_and_hidden_values() -> None:
    truth, flagged = np.ones(600), np.random.default_rng(0).random(600) < 0.5
    gate = fair("group", "equal opportunity", at_most=0.1)
    assert "fewer than two groups" in judged(gate, truth, flagged, np.full(600, "a")).note
    assert "no columns 'gender'" in judged(fair("gender", at_most=0.1), truth, flagged, np.full(600, "a")).note
    halves = np.where(np.arange(600) % 2, "ann", "bob")
    assert "has no flagged rows" in judged(gate, truth, flagged, halves, task="regression").note
    gate = fair("group", "equal opportunity", at_most=0.01)
    assert "ann" in str(judged(gate, truth, flagged, halves))
    assert "ann" not in str(judged(gate, truth, flagged, halves, hidden=("Person.group",)))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"measure": "fairness", "at_most": 0.1}, "is not a measure of fairness"),
        ({}, "either at_most or at_least"),
        ({"at_most": 0.1, "at_least": 0.8}, "either at_most or at_least"),
        ({"at_most": 0.1, "sure": 95}, "not a probability"),
        ({"at_most": 0.1, "insufficient": "maybe"}, "unknown"),
        ({"at_most": 0.1, "least_rows": 0}, "is not a number of rows"),
        ({"at_most": 0.1, "block": "0s"}, "empty"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(Invalid, match=what):
        fair("group", **arguments)


def test_a_group_of_one_day_has_a_rate_but_no_bound() -> None:
    group = np.where(np.arange(600) < 24, "a", "b")
    flagged = np.arange(600) % 2 == 0
    point = judged(
        fair("group", "demographic parity", at_most=0.1, sure=None, least_rows=10), np.ones(600), flagged, group
    )
    assert (point.value, point.passed) == (0.0, True)
    bound = judged(fair("group", "demographic parity", at_most=0.1, least_rows=10), np.ones(600), flagged, group)
    assert not bound.passed
    assert "group=a (24 rows); a group needs 10 rows in 5 blocks of time" in bound.note


@pytest.mark.parametrize("measure", ["demographic parity", "equalised odds", "equal error"])
def test_rows_without_a_score_are_no_fair_rows(measure: str) -> None:
    """A model that answers NaN for everybody flags nobody, which is no equal treatment but no answer."""
    rng = np.random.default_rng(0)
    truth, group = rng.integers(0, 2, 4000), rng.choice(["a", "b"], 4000)
    scores = np.full(4000, math.nan)
    rows = HeldOut("binary", np.arange(4000) * HOUR, pa.table({"g": group}), Scored(truth, scores, {}, 0.5))
    gate = fair("g", measure, at_most=0.2)
    assert isinstance(gate, FairnessGate)
    result = judge_fairness(gate, rows, 0.5)
    assert not result.passed
    assert "4,000 rows (NaN or infinite)" in result.note


def test_a_condition_that_was_not_measured_is_no_pass_even_if_rare_groups_go_unchecked() -> None:
    """Only 50 rows of a group are truly negative: equalised odds is half of what it says."""
    rng = np.random.default_rng(0)
    truth, group = np.ones(6000, np.int64), rng.choice(["a", "b"], 6000)
    truth[:50] = 0
    flagged = rng.random(6000) < 0.5
    half = judged(fair("group", at_most=0.2, insufficient="pass"), truth, flagged, group)
    assert (half.passed, half.short_by) == (False, None)
    assert "among negatives" in half.note


def test_a_ratio_of_rates_that_are_all_zero_is_insufficient_data() -> None:
    rng = np.random.default_rng(0)
    truth, group = rng.integers(0, 2, 8000), rng.choice(["a", "b"], 8000)
    flagged = (rng.random(8000) < 0.6) & (truth == 1)
    result = judged(fair("group", at_least=0.7), truth, flagged, group)
    assert not result.passed
    assert "no row is flagged among negatives" in result.note


@pytest.mark.parametrize("shape", [[400, 20, 20, 20, 20, 20], [400] + [10] * 40])
def test_a_group_whose_rows_are_of_one_day_passes_in_at_most_5_of_100_worlds(shape: list[int]) -> None:
    """Days differ, so a group of one large day and a few small ones is one draw and not five or forty."""
    rng = np.random.default_rng(5)
    worlds, passed = examples(gate=100, deep=1000), 0
    for _ in range(worlds):
        day = np.r_[np.repeat(np.arange(60), 50), np.repeat(rng.choice(60, len(shape), replace=False), shape)]
        group = np.repeat(["b", "a"], [3000, sum(shape)])
        chance = np.clip(np.where(group == "a", 0.4, 0.3) + rng.normal(0, 0.15, (2, 60))[(group == "a") * 1, day], 0, 1)
        flagged = rng.random(day.size) < chance
        at = day * DAY + HOUR
        rows = HeldOut("binary", at, pa.table({"g": group}), Scored(np.ones(day.size), flagged * 1.0, {}, 0.5))
        gate = fair("g", "demographic parity", at_most=0.1)
        assert isinstance(gate, FairnessGate)
        passed += judge_fairness(gate, rows, 0.5).passed
    assert passed <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)


def several(measure: str, truth: _Array, scores: _Array, group: _Array, **limits: Any) -> GateResult:
    task = "regression" if scores.dtype == np.float64 and scores.ndim == 1 else "multiclass"
    rows = HeldOut(
        task, np.arange(truth.size) * HOUR, pa.table({"g": group}), Scored(truth, scores * 1.0, {}, None),
        classes=("ann", "bob", "cid") if task == "multiclass" else (),
    )  # fmt: skip
    gate = fair("g", measure, **{"least_rows": 30, **limits})
    assert isinstance(gate, FairnessGate)
    return judge_fairness(gate, rows, 0.5)


@given(seed=st.integers(0, 1000))
@settings(max_examples=examples(gate=15, deep=100), deadline=None)
def test_with_several_classes_each_is_the_positive_one_in_turn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, chosen, group = rng.integers(0, 3, 900), rng.integers(0, 3, 900), rng.choice(["a", "b"], 900)
    scores = np.eye(3, dtype=np.int64)[chosen]
    for measure in ("demographic parity", "equal opportunity", "equalised odds"):
        by_class = [by_hand(measure, truth == one, chosen == one, group) for one in range(3)]
        difference = several(measure, truth, scores, group, at_most=0.1, sure=None)
        assert difference.value == pytest.approx(max(each["difference"] for each in by_class))
        ratio = several(measure, truth, scores, group, at_least=0.8, sure=None)
        assert ratio.value == pytest.approx(min(each["ratio"] for each in by_class))
        assert any(name in difference.slice for name in ("ann", "bob", "cid"))
    wrong = by_hand("demographic parity", np.ones(900), chosen != truth, group)
    assert several("equal error", truth, scores, group, at_most=0.1, sure=None).value == pytest.approx(
        wrong["difference"]
    )


def test_errors_of_a_regression_are_compared_on_the_bound() -> None:
    rng = np.random.default_rng(1)
    group = rng.choice(["a", "b"], 4000)
    truth = rng.normal(size=4000)
    scores = truth + rng.laplace(0, np.where(group == "a", 2.0, 1.0))
    errors = {name: float(np.abs(scores - truth)[group == name].mean()) for name in "ab"}
    result = several("equal error", truth, scores, group, at_most=1.2)
    assert result.value == pytest.approx(errors["a"] - errors["b"])
    assert result.slice == "g=a over g=b"
    assert result.interval is not None
    assert 0.8 < result.interval[0] < 1.0 < result.interval[1] < 1.2
    assert result.passed
    assert not several("equal error", truth, scores, group, at_most=1.0).passed
    ratio = several("equal error", truth, scores, group, at_least=0.45)
    assert ratio.value == pytest.approx(errors["b"] / errors["a"])
    assert ratio.passed
    assert not several("equal error", truth, scores, group, at_least=0.6).passed
    assert "no error" in several("equal error", truth, truth * 1.0, group, at_least=0.6).note
    half = np.where(group == "a", truth, scores)
    assert not several("equal error", truth * 1e-6, half * 1e-6, group, at_least=0.6).passed  # in any unit


def test_errors_of_several_labels_are_compared_each_and_of_two_classes_by_the_threshold() -> None:
    rng = np.random.default_rng(2)
    group, truth = rng.choice(["a", "b"], 4000), rng.normal(size=(4000, 2))
    scores = truth + rng.normal(size=(4000, 2)) * np.where(group == "b", 2.0, 1.0)[:, None] ** [0.0, 1.0]
    at, table = np.arange(4000) * HOUR, pa.table({"g": group})
    gate = fair("g", "equal error", at_most=0.5, sure=None)
    assert isinstance(gate, FairnessGate)
    many = HeldOut("regression", at, table, Scored(truth, scores, {}, None), labels=("minutes", "metres"))
    result = judge_fairness(gate, many, None)
    errors = [np.abs(scores - truth)[group == name, 1].mean() for name in "ab"]
    assert (result.slice, result.value) == ("g=b over g=a in metres", pytest.approx(errors[1] - errors[0]))
    assert not result.passed
    sides, chance = rng.integers(0, 2, 4000), rng.random(4000)
    binary = HeldOut("binary", at, table, Scored(sides, chance, {}, 0.3))
    found = judge_fairness(gate, binary, 0.3)
    wrong = by_hand("demographic parity", np.ones(4000), (chance >= 0.3) != (sides == 1), group)
    assert found.value == pytest.approx(wrong["difference"])


@pytest.mark.parametrize(
    ("task", "arguments", "fine"),
    [
        ("regression", {"measure": "equal error", "at_most": 3.0}, True),
        ("regression", {"at_most": 0.1}, False),
        ("regression", {"measure": "equal error", "at_most": 3.0, "threshold": 0.5}, False),
        ("multiclass", {"at_most": 0.1}, True),
        ("multiclass", {"at_most": 0.1, "threshold": 0.5}, False),
        ("binary", {"at_most": 0.1, "threshold": 0.5}, True),
        ("tensors", {"measure": "equal error", "at_most": 0.1}, False),
    ],
)
def test_a_measure_that_a_task_does_not_have_is_refused(task: str, arguments: dict[str, Any], fine: bool) -> None:
    gate = fair("group", **arguments)
    assert isinstance(gate, FairnessGate)
    assert (gate.refuses(task) is None) is fine


def test_a_limit_of_errors_that_is_exactly_missed_passes_in_at_most_5_of_100_worlds() -> None:
    rng = np.random.default_rng(9)
    worlds, passed = examples(gate=100, deep=1000), 0
    for _ in range(worlds):
        group = rng.choice(["a", "b"], 1500)
        scores = rng.laplace(0, np.where(group == "a", 1.2, 1.0))
        passed += several("equal error", np.zeros(1500), scores, group, at_most=0.2).passed
    assert passed <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)


def test_days_without_a_row_that_counts_are_no_blocks() -> None:
    """Positives only on ten of twenty days: the bound is that of these ten days alone."""
    rng = np.random.default_rng(4)
    group, flagged = rng.choice(["a", "b"], 4800), rng.random(4800) < 0.5
    order = np.arange(4800) // 24
    truth = (order % 2 == 0).astype(np.int64)
    gate = fair("group", "equal opportunity", at_most=0.1, least_rows=10)
    half = truth == 1
    alone = judged(gate, truth[half], flagged[half], group[half])
    mixed = judged(gate, truth, flagged, group)
    assert alone.interval is not None
    assert mixed.interval is not None
    assert mixed.value == pytest.approx(alone.value)
    assert mixed.interval[1] - mixed.interval[0] == pytest.approx(alone.interval[1] - alone.interval[0], rel=0.25)
