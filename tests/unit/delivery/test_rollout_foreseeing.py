"""Plans tried in advance on an endpoint's traffic."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.delivery.rollout import guards
from mainspring.delivery.rollout.foreseeing import Foreseen, Traffic, foreseen, traffic_of
from mainspring.delivery.rollout.plan import Plan

MONDAY = 4 * DAY  # 1970-01-05
SOME = tuple(np.random.default_rng(1).lognormal(3, 0.4, 2_000).tolist())
PLAN = Plan(
    endpoint="parcels",
    steps=(0.05, 0.25, 0.5),
    hold_us=10 * MINUTE,
    longest_us=6 * HOUR,
    guards=(guards.errors(), guards.latency(), guards.score()),
)
BUSY = Traffic(requests_an_hour=(20_000.0,), errors=0.001, latencies=SOME)


def of(found: tuple[Foreseen, ...], guard: str) -> dict[str, Foreseen]:
    return {each.candidate: each for each in found if each.guard == guard}


def test_a_plan_tells_what_it_finds() -> None:
    found = foreseen(PLAN, BUSY, MONDAY)
    errors, latency = of(found, "errors"), of(found, "latency")
    assert len(errors) + len(latency) == len(found)
    same, half = errors["0.1% of its requests fail"], errors["50% of its requests fail"]
    assert same.rolled_back <= 0.02
    assert half.rolled_back == 1
    assert half.late_hours is not None
    assert half.late_hours < 1 / 60
    assert half.met < 0.001
    assert latency["it takes 1 times as long"].rolled_back <= 0.02
    assert latency["it takes 2 times as long"].rolled_back == 1
    (smallest,) = [each for said, each in errors.items() if "the least" in said]
    assert smallest.rolled_back >= 0.8
    assert msgspec.json.decode(msgspec.json.encode(found), type=tuple[Foreseen, ...]) == found


def test_less_traffic_takes_longer() -> None:
    plan = msgspec.structs.replace(PLAN, guards=(guards.errors(),))
    busy, quiet = (
        of(foreseen(plan, msgspec.structs.replace(BUSY, requests_an_hour=(each,)), MONDAY), "errors")
        for each in (20_000.0, 500.0)
    )
    said = "5% of its requests fail"
    assert busy[said].median_hours is not None
    assert (quiet[said].median_hours or 6) > 3 * busy[said].median_hours


@pytest.mark.parametrize(
    ("plan", "traffic"),
    [
        (msgspec.structs.replace(PLAN, steps=(1.0,)), BUSY),
        (msgspec.structs.replace(PLAN, steps=(0.0,)), BUSY),
        (PLAN, Traffic(requests_an_hour=(0.0,))),
        (msgspec.structs.replace(PLAN, guards=(guards.score(),)), BUSY),
    ],
    ids=["blue-green", "shadow", "no traffic", "no guard that is simulated"],
)
def test_nothing_is_foreseen(plan: Plan, traffic: Traffic) -> None:
    assert foreseen(plan, traffic, MONDAY) == ()


def test_latency_needs_a_history() -> None:
    found = foreseen(PLAN, msgspec.structs.replace(BUSY, latencies=(1.0, 2.0)), MONDAY)
    assert {each.guard for each in found} == {"errors"}


def test_traffic_of_a_log() -> None:
    assert traffic_of([], [], []).requests_an_hour == (0.0,)
    hour = traffic_of(np.arange(0, 2 * HOUR, MINUTE), np.ones(120), np.full(120, 0.5))
    assert hour.requests_an_hour[0] == pytest.approx(120, rel=0.02)
    # two weeks from a Monday, with traffic from noon to midnight
    at = np.concatenate([MONDAY + np.arange(day * DAY + 12 * HOUR, (day + 1) * DAY, 6 * MINUTE) for day in range(14)])
    week = traffic_of(at, np.ones(at.size), np.ones(at.size))
    assert week.requests_an_hour == tuple(10.0 if hour % 24 >= 12 else 0.0 for hour in range(168))
