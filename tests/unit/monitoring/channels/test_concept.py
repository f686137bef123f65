"""Hints of concept drift from hours of losses."""

from __future__ import annotations

import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.concept import concept_signals, drifts
from mainspring.monitoring.quality.table import Key
from mainspring.stats.quality_sums import Rows, Sums, summed

H = 3600


def hours(days: int, changed: int, kind: str, task: str = "binary", rows: int = 40) -> dict[Key, Sums]:
    """Return the sums of hours whose traffic varies by day; from a day on the labels are of another concept."""
    rng = np.random.default_rng(4)
    found = {}
    for day in range(days):
        level = rng.normal(0, 0.7)  # a day's weather moves scores and labels alike
        for hour in range(24):
            x = rng.normal(level - 1, 1, rows)
            score = 1 / (1 + np.exp(-x))
            if task == "regression":
                y = 10 * x + rng.normal(0, 3 if day >= changed else 1, rows)
                made = summed("regression", Rows(10 * x, y))
            else:
                likely = 1 / (1 + np.exp(-(x if kind == "level" else 0.2 * x - 0.8))) if day >= changed else score
                made = summed("binary", Rows(score, (rng.random(rows) < likely).astype(float)))
            found[Key("1", "d1", day * DAY + hour * HOUR, "", "", H, task)] = made
    return found


def test_days_that_differ_in_level_are_no_concept_drift() -> None:
    assert drifts(hours(60, 60, "level"), 70 * DAY, DAY) == []


def test_another_relation_of_inputs_and_labels_is_found_within_days_by_both_detectors() -> None:
    found = drifts(hours(60, 40, "relation", rows=60), 70 * DAY, DAY)
    assert {each.detector for each in found} == {"ADWIN", "Page-Hinkley"}
    first = {
        name: min(each.hour for each in found if each.detector == name) // DAY for name in ("ADWIN", "Page-Hinkley")
    }
    assert all(40 <= day <= 48 for day in first.values()), first
    assert found[0].after > found[0].before


def test_the_error_of_numbers_that_grows_is_found() -> None:
    found = drifts(hours(40, 25, "", "regression"), 50 * DAY, DAY)
    assert 25 <= found[0].hour // DAY <= 27


def test_labels_that_have_not_come_are_waited_for_and_small_hours_are_joined() -> None:
    sums = hours(60, 40, "relation", rows=60)
    assert drifts(sums, 40 * DAY, DAY) == []
    few = hours(60, 40, "relation", rows=6)
    assert drifts(few, 70 * DAY, DAY) == drifts(few, 71 * DAY, DAY)
    assert drifts({}, DAY, DAY) == []


def test_a_hint_is_a_ticket_of_its_day() -> None:
    found = drifts(hours(60, 40, "relation", rows=60), 70 * DAY, DAY)
    signal = concept_signals("late", found, 0)[0]
    assert (signal.channel, signal.statistic, signal.page, signal.version) == ("harm", "concept", False, "1")
    assert signal.end - signal.start == DAY
    assert signal.start <= found[0].hour < signal.end
    assert concept_signals("late", found, 70 * DAY) == []
