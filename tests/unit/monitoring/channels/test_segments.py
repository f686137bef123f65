"""Segments that are found by their score and missing values."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.depth import examples
from mainspring.core.time import DAY
from mainspring.monitoring.channels.judging import Watched, judge
from mainspring.monitoring.hours import CROSSED, HourSketch
from mainspring.monitoring.signals import Signal
from mainspring.stats.crossings import MEASURES, Crossing
from mainspring.stats.reference import Reference, profile
from mainspring.stats.sketches import Ruler, Sketch

FIRST, DAYS = 19_000, 84
Rows = dict[str, Any]
Fault = Callable[[Rows], None]


def rows_of(day: int, count: int = 3_000, seed: int = 5) -> Rows:
    """Return a day's rows, whose scores all move together from day to day, and with the weekday."""
    rng = np.random.default_rng([seed, day])
    origin = rng.choice(["EWR", "JFK", "LGA"], count).astype(object)
    hour = rng.integers(0, 24, count).astype(float)
    level = 0.3 + 0.05 * rng.normal() + 0.05 * (day % 7 == 2)
    score = np.clip(level + 0.05 * (origin == "EWR") + 0.004 * hour + 0.1 * rng.normal(size=count), 0.0, 1.0)
    return {"F.origin": origin, "F.hour": hour, "F.wind": rng.normal(size=count), "p": score}


def within(rows: Rows) -> Any:
    return (rows["F.origin"] == "JFK") & (rows["F.hour"] < 6)


def wrong_scores(rows: Rows) -> None:
    rows["p"] = np.where(within(rows), np.clip(rows["p"] + 0.12, 0.0, 1.0), rows["p"])


def nulls(rows: Rows) -> None:
    rows["F.wind"] = np.where(within(rows) & (np.arange(len(rows["p"])) % 2 == 0), np.nan, rows["F.wind"])


@pytest.fixture(scope="module")
def trained() -> Reference:
    parts = [rows_of(day) for day in range(20)]
    whole = profile({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return msgspec.structs.replace(whole, crossed=("F.origin", "F.hour"))


def evidence(trained: Reference, day: int, rows: Rows) -> list[HourSketch]:
    start, size = (FIRST + day) * DAY, len(rows["p"])
    sketch, pairs = Ruler(trained).measure(rows)
    found = [HourSketch("e", "1", "d", start, "", sketch, pairs, rows=size)]
    for measure, sums in zip(MEASURES, Crossing(trained, "p").sums(rows, size), strict=True):
        found.append(HourSketch("e", "1", "d", start, CROSSED + measure, Sketch.empty(()), sums, rows=size))
    return found


@pytest.fixture(scope="module")
def usual(trained: Reference) -> list[HourSketch]:
    return [each for day in range(DAYS - 1) for each in evidence(trained, day, rows_of(day))]


def judged(trained: Reference, hours: list[HourSketch], since: int = FIRST) -> list[Signal]:
    """Return the signals of segments."""
    until = max(each.hour for each in hours) + DAY
    found = judge(Watched("e", trained, ["p"]), hours, since=since * DAY, until=until)
    return [each for each in found.signals if each.segment]


def on_last_day(trained: Reference, usual: list[HourSketch], fault: Fault) -> list[Signal]:
    rows = rows_of(DAYS - 1)
    fault(rows)
    return judged(trained, [*usual, *evidence(trained, DAYS - 1, rows)], since=FIRST + DAYS - 1)


def test_a_fault_in_one_pair_of_bins_is_found_by_its_name(trained: Reference, usual: list[HourSketch]) -> None:
    found = on_last_day(trained, usual, wrong_scores)
    assert [(each.segment, each.column, each.statistic) for each in found] == [
        ("F.origin=JFK and F.hour=up to 5", "p", "mean")
    ]
    assert found[0].value > found[0].expected + 0.5  # type: ignore[operator]
    assert "F.origin=JFK and F.hour=up to 5" in found[0].detail


def test_missing_values_in_one_pair_of_bins_are_found_by_its_name(trained: Reference, usual: list[HourSketch]) -> None:
    found = on_last_day(trained, usual, nulls)
    assert [(each.segment, each.statistic) for each in found] == [("F.origin=JFK and F.hour=up to 5", "nulls")]
    assert 0.1 < (found[0].value or 0.0) < 0.25  # one of three columns in half of the rows


def test_a_fault_in_one_bin_is_not_named_as_a_pair(trained: Reference, usual: list[HourSketch]) -> None:
    def fault(rows: Rows) -> None:
        rows["p"] = np.where(rows["F.origin"] == "LGA", np.clip(rows["p"] + 0.05, 0.0, 1.0), rows["p"])

    assert {each.segment for each in on_last_day(trained, usual, fault)} == {"F.origin=LGA"}


def test_clean_traffic_keeps_to_the_budget_of_segments(trained: Reference) -> None:
    days, weeks = 0, 0.0
    for seed in range(examples(gate=1, deep=10)):
        hours = [each for day in range(126) for each in evidence(trained, day, rows_of(day, seed=seed))]
        days += len({each.start for each in judged(trained, hours)})
        weeks += (126 - 42) / 7
    expected = 0.2 * weeks
    assert days <= expected + 3 * expected**0.5


def test_segments_of_few_rows_are_not_judged(trained: Reference) -> None:
    def day(number: int) -> list[HourSketch]:
        rows = rows_of(number, count=300)
        if number == DAYS - 1:
            wrong_scores(rows)
        return evidence(trained, number, rows)

    hours = [each for number in range(DAYS) for each in day(number)]
    assert judged(trained, hours, since=FIRST + DAYS - 1) == []


def test_a_day_of_one_row_without_values_is_no_crash(trained: Reference, usual: list[HourSketch]) -> None:
    def lost(rows: Rows) -> None:
        for name in rows:
            rows[name] = np.array([None], object) if name == "F.origin" else np.array([np.nan])

    assert on_last_day(trained, usual, lost) == []
