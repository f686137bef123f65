"""Reports of quality, and label coverage against its usual curve."""

from __future__ import annotations

import numpy as np
import pytest

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.quality.coverage import UsualCoverage
from mainspring.monitoring.quality.measuring import EVER_S
from mainspring.monitoring.quality.reports import estimated, measured
from mainspring.monitoring.quality.table import Key
from mainspring.stats.quality_sums import PLACE, Rows, Sums, scores_summed, summed

H, D = 3600, 86400


def made(version: str, hour: int, rows: int, labels: dict[int, int], segment: str = "") -> dict[Key, Sums]:
    """Return the sums of an hour: age -> labels that became known by it, and the predictions."""
    rng = np.random.default_rng(hour % 1_000_003)
    every = Sums.nothing()
    every.totals[PLACE["predictions"]] = rows
    found = {Key(version, f"d{version}", hour, segment, "", 0, "binary"): every}
    for age, count in labels.items():
        score = rng.random(count)
        y = (rng.random(count) < score).astype(float)
        found[Key(version, f"d{version}", hour, segment, "", age, "binary")] = summed("binary", Rows(score, y))
    return found


def history(days: int, labels: dict[int, int], **later: int) -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    for day in range(days):
        for hour in range(0, 24, 6):
            found |= made("1", day * DAY + hour * HOUR, 100, labels)
    return found


def test_the_usual_coverage_at_an_age_is_that_of_the_past() -> None:
    sums = history(20, {H: 30, D: 40, 3 * D: 20, EVER_S: 5})
    usual = UsualCoverage.of(sums, 20 * DAY, 40 * DAY)
    assert [usual.at(age) for age in (H, D, 3 * D, 30 * D)] == pytest.approx([0.3, 0.7, 0.9, 0.9])
    assert usual.at(2 * D) == pytest.approx(0.7)  # a point of the curve, without labels of that age
    assert usual.at(0.0) == 0.0
    assert usual.at(-1.0) is None


def test_hours_count_only_at_ages_that_they_have_reached() -> None:
    # The newest days have no labels of three days yet: the curve must not fall because of them.
    sums = history(10, {H: 30, 3 * D: 60})
    now = 10 * DAY
    young = {key: each for key, each in sums.items() if not (key.age_s == 3 * D and key.hour > now - 3 * DAY - HOUR)}
    assert UsualCoverage.of(young, now, now).at(3 * D) == pytest.approx(0.9)


def test_without_a_past_nothing_is_expected() -> None:
    usual = UsualCoverage.of({}, 0, DAY)
    assert usual.at(H) is None
    assert usual.expected({0: 10.0}, DAY) is None


def test_a_report_has_each_version_with_coverage_against_expected() -> None:
    now = 21 * DAY
    sums = history(20, {H: 30, D: 40})
    sums |= made("2", 20 * DAY, 200, {H: 20})  # a day old by now, and 10% labelled instead of 70%
    sums |= made("2", 20 * DAY, 80, {H: 8}, segment="kind=a")
    sums |= made("1", 20 * DAY, 50, {H: 15, D: 20})
    second, first, part = measured(
        sums, 20 * DAY, 21 * DAY, now, lambda digest: {"brier": 0.1 if digest == "d2" else 0.2}
    )
    assert [(each.version, each.segment) for each in (second, first, part)] == [("2", ""), ("1", ""), ("2", "kind=a")]
    assert second.coverage == pytest.approx(0.1)
    assert second.expected_coverage == pytest.approx(0.7, abs=0.02)
    assert (first.coverage, first.predictions, first.labels) == (0.7, 50, 35)
    assert (second.held_out, first.held_out) == ({"brier": 0.1}, {"brier": 0.2})
    assert set(first.by_age) == {"1h", "1d", "7d", "30d"}
    assert first.by_age["1h"]["brier"].rows == 15
    assert first.by_age["30d"] == first.figures
    assert sum(each["rows"] for each in first.calibration) == 35
    assert first.figures["brier"].low is not None


def test_estimates_of_a_period_use_labels_that_had_come_when_it_ended() -> None:
    sums: dict[Key, Sums] = {}
    rng = np.random.default_rng(1)
    for day in range(20):
        score = rng.random(400)
        y = (rng.random(400) < score).astype(float)
        every = Sums.nothing()
        every.bins[:] = scores_summed(score)
        sums[Key("1", "d1", day * DAY, "", "", 0, "binary")] = every
        if day < 18:
            sums[Key("1", "d1", day * DAY, "", "", H, "binary")] = summed("binary", Rows(score, y))
    periods = [(day * DAY, (day + 1) * DAY) for day in range(20)]
    found = estimated(sums, periods, 20 * DAY, 2 * DAY)
    newest = found["1", "", 19 * DAY]["brier"]
    assert newest.low is not None
    assert newest.low <= 1 / 6 <= newest.high
    assert newest.errors == 13  # of the days 4 to 16: the first have too few labels before them, the last have none yet
    assert ("1", "", 0) not in found
    assert estimated({}, periods, 20 * DAY, DAY) == {}
