"""The channel of attributions: records among days, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainspring.core.time import DAY
from mainspring.monitoring.channels.attributions import LEAST_HISTORY, Attributions, judge
from mainspring.monitoring.channels.budget import ATTRIBUTIONS
from mainspring.monitoring.signals import ATTRIBUTION

COLUMNS = ["V.a", "V.b", "V.c"]
TRAINED = {"V.a": 1.0, "V.b": 0.5, "V.c": 0.1}


def days(count: int, seed: int = 0, rows: int = 200) -> list[Attributions]:
    """Return days whose columns move answers by about 1, 0.5 and 0.1, with a spread between days."""
    rng = np.random.default_rng(seed)
    made = []
    for day in range(count):
        level = np.array([1.0, 0.5, 0.1]) * (1 + 0.05 * rng.normal(size=3))
        moved = np.abs(rng.normal(size=(rows, 3, 1))) * level[:, None] / np.sqrt(2 / np.pi)
        made.append(Attributions.of(day * DAY, (day + 1) * DAY, moved))
    return made


def told(found: list[Attributions]) -> Any:
    return judge("late", "3", COLUMNS, found, TRAINED)


def test_a_column_that_moves_answers_more_than_ever_is_named() -> None:
    history = days(30)
    changed = days(1, seed=9)[0]
    last = Attributions(30 * DAY, 31 * DAY, 200, changed.mean * [1, 2.5, 1], changed.error)
    windows, signals = told([*history, last])
    assert windows[-1] == (30 * DAY, 31 * DAY)
    signal = signals[-1]
    assert (signal.channel, signal.column, signal.statistic) == (ATTRIBUTION, "V.b", "attribution")
    assert (signal.start, signal.end) == windows[-1]
    assert signal.severity > 2
    assert signal.value == pytest.approx(2.5 * 0.5, rel=0.2)
    assert signal.expected == pytest.approx(0.5, rel=0.1)
    assert "input number 1 by that, and was number 2 on the held-out rows" in signal.detail
    assert not signal.page


def test_a_small_column_may_do_as_it_likes() -> None:
    last = days(1, seed=9)[0]
    moved = Attributions(30 * DAY, 31 * DAY, 200, last.mean * [1, 1, 1.5], last.error)
    _, signals = told([*days(30), moved])
    assert not [each for each in signals if each.start == 30 * DAY]


@pytest.mark.parametrize("budget", [1.0, 10.0])
def test_alike_days_keep_to_the_part_of_the_budget(budget: float) -> None:
    alarms = judged = 0
    for seed in range(60):
        windows, signals = judge("late", "3", COLUMNS, days(43, seed=seed), TRAINED, budget)
        judged += len(windows)
        alarms += len(signals)
    assert judged == 60 * (43 - LEAST_HISTORY)
    assert alarms <= 1.5 * judged / 7 * budget * ATTRIBUTIONS


def test_too_little_history_is_not_judged() -> None:
    assert told(days(LEAST_HISTORY)) == ([], [])
    assert told([]) == ([], [])
    windows, _ = told(days(LEAST_HISTORY + 1))
    assert windows == [(LEAST_HISTORY * DAY, (LEAST_HISTORY + 1) * DAY)]


def test_a_constant_history_is_no_division_by_zero() -> None:
    still = [Attributions.of(day * DAY, (day + 1) * DAY, np.ones((60, 3, 1))) for day in range(20)]
    windows, signals = told(still)
    assert windows
    assert signals == []
    moved = Attributions.of(20 * DAY, 21 * DAY, np.ones((60, 3, 1)) * [[[1], [3], [1]]])
    _, signals = told([*still, moved])
    assert [each.column for each in signals] == ["V.b"]
    assert np.isfinite(signals[0].severity)
