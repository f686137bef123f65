"""Budgets: what is refused, months of every length, and an interval that covers nine months of ten."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.money import Money
from mainspring.core.time import DAY, HOUR
from mainspring.cost.budgets.forecasting import FEWEST_DAYS, forecast
from mainspring.cost.budgets.judging import EXCEEDED, WARNED, WITHIN, judge
from mainspring.security.quota import MONTH, period

EUR = 10**9


def at(year: int, month: int, day: int = 1, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 10**6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "names nobody"),
        ({"team": "a", "endpoint": "b"}, "the team a and the endpoint b"),
        ({"team": "a", "project": True}, "the team a and the project"),
        ({"team": "a", "month": ""}, "names no currency|month is ''"),
        ({"team": "a", "month": "500"}, "month is '500': it names no currency. Fix: .*: month = \"0.85 EUR\""),
        ({"team": "a", "month": "-5 EUR"}, "0 or more"),
        ({"team": "a", "month": "nan EUR"}, "0 or more"),
        ({"team": "a", "month": "0 EUR"}, "above 0"),
        ({"team": "a", "month": "5 EURO"}, "no currency of ISO 4217"),
        ({"team": "a", "month": 500}, "amount"),
        ({"team": "a", "warn": 0}, "warn=0"),
        ({"team": "a", "warn": 80}, "warn=80"),
        ({"team": "a", "warn": float("nan")}, "warn=nan"),
        ({"project": True, "share": 1.5}, "share=1.5"),
        ({"project": True, "act": ["stop"]}, "the action 'stop'"),
        ({"project": True, "act": "queue"}, "actions"),
        ({"endpoint": "a", "act": ["queue"]}, "is of endpoint.*some of shed, scale-down"),
        ({"project": 1}, "project=True"),
    ],
)
def test_a_budget_that_is_wrong_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ms.Budget("b", **{"month": "500 EUR", **given})


def test_levels_follow_from_what_is_spent_and_forecast() -> None:
    budget = ms.Budget("search", team="search", month="310 EUR", warn=0.8, act=[])
    now = at(2026, 1, 11)
    assert judge(budget, {}, now).level == WITHIN
    cases = ((9, WITHIN, ""), (12, WARNED, "forecast at 372.00 EUR"), (25, WARNED, "warning is at 80%"))
    for daily, level, said in cases:
        found = judge(budget, {at(2026, 1, 1) + day * DAY: daily * EUR for day in range(10)}, now)
        assert (found.level, found.spent) == (level, Money("EUR", daily * 10 * EUR))
        assert said in found.why
    found = judge(budget, {at(2026, 1, 2): 310 * EUR, at(2025, 12, 31): 999 * EUR}, now)
    assert (found.level, found.share) == (EXCEEDED, 1.0)
    assert "310.00 EUR of 310.00 EUR (100%) are spent by the team search" in found.why
    assert judge(budget, {at(2025, 12, 31): 999 * EUR}, at(2026, 1, 1)).level == WITHIN, (
        "a new month begins with nothing"
    )


@pytest.mark.parametrize(
    ("year", "month", "length"), [(2026, 2, 28), (2028, 2, 29), (2026, 3, 31), (2026, 10, 31), (2026, 4, 30)]
)
def test_months_have_their_days_whatever_clocks_do(
    monkeypatch: pytest.MonkeyPatch, year: int, month: int, length: int
) -> None:
    """Days and months are UTC: in March and October a day in Berlin has 23 or 25 hours."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    begin, end = period(MONTH, at(year, month, 15))
    assert (end - begin) // DAY == length
    daily = {begin + day * DAY: EUR for day in range(-60, length)}
    budget = ms.Budget("b", project=True, month="1000 EUR")
    assert judge(budget, daily, end - 1).spent.nanos == length * EUR
    for day in (1, 14, length - 1):
        now = begin + day * DAY
        found = judge(budget, {each: cost for each, cost in daily.items() if each < now}, now)
        assert found.forecast is not None
        assert (found.forecast.low, found.forecast.expected, found.forecast.high) == (length * EUR,) * 3


def test_the_day_that_is_not_over_counts_by_its_share() -> None:
    begin, end = period(MONTH, at(2026, 1, 15))
    days = {begin + day * DAY: 24 * EUR for day in range(-30, 14)} | {begin + 14 * DAY: 6 * EUR}
    found = forecast(days, begin, end, begin + 14 * DAY + 6 * HOUR)
    assert found is not None
    assert found.expected == 31 * 24 * EUR


def test_with_few_days_there_is_no_forecast() -> None:
    begin, end = period(MONTH, at(2026, 1, 15))
    assert forecast({}, begin, end, begin) is None
    for days in range(1, FEWEST_DAYS + 2):
        found = forecast({begin + day * DAY: EUR for day in range(days)}, begin, end, begin + days * DAY)
        assert (found is None) == (days < FEWEST_DAYS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**13), min_size=8, max_size=80), st.integers(0, 30), st.integers(0, 23))
def test_a_forecast_is_never_below_what_is_spent(costs: list[int], day: int, hour: int) -> None:
    begin, end = period(MONTH, at(2026, 1, 15))
    now = begin + day * DAY + hour * HOUR
    days = {now // DAY * DAY - place * DAY: cost for place, cost in enumerate(costs)}
    found = forecast(days, begin, end, now)
    spent = sum(cost for each, cost in days.items() if begin <= each < end)
    assert found is not None
    assert spent <= found.low <= found.expected <= found.high


def _drawn(kind: str, first: int, days: int, draw: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return daily costs from the day `first` after 1970-01-01, a Thursday."""
    week = np.array([0.4 if (first + day + 3) % 7 >= 5 else 1.0 for day in range(days)])
    if kind == "noise":
        return 100 + 20 * draw.standard_normal(days)
    if kind == "weeks":
        return week * (100 + 15 * draw.standard_normal(days))
    if kind == "skewed":
        return week * draw.gamma(4, 25, days)
    errors = np.zeros(days)
    for day in range(1, days):
        errors[day] = 0.5 * errors[day - 1] + 20 * np.sqrt(0.75) * draw.standard_normal()
    return np.maximum(0.0, 100 + errors)


@pytest.mark.parametrize("kind", ["noise", "weeks", "skewed", "memory"])
@pytest.mark.parametrize(("history", "elapsed", "length"), [(40, 5, 31), (30, 14, 28), (14, 2, 31), (60, 20, 30)])
def test_the_interval_covers_nine_months_of_ten(kind: str, history: int, elapsed: int, length: int) -> None:
    draw, covered, months = np.random.default_rng(7), 0, examples(gate=300, deep=1_000)
    begin = 20_454 * DAY
    for _ in range(months):
        costs = (_drawn(kind, begin // DAY - history, history + length, draw) * EUR).astype(np.int64).clip(0)
        days = {begin + (place - history) * DAY: int(cost) for place, cost in enumerate(costs)}
        now = begin + elapsed * DAY
        found = forecast({day: cost for day, cost in days.items() if day < now}, begin, begin + length * DAY, now)
        assert found is not None
        covered += found.low <= sum(cost for day, cost in days.items() if day >= begin) <= found.high
    least, most = examples(gate=(0.84, 0.975), deep=(0.85, 0.96))
    assert least <= covered / months <= most
