"""Days of an answer chain: alike ones alarm within the budget, and a day that differs names what differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainspring.core.time import DAY
from mainspring.monitoring.channels.logged_days import judge_days
from mainspring.monitoring.incidents.model import Judged
from mainspring.operations.answer_monitoring import WORDS

ROWS, LENGTH = 200, 70


def days(seed: int, last: dict[str, Any] | None = None, length: int = LENGTH) -> dict[int, dict[str, list[Any]]]:
    """Return days of a chain with a weekly season; `last` replaces columns of the last one."""
    rng = np.random.default_rng(seed)
    found: dict[int, dict[str, list[Any]]] = {}
    for day in range(length):
        weekend = day % 7 >= 5
        share = np.clip(0.85 - 0.1 * weekend + rng.normal(0, 0.02), 0, 1)
        kinds = rng.dirichlet(60 * np.array([0.5 - 0.2 * weekend, 0.3, 0.1, 0.1 + 0.2 * weekend]))
        found[day * DAY] = {
            "found": (rng.random(ROWS) < share).astype(float).tolist(),
            "best_score": rng.normal(0.7, 0.1, ROWS).tolist(),
            "tokens": rng.gamma(4, 200, ROWS).tolist(),
            "cost_micros": rng.gamma(4, 20, ROWS).tolist(),
            "latency_ms": rng.gamma(3, 300, ROWS).tolist(),
            "asked": [str(1 + each) for each in rng.choice(4, ROWS, p=kinds)],
        }
    found[(length - 1) * DAY] |= last or {}
    return found


def judged(given: dict[int, dict[str, list[Any]]], since: int = 0, **more: Any) -> list[Judged]:
    length = len(given)
    counts = dict.fromkeys(given, ROWS)
    return judge_days("help", given, counts, since=since, until=length * DAY, alarms_per_week=1.0, words=WORDS, **more)


def test_alike_days_alarm_within_the_budget() -> None:
    alarms = weeks = 0
    for seed in range(8):
        found = judged(days(seed))
        alarms += len({signal.start for each in found for signal in each.signals})
        weeks += len(found[0].windows) / 7
    assert weeks > 20
    assert alarms / weeks < 1.5


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("found", [1.0] * 60 + [0.0] * 140, "share of questions with an answer is 0.3 of 200 answers, 0.8"),
        ("best_score", [0.4] * 200, "similarity of the nearest passage is 0.4"),
        ("tokens", [4_000.0] * 200, "number of tokens of an answer is 4e+03"),
        ("latency_ms", [9_000.0] * 200, "time to an answer, ms, is 9e+03"),
        ("asked", ["3"] * 150 + ["1"] * 50, "kind 3 is 75% of them, usually 1"),
    ],
)
def test_a_day_that_differs_is_told_by_what_differs(column: str, values: list[Any], told: str) -> None:
    found = judged(days(3, {column: values}), since=(LENGTH - 1) * DAY)
    signals = [signal for each in found for signal in each.signals]
    assert {signal.column for signal in signals} == {column}
    assert all(signal.start == (LENGTH - 1) * DAY and signal.severity > 1 for signal in signals)
    assert told in signals[0].detail
    assert "training" not in signals[0].detail


def test_what_people_called_expected_is_usual_from_then_on() -> None:
    given = days(3, {"tokens": [4_000.0] * ROWS})
    (signal,) = (signal for each in judged(given, since=(LENGTH - 1) * DAY) for signal in each.signals)
    given[LENGTH * DAY] = given[(LENGTH - 1) * DAY]
    again = judged(given, since=LENGTH * DAY, dismissed=[signal])
    assert not [one for each in again for one in each.signals if one.column == "tokens" and one.statistic == "mean"]


@pytest.mark.parametrize("length", [0, 1, 10])
def test_too_few_days_are_not_judged(length: int) -> None:
    given = days(0, length=length) if length else {}
    assert all(not each.windows and not each.signals for each in judged(given))


def test_a_day_without_a_column_is_judged_by_the_others() -> None:
    given = days(1)
    for each in given.values():
        each["asked"] = [None] * ROWS
    found = judged(given, since=(LENGTH - 1) * DAY)
    assert all(each.windows for each in found)
