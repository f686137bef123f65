"""Measures of groups: against Fairlearn and by hand, sums of parts, published intervals, and honest uncertainty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.depth import examples
from mainspring.stats.fairness.comparing import compare
from mainspring.stats.fairness.counting import (
    ABSOLUTE,
    BIAS,
    CALIBRATION,
    MEASURES,
    SELECTION,
    TPR,
    GroupCounts,
    Measured,
    count,
    group_rows,
)
from mainspring.stats.fairness.reporting import FairnessReport, GroupGap, Rate, fairness_report, wilson
from mainspring.stats.quality_sums import BINS, bins_of

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("fairlearn.json").read_text())
RNG = np.random.default_rng(11)


def counted(
    groups: Any, truth: Any, score: Any, *, block: Any = None, cut: float = 0.5, names: Any = ("g",)
) -> GroupCounts:
    columns = [groups] if len(names) == 1 else groups
    found, place = group_rows([list(each) for each in columns])
    score = np.asarray(score, float)
    block = np.zeros(place.size, int) if block is None else np.asarray(block)
    return count(names, found, place, block, truth=np.asarray(truth) > 0, score=score, decided=score >= cut)


def golden() -> GroupCounts:
    flagged = np.array(GOLDEN["flagged"], float)  # the scores are rounded: the decisions are not made of them
    names = ("sex", "age")
    found, place = group_rows([GOLDEN["sex"], GOLDEN["age"]])
    nought = np.zeros(place.size, int)
    return count(names, found, place, nought, truth=np.array(GOLDEN["truth"]) > 0, score=flagged, decided=flagged > 0)


def gaps(report: FairnessReport) -> dict[str, GroupGap]:
    return {gap.measure: gap for gap in report.gaps}


@pytest.mark.parametrize("by", ["sex", "age", "sex,age"])
def test_rates_and_gaps_are_those_of_fairlearn(by: str) -> None:
    report = fairness_report(golden(), by.split(","), "binary", least_rows=1)
    expected = GOLDEN["by"][by]
    found = {tuple(each.group.values()): each.measures for each in report.groups}
    assert len(found) == len(expected["groups"])
    for group, measures in expected["groups"]:
        for measure, value in measures.items():
            assert found[tuple(group)][measure].value == pytest.approx(value), (group, measure)
    for measure, value in expected["difference"].items():
        assert gaps(report)[measure].difference.value == pytest.approx(value)
        ratio = gaps(report)[measure].ratio
        assert ratio is not None
        assert ratio.value == pytest.approx(expected["ratio"][measure])


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    rows = 3_000
    group, truth, score = RNG.choice(["a", "b", "c"], rows), RNG.random(rows) < 0.4, RNG.random(rows)
    block = np.sort(RNG.integers(0, 9, rows))
    whole = counted(group, truth, score, block=block)
    parts = [counted(group[at], truth[at], score[at], block=block[at]) for at in np.array_split(np.arange(rows), 4)]
    total = parts[3] + parts[1] + parts[0] + parts[2]
    assert total.blocks == whole.blocks
    one, two = (fairness_report(each, ["g"], "binary") for each in (whole, total))
    for mine, other in zip(one.groups, two.groups, strict=True):
        assert mine.group == other.group
        for name, rate in mine.measures.items():
            assert (rate.value, rate.low, rate.high) == pytest.approx(
                (other.measures[name].value, other.measures[name].low, other.measures[name].high)
            )
    with pytest.raises(ValueError, match="cannot be added"):
        _ = whole + counted(group, truth, score, names=("other",))


def test_the_counts_of_one_column_are_the_sums_over_the_other() -> None:
    rows = 2_000
    first, second = RNG.choice(["a", "b"], rows), RNG.choice(["x", "y", "z"], rows)
    truth, score = RNG.random(rows) < 0.5, RNG.random(rows)
    both = counted([first, second], truth, score, names=("one", "two"))
    alone = counted(second, truth, score, names=("two",))
    mine, other = fairness_report(both, ["two"], "binary"), fairness_report(alone, ["two"], "binary")
    assert [each.group for each in mine.groups] == [each.group for each in other.groups]
    assert all(
        a.measures[name].value == pytest.approx(b.measures[name].value)
        for a, b in zip(mine.groups, other.groups, strict=True)
        for name in MEASURES["binary"]
    )


def test_wilson_and_newcombe_are_as_published() -> None:
    """Newcombe, Statistics in Medicine 17 (1998): 81 of 263, and 56 of 70 against 48 of 80."""
    assert wilson(81, 263, 1.959964) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    group = ["a"] * 70 + ["b"] * 80
    flagged = np.r_[np.arange(70) < 56, np.arange(80) < 48]
    report = fairness_report(counted(group, np.ones(150), flagged.astype(float)), ["g"], "binary", least_rows=1)
    gap = gaps(report)[SELECTION]
    assert (gap.highest, gap.lowest) == ({"g": "a"}, {"g": "b"})
    found = gap.difference
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert gap.certain


def test_calibration_and_bias_are_those_by_hand() -> None:
    rows = 4_000
    group, score = RNG.choice(["a", "b"], rows), RNG.random(rows)
    truth = RNG.random(rows) < np.clip(score - 0.2 * (group == "b"), 0, 1)
    report = fairness_report(counted(group, truth, score), ["g"], "binary")
    for each in report.groups:
        mine = group == each.group["g"]
        bins = bins_of(score[mine])
        by_hand = sum(abs((score[mine] - truth[mine])[bins == place].sum()) for place in range(BINS)) / mine.sum()
        assert each.measures[CALIBRATION].value == pytest.approx(by_hand)
        assert each.measures[BIAS].value == pytest.approx((score[mine] - truth[mine]).mean())
    gap = gaps(report)[BIAS]
    assert (gap.highest["g"], gap.certain, gap.ratio) == ("b", True, None)


def test_errors_of_a_regression() -> None:
    rows = 900
    group, truth = RNG.choice(["a", "b"], rows), RNG.normal(size=rows)
    predicted = truth + RNG.normal(size=rows) * np.where(group == "a", 1, 3) + (group == "b")
    found, place = group_rows([group.tolist()])
    counts = count(("g",), found, place, np.zeros(rows, int), truth=truth, score=predicted)
    report = fairness_report(counts, ["g"], "regression")
    for each in report.groups:
        mine = group == each.group["g"]
        error = (predicted - truth)[mine]
        rate = each.measures[ABSOLUTE]
        assert rate.value == pytest.approx(np.abs(error).mean())
        assert rate.high is not None
        assert rate.high - np.abs(error).mean() == pytest.approx(
            1.96 * np.abs(error).std() / np.sqrt(mine.sum()), rel=1e-3
        )
        assert each.measures[BIAS].value == pytest.approx(error.mean())
    assert gaps(report)[ABSOLUTE].highest == {"g": "b"}


def test_a_small_group_is_insufficient_data() -> None:
    group = ["a"] * 500 + ["b"] * 500 + ["c"] * 30
    truth = np.r_[np.ones(500), np.zeros(450), np.ones(50), np.ones(30)]
    report = fairness_report(counted(group, truth, RNG.random(1030)), ["g"], "binary")
    by_name = {each.group["g"]: each for each in report.groups}
    assert by_name["c"].measures[SELECTION] == Rate(None, None, None, 30)
    assert by_name["b"].measures[TPR] == Rate(None, None, None, 50)  # only 50 of its rows are positive
    assert TPR not in gaps(report)
    assert {*gaps(report)[SELECTION].highest.values(), *gaps(report)[SELECTION].lowest.values()} == {"a", "b"}


def test_days_that_differ_together_widen_the_interval() -> None:
    """Rows of a day are alike: the interval of independent rows misses the truth far too often."""
    worlds, missed, naive = examples(gate=60, deep=1000), 0, 0
    rng = np.random.default_rng(3)
    for _ in range(worlds):
        days, rows = 20, 100
        day = np.repeat(np.arange(days), rows)
        level = np.clip(0.4 + rng.normal(size=days) * 0.15, 0.02, 0.98)
        report = fairness_report(
            counted(["a"] * day.size, np.ones(day.size), rng.random(day.size) < level[day], block=day), ["g"], "binary"
        )
        rate = report.groups[0].measures[SELECTION]
        assert rate.low is not None
        assert rate.high is not None
        assert rate.value is not None
        missed += not rate.low <= 0.4 <= rate.high
        low, high = wilson(rate.value * day.size, day.size, 1.96)
        naive += not low <= 0.4 <= high
    assert missed <= worlds * 0.05 + 3 * np.sqrt(worlds * 0.05 * 0.95)
    assert naive > worlds * 0.3


def test_nulls_and_numbers_are_groups_and_a_group_of_one_has_no_gap() -> None:
    groups, place = group_rows([[None, 1, 1.0, True, float("nan"), "1", 2.5]])
    assert groups == (("null",), ("1",), ("true",), ("2.5",))
    assert place.tolist() == [0, 1, 1, 2, 0, 1, 3]
    report = fairness_report(counted(["a"] * 400, np.ones(400), RNG.random(400)), ["g"], "binary")
    assert report.gaps == ()
    nothing = fairness_report(counted([], np.empty(0), np.empty(0)), ["g"], "binary")
    assert (nothing.groups, nothing.gaps) == ((), ())


def test_a_pair_of_few_blocks_has_the_interval_of_independent_rows() -> None:
    rows = np.array([[300.0, 300.0], [300.0, 300.0]])
    sums = np.array([[150.0, 150.0], [100.0, 100.0]])
    value, low, high = compare(Measured(sums, rows, np.zeros(2)), ratio=False, sure=0.975)
    smooth = [(each + 1) / 602 for each in (300, 200)]
    half = 1.959964 * np.sqrt(sum(p * (1 - p) / 602 for p in smooth))
    assert (value[0, 1], low[0, 1], high[0, 1]) == pytest.approx((1 / 6, 1 / 6 - half, 1 / 6 + half), abs=1e-5)
