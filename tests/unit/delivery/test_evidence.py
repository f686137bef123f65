"""Gates on the held-out rows: paired bounds, the worst slice, insufficient data, and how often they are wrong."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.time import HOUR
from mainspring.delivery.evidence import judge_rows
from mainspring.delivery.fairness import judge_fairness
from mainspring.delivery.gates import Comparison, judge
from mainspring.delivery.held_out import HeldOut, Scored
from mainspring.delivery.model import GateResult
from mainspring.stats.metrics import metric, score
from mainspring.training.gate_kinds import FairnessGate
from mainspring.training.gates import at_least, at_most, beats, calibration_error, fair

_Array = npt.NDArray[Any]


def held_out(
    truth: _Array, ours: _Array, theirs: _Array | None = None, *, task: str = "binary", **columns: Any
) -> HeldOut:
    """Rows an hour apart."""
    at = np.arange(len(truth)) * HOUR
    table = pa.table({"_at": pa.array(at, pa.timestamp("us", tz="UTC")), **columns})
    other = None if theirs is None else Scored(truth, theirs, {}, None)
    return HeldOut(task, at, table, Scored(truth, ours, {}, 0.5), other)


def world(
    rng: np.random.Generator, days: int = 20, noise: tuple[float, float] = (1.0, 1.0)
) -> tuple[_Array, _Array, _Array]:
    """Labels, and two models that see the signal through their own noise."""
    signal = rng.normal(size=days * 24)
    truth = (signal + rng.logistic(size=signal.size) > 0).astype(np.int64)
    ours, theirs = (1 / (1 + np.exp(-(signal + spread * rng.normal(size=signal.size)))) for spread in noise)
    return truth, ours, theirs


def test_a_bound_decides_where_the_gate_is_to_be_sure() -> None:
    truth, ours, theirs = world(np.random.default_rng(0), noise=(0.9, 1.0))
    rows = held_out(truth, ours, theirs)
    (point,) = judge_rows(beats("auc"), rows, "baseline", higher=True)
    (bound,) = judge_rows(beats("auc", sure=0.95), rows, "baseline", higher=True)
    assert (point.passed, point.interval) == (True, None)
    assert (point.value, point.needed) == pytest.approx((bound.value, bound.needed))
    assert (bound.passed, bound.rows, bound.sure) == (False, 480, 0.95)
    assert bound.interval is not None
    assert bound.short_by is not None
    assert bound.needed is not None
    assert bound.short_by == pytest.approx(bound.needed - bound.interval[0])
    (enough,) = judge_rows(beats("auc", sure=0.95), rows, "baseline", higher=True, margin=-bound.short_by)
    assert enough.passed
    (almost,) = judge_rows(beats("auc", sure=0.95), rows, "baseline", higher=True, margin=1e-6 - bound.short_by)
    assert not almost.passed


def test_two_equal_models_are_as_good_as_each_other_for_sure() -> None:
    truth, ours, _ = world(np.random.default_rng(0))
    (result,) = judge_rows(beats("auc", sure=0.99), held_out(truth, ours, ours), "champion 1", higher=True)
    assert (result.passed, result.short_by) == (True, 0.0)


def test_a_pair_needs_fewer_rows_than_two_separate_intervals() -> None:
    """Two models that are nearly the same differ surely by an amount far below either one's own error."""
    truth, ours, _ = world(np.random.default_rng(3), days=40)
    theirs = np.clip(ours + 0.15 * np.random.default_rng(4).normal(size=ours.size), 0, 1)
    pair = judge_rows(beats("auc", sure=0.95), held_out(truth, ours, theirs), "champion 1", higher=True)[0]
    alone = judge_rows(at_least("auc", pair.needed or 0, sure=0.95), held_out(truth, ours), "limit", higher=True)[0]
    assert (pair.passed, alone.passed) == (True, False)


@pytest.mark.parametrize("name", ["auc", "brier"])
@given(seed=st.integers(0, 500), count=st.integers(1, 5))
@settings(max_examples=examples(gate=10, deep=60), deadline=None)
def test_the_worst_slice_decides(name: str, seed: int, count: int) -> None:
    """By brute force: each slice scored alone, and the one that falls shortest."""
    rng = np.random.default_rng(seed)
    truth, ours, theirs = world(rng, days=10)
    carrier = rng.integers(0, count, truth.size)
    rows = held_out(truth, ours, theirs, **{"Request.carrier": [f"c{each}" for each in carrier]})
    gate, sign = beats(name, by_slice="carrier", least_rows=2), 1 if name == "auc" else -1
    gains = {}
    for each in sorted(set(carrier.tolist())):
        here = carrier == each
        found = [score("binary", truth[here], scores[here]).get(name, math.nan) for scores in (ours, theirs)]
        gains[f"carrier=c{each}"] = sign * (found[0] - found[1])
    known = {each: gain for each, gain in gains.items() if math.isfinite(gain)}
    (result,) = judge_rows(gate, rows, "baseline", higher=sign > 0)
    worst = min(known, key=lambda each: known[each])
    assert (result.slice, result.passed) == (worst, known[worst] >= 0 and len(known) == len(gains))
    assert result.short_by == (pytest.approx(-known[worst]) if known[worst] < 0 else result.short_by)


def test_a_slice_with_few_rows_is_no_pass_unless_declared() -> None:
    truth, ours, _ = world(np.random.default_rng(1))
    carrier = np.where(np.arange(truth.size) < 470, "AA", "HA")
    rows = held_out(truth, ours, carrier=carrier)
    (result,) = judge_rows(at_least("auc", 0.5, by_slice="carrier"), rows, "limit", higher=True)
    assert (result.passed, result.short_by, result.slice) == (False, None, "carrier=AA")
    assert "insufficient data for auc: carrier=HA (10 rows); a slice needs 200 rows" in str(result)
    declared = at_least("auc", 0.5, by_slice="carrier", insufficient="pass")
    (result,) = judge_rows(declared, rows, "limit", higher=True)
    assert result.passed
    assert "insufficient data for auc: carrier=HA (10 rows)" in result.note
    nobody = at_least("auc", 0.5, by_slice="carrier", insufficient="pass", least_rows=1000)
    (result,) = judge_rows(nobody, rows, "limit", higher=True)
    assert not result.passed  # a gate that nothing was measured for has not passed


def test_each_column_of_slices_has_a_result_and_null_is_a_slice() -> None:
    truth, ours, _ = world(np.random.default_rng(1))
    carrier: list[str | None] = [None if place % 2 else "AA" for place in range(truth.size)]
    worse = np.where([each is None for each in carrier], 1 - ours, ours)
    rows = held_out(truth, worse, carrier=carrier, night=np.arange(truth.size) % 24 < 12)
    results = judge_rows(at_least("auc", 0.6, by_slice=["carrier", "night"]), rows, "limit", higher=True)
    assert [each.slice.split("=")[0] for each in results] == ["carrier", "night"]
    assert (results[0].slice, results[0].passed) == ("carrier=null", False)


def test_a_column_that_is_missing_or_identifies_a_person() -> None:
    truth, ours, _ = world(np.random.default_rng(1))
    rows = held_out(truth, ours, carrier=[f"p{place % 2}" for place in range(truth.size)])
    (result,) = judge_rows(at_least("auc", 0.6, by_slice="gender"), rows, "limit", higher=True)
    assert not result.passed
    assert "no columns 'gender': they have carrier." in result.note
    gate = at_least("auc", 0.99, by_slice="carrier")
    (result,) = judge_rows(gate, rows, "limit", higher=True, hidden={"carrier"})
    assert "p0" not in str(result)
    assert "p1" not in str(result)
    assert "carrier group" in str(result)
    many = held_out(truth, ours, carrier=[str(place) for place in range(truth.size)])
    (result,) = judge_rows(gate, many, "limit", higher=True)
    assert "480 values" in result.note


def test_the_gate_of_every_slice_is_wrong_in_at_most_5_of_100_worlds() -> None:
    """Four slices, each exactly at the limit: an AUC of one half. No correction is needed to be sure of all of them."""
    worlds, passed = examples(gate=60, deep=600), 0
    rng, gate = np.random.default_rng(8), at_least("auc", 0.5, sure=0.95, by_slice="carrier", least_rows=50)
    one = at_least("auc", 0.5, sure=0.95)
    alone = 0
    for _ in range(worlds):
        truth, noise = rng.integers(0, 2, 480), rng.random(480)
        rows = held_out(truth, noise, carrier=rng.integers(0, 4, 480))
        passed += judge_rows(gate, rows, "limit", higher=True)[0].passed
        alone += judge_rows(one, rows, "limit", higher=True)[0].passed
    for wrong in (passed, alone):
        assert wrong <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)


def test_harm_in_any_of_twelve_slices_is_claimed_wrongly_in_at_most_5_of_100_worlds() -> None:
    """Twelve slices at the limit: uncorrected, half of the worlds would hold a slice that seems to fall short."""
    worlds, failed, by_point = examples(gate=60, deep=600), 0, 0
    rng = np.random.default_rng(8)
    harm = at_least("auc", 0.5, harm=0.95, by_slice="carrier", least_rows=10)
    point = at_least("auc", 0.5, by_slice="carrier", least_rows=10)
    for _ in range(worlds):
        truth, noise = rng.integers(0, 2, 720), rng.random(720)
        rows = held_out(truth, noise, carrier=rng.integers(0, 12, 720))
        failed += not judge_rows(harm, rows, "limit", higher=True)[0].passed
        by_point += not judge_rows(point, rows, "limit", higher=True)[0].passed
    assert failed <= worlds * 0.05 + 3 * math.sqrt(worlds * 0.05 * 0.95)
    assert by_point > 0.95 * worlds


def test_harm_that_is_there_is_found_and_named() -> None:
    truth, ours, _ = world(np.random.default_rng(5), days=60)
    carrier = np.arange(truth.size) % 3
    wrong = np.where(carrier > 0, 1 - ours, ours)
    rows = held_out(truth, wrong, carrier=carrier)
    (result,) = judge_rows(at_least("auc", 0.5, harm=0.95, by_slice="carrier"), rows, "limit", higher=True)
    assert (result.passed, result.slice) in {(False, "carrier=1"), (False, "carrier=2")}
    assert result.note.startswith("also short: carrier=")


def test_too_short_a_time_has_no_interval() -> None:
    truth, ours, _ = world(np.random.default_rng(1), days=3)
    (result,) = judge_rows(at_least("auc", 0.1, sure=0.95), held_out(truth, ours), "limit", higher=True)
    assert (result.passed, result.value) == (False, None)
    assert "insufficient data: the held-out rows count as 3 equal blocks of 1d" in result.note
    (result,) = judge_rows(at_least("auc", 0.1, sure=0.95, block="6h"), held_out(truth, ours), "limit", higher=True)
    assert result.passed


def test_calibration_error_is_judged_on_its_bound() -> None:
    rng = np.random.default_rng(2)
    truthful = rng.uniform(0.05, 0.95, 24 * 200)
    truth = (rng.random(truthful.size) < truthful).astype(np.int64)
    (good,) = judge([calibration_error(0.05)], {}, {}, None, held_out=lambda: held_out(truth, truthful))
    boastful = truthful**2 / (truthful**2 + (1 - truthful) ** 2)
    (bad,) = judge([calibration_error(0.05)], {}, {}, None, held_out=lambda: held_out(truth, boastful))
    assert (good.gate, good.passed, bad.passed) == ("ece at most 0.05, 95 % sure", True, False)
    assert good.interval is not None


def test_metrics_of_several_labels_and_of_the_project_have_intervals() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(240, 2))
    ours, theirs = truth + rng.normal(size=(240, 2)) * [0.5, 2.0], truth + rng.normal(size=(240, 2))
    at = np.arange(240) * HOUR

    @metric(higher_is_better=False)
    def worst(y: _Array, score: _Array) -> float:
        return float(np.abs(y - score).max())

    own = {"worst": worst}
    rows = HeldOut(
        "regression", at, pa.table({"_at": at}), Scored(truth, ours, own, None), Scored(truth, theirs, own, None),
        ("minutes", "metres"),
    )  # fmt: skip
    names = ["rmse.minutes", "rmse.metres", "rmse", "worst", "worst.minutes"]
    results = {name: judge_rows(beats(name, sure=0.9), rows, "champion 1", higher=False)[0] for name in names}
    expected = score("regression", truth, ours, [worst], labels=rows.labels)
    assert {name: each.value for name, each in results.items()} == pytest.approx(
        {name: expected[name] for name in names}
    )
    assert (results["rmse.minutes"].passed, results["rmse.metres"].passed) == (True, False)


def test_the_champion_may_be_better_by_the_margin() -> None:
    truth, ours, theirs = world(np.random.default_rng(9), noise=(1.1, 1.0))
    rows = held_out(truth, ours, theirs)
    found = [rows.metrics(side) for side in (rows.candidate, rows.other or rows.candidate)]
    comparison = Comparison("3", *found, rows=rows)

    def champion(gate: Any) -> Any:
        return judge([gate], found[0], {"auc": 0.5}, comparison, held_out=lambda: rows)[1]

    behind = found[1]["auc"] - found[0]["auc"]
    assert behind > 0
    for margin, passed in ((0.0, False), (behind * 0.99, False), (behind * 1.01, True)):
        assert champion(beats("auc", margin=margin)).passed is passed
    assert not champion(beats("auc", margin=behind * 1.01, sure=0.95)).passed
    assert champion(beats("auc", margin=behind + 0.2, sure=0.95)).passed


def test_a_bundle_without_what_a_gate_needs_does_not_pass() -> None:
    (result,) = judge([at_least("auc", 0.1, sure=0.95)], {"auc": 0.9}, {}, None)
    assert (result.passed, result.note) == (False, "its bundle contains no held-out rows.")
    truth, ours, _ = world(np.random.default_rng(1))
    (result,) = judge([beats("auc", sure=0.95)], {}, {}, None, held_out=lambda: held_out(truth, ours))
    assert not result.passed
    assert "does not contain the baseline's predictions. Fix: train it again." in result.note


def test_blocks_of_days_are_wider_than_hours_where_days_differ() -> None:
    rng = np.random.default_rng(12)
    of_day = np.repeat(rng.normal(size=20) * 2, 24)
    truth = (rng.logistic(size=of_day.size) + of_day > 0).astype(np.int64)
    rows = held_out(truth, np.full(truth.size, 0.9))
    widths = []
    for block in ("1d", "1h"):
        (result,) = judge_rows(at_most("brier", 0.9, sure=0.95, block=block), rows, "limit", higher=False)
        assert result.interval is not None
        widths.append(result.interval[1] - result.interval[0])
    assert widths[0] > 1.5 * widths[1]


@given(seed=st.integers(0, 10_000), rows=st.integers(0, 80), classes=st.integers(1, 2), digits=st.integers(0, 2))
@settings(max_examples=examples(gate=10, deep=150), deadline=None)
def test_whatever_the_rows_the_result_is_one_that_json_keeps(seed: int, rows: int, classes: int, digits: int) -> None:
    """No rows, one class, equal scores, days without rows: neither an error nor a warning, and no infinity or NaN."""
    rng = np.random.default_rng(seed)
    truth, ours = rng.integers(0, classes, rows), np.round(rng.random(rows), digits)
    at = np.sort(rng.integers(0, 20 * 24, rows)) * HOUR
    group = pa.array([None if value == 0 else str(value) for value in rng.integers(0, 4, rows)], pa.string())
    table = pa.table({"_at": pa.array(at, pa.timestamp("us", tz="UTC")), "group": group})
    sides = Scored(truth, ours, {}, 0.5), Scored(truth, np.round(rng.random(rows), 1), {}, 0.5)
    pair = HeldOut("binary", at, table, *sides)
    alone = HeldOut("binary", at, table, sides[0])
    slices: tuple[str, ...] = ("group",) if seed % 2 else ()
    chance: dict[str, Any] = ({}, {"sure": 0.95}, {"harm": 0.95})[seed % 3]
    for name in ("auc", "brier", "average_precision", "ece", "precision_at_5"):
        gate = beats(name, by_slice=slices, least_rows=3, **chance)
        results = judge_rows(gate, pair, "champion 1", higher=True)
        results += judge_rows(at_least(name, 0.5, by_slice=slices, least_rows=3, **chance), alone, "limit", higher=True)
        for measure in ("demographic parity", "equalised odds"):
            fairness = fair("group", measure, sure=chance.get("sure"), least_rows=2, at_least=0.8)
            assert isinstance(fairness, FairnessGate)
            results.append(judge_fairness(fairness, alone, 0.5))
        for result in results:
            assert msgspec.json.decode(msgspec.json.encode(result), type=GateResult) == result


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 300),
    task=st.sampled_from(["binary", "multiclass", "regression"]),
    odd=st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
@settings(max_examples=examples(gate=40, deep=400), deadline=None)
def test_whatever_the_task_and_its_scores_nothing_passes_unmeasured(
    seed: int, rows: int, task: str, odd: float | None
) -> None:
    """A score that is not a number is in one row: neither an error nor a warning, and no value is no pass."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=rows) if task == "regression" else rng.integers(0, 3 if task == "multiclass" else 2, rows)
    scores = rng.dirichlet([1.0] * 3, rows) if task == "multiclass" else rng.random(rows)
    if odd is not None and rows:
        scores.flat[seed % scores.size] = odd
    at = np.sort(rng.integers(0, 20 * 24, rows)) * HOUR
    table = pa.table({"group": pa.array(rng.integers(0, 3, rows).tolist(), pa.int64())})
    alone = HeldOut(task, at, table, Scored(truth, scores, {}, 0.5), classes=("a", "b", "c") * (task == "multiclass"))
    chance: dict[str, Any] = ({}, {"sure": 0.95}, {"harm": 0.95})[seed % 3]
    results: list[GateResult] = []
    for name in {"binary": ("accuracy", "auc"), "multiclass": ("accuracy", "ece"), "regression": ("rmse", "mae")}[task]:
        for slices in ((), ("group",)):
            gate = at_most(name, 1e9, by_slice=slices, least_rows=3, insufficient="pass", **chance)
            found = judge_rows(gate, alone, "limit", higher=False)
            results += found
            if not slices and odd is not None and math.isnan(odd):
                assert not any(each.passed for each in found)
    for measure in ("equal error", *(() if task == "regression" else ("demographic parity", "equalised odds"))):
        for limit in ({"at_most": 1.0}, {"at_least": 0.0}):
            fairness = fair("group", measure, sure=chance.get("sure"), least_rows=2, insufficient="pass", **limit)
            assert isinstance(fairness, FairnessGate)
            results.append(judge_fairness(fairness, alone, 0.5))
    for result in results:
        assert msgspec.json.decode(msgspec.json.encode(result), type=GateResult) == result
        assert result.value is not None or (not result.passed and result.note)


@pytest.mark.parametrize("chance", [{}, {"sure": 0.95}])
def test_a_metric_of_the_project_that_fails_fails_the_gate_and_says_where(chance: dict[str, Any]) -> None:
    @metric(higher_is_better=True)
    def found_late(y: _Array, score: _Array) -> float:
        raise KeyError("fifty")

    truth, ours, _ = world(np.random.default_rng(1))
    own = {"found_late": found_late}
    rows = held_out(truth, ours, group=truth)
    rows = HeldOut("binary", rows.at, rows.table, Scored(truth, ours, own, 0.5))
    gate = at_least("found_late", 0.1, by_slice="group", least_rows=5, **chance)
    (result,) = judge_rows(gate, rows, "limit", higher=True)
    assert not result.passed
    assert "The metric 'found_late' failed at" in result.note
    assert "test_evidence.py" in result.note
