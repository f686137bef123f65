"""Harm in segments that are found: a fault is named where it is, and clean traffic is hardly ever an alarm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from kit.depth import examples
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.harm import Found, Harm, harms
from mainspring.monitoring.quality.table import Key
from mainspring.stats.crossings import Crossing
from mainspring.stats.quality_sums import NO_BINS, Rows, Sums, contributions, summed
from mainspring.stats.reference import profile

Fault = Callable[[dict[str, Any], int], Any]
DAYS, ROWS = 20, 1_200
DECLARED = {"brier": 0.02, "calibration": 0.05}
ORIGINS, SHIFTS = ["EWR", "JFK", "LGA"], ["day", "night"]
CROSSING = Crossing(
    msgspec.structs.replace(
        profile({"F.origin": ORIGINS * 2, "F.shift": [*SHIFTS, *SHIFTS, *SHIFTS]}), crossed=("F.origin", "F.shift")
    ),
    "p",
)


def part(rng: np.random.Generator, rows: int, fault: Fault, day: int) -> tuple[Rows, dict[str, Sums]]:
    """Return calibrated predictions with labels, those that the fault has inverted, and the sums by segment."""
    values = {"F.origin": rng.choice(ORIGINS, rows).astype(object), "F.shift": rng.choice(SHIFTS, rows).astype(object)}
    score = rng.random(rows)
    label = (rng.random(rows) < score).astype(float)
    made = Rows(score, np.where(fault(values, day), 1 - label, label), cap=9.2)
    found = CROSSING.totals(values, contributions("binary", made)[0])
    return made, {segment: Sums(totals, NO_BINS) for segment, totals in found.items()}


def life(seed: int, fault: Fault, now: int = (DAYS + 2) * DAY) -> list[Harm]:
    """Return the evidence of the last fortnight of a version's first days."""
    rng = np.random.default_rng(seed)
    _, held = part(rng, 8_000, lambda values, _: np.zeros(len(values["F.origin"]), bool), 0)
    whole, sums = {}, {}
    for day in range(DAYS):
        made, found = part(rng, ROWS, fault, day)
        whole[Key("1", "d", day * DAY, "", "", 3600, "binary")] = summed("binary", made)
        sums |= {Key("1", "d", day * DAY, name, "", 1, "binary"): each for name, each in found.items()}
    crossed = Found(sums, lambda _: {(name, ""): each for name, each in held.items()})
    return harms(whole, now, DAY, lambda _: {"brier": 1 / 6}, DECLARED, crossed=crossed)


def clean(values: dict[str, Any], day: int) -> Any:
    return np.zeros(len(values["F.origin"]), bool)


def in_a_pair(values: dict[str, Any], day: int) -> Any:
    return (values["F.origin"] == "JFK") & (values["F.shift"] == "night") & (day >= 12)


def in_a_bin(values: dict[str, Any], day: int) -> Any:
    return (values["F.origin"] == "JFK") & (day >= 12)


def everywhere(values: dict[str, Any], day: int) -> Any:
    return np.full(len(values["F.origin"]), day >= 12)


def alarms(found: list[Harm]) -> list[Harm]:
    return [each for each in found if each.severity >= 1 and each.segment]


def test_labels_inverted_in_a_pair_of_bins_are_named_by_the_pair_and_in_a_bin_by_the_bin() -> None:
    for fault, name in ((in_a_pair, "F.origin=JFK and F.shift=night"), (in_a_bin, "F.origin=JFK")):
        named = alarms(life(3, fault))
        assert {(each.segment, each.metric, each.version) for each in named} == {(name, "brier", "1")}
        assert DAY * 13 <= named[0].end <= DAY * 15  # the fault began on day 12
        assert len({each.end for each in named}) == len(named)  # one segment a day


def test_a_fault_of_all_traffic_is_no_segments() -> None:
    found = life(3, everywhere)
    assert any(each.severity >= 1 and not each.segment for each in found)
    assert alarms(found) == []


def test_clean_traffic_is_hardly_ever_an_alarm() -> None:
    lives = examples(gate=10, deep=200)
    # The level of segments is 1% of lives.
    assert sum(bool(alarms(life(seed, clean))) for seed in range(lives)) <= lives // 50


def test_a_day_counts_when_its_last_hour_is_as_old_as_the_horizon() -> None:
    before = alarms(life(3, in_a_pair, now=DAYS * DAY + DAY - HOUR))
    assert max(each.end for each in before) == (DAYS - 1) * DAY
    assert max(each.end for each in alarms(life(3, in_a_pair, now=DAYS * DAY + DAY))) == DAYS * DAY


def test_segments_of_few_held_out_rows_or_unknown_ones_are_not_judged() -> None:
    _, found = part(np.random.default_rng(1), 60, everywhere, 20)
    sums = {Key("1", "d", day * DAY, name, "", 1, "binary"): each for day in range(9) for name, each in found.items()}
    for held in ({(name, ""): each for name, each in found.items()}, {}):
        made = harms({}, 20 * DAY, DAY, lambda _: {"brier": 0.1}, DECLARED, crossed=Found(sums, lambda _, h=held: h))  # type: ignore[misc]
        assert made == []
