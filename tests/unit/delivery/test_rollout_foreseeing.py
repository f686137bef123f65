"""Plans tried in advance on an endpoint's traffic."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from kit.depth import examples
from kit.worlds import arrivals, label, ledger, prediction
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.delivery.rollout import guards
from mainspring.delivery.rollout.foreseeing import Foreseen, Labelled, Traffic, foreseen, labelled_of, traffic_of
from mainspring.delivery.rollout.plan import Plan

MONDAY = 4 * DAY  # 1970-01-05
RUNS = examples(gate=40, deep=400)
RANDOM = np.random.default_rng(1)
PLAN = Plan(
    endpoint="parcels",
    steps=(0.05, 0.25, 0.5),
    hold_us=10 * MINUTE,
    longest_us=6 * HOUR,
    guards=(guards.errors(), guards.latency(), guards.score(), guards.quality("brier", within="2h", tolerance=0.01)),
    goals=(guards.outcome("paid", within="1h"),),
)
LOSSES = tuple(RANDOM.beta(2, 8, 500).tolist())
BUSY = Traffic(
    requests_an_hour=(20_000.0,),
    errors=0.001,
    latencies=tuple(RANDOM.lognormal(3, 0.4, 2_000).tolist()),
    scores=tuple(RANDOM.beta(2, 5, 2_000).tolist()),
    labelled=(
        Labelled(age_us=2 * HOUR, known=0.8, values={"quality brier 7200000000": LOSSES}),
        Labelled(age_us=HOUR, known=0.9, values={"outcome paid higher 3600000000": (-1.0,) * 50 + (0.0,) * 450}),
    ),
)


def of(found: tuple[Foreseen, ...], guard: str) -> dict[str, Foreseen]:
    return {each.candidate: each for each in found if each.guard == guard and not each.least}


def least(found: tuple[Foreseen, ...], guard: str) -> Foreseen:
    (smallest,) = [each for each in found if each.guard == guard and each.least]
    return smallest


@pytest.fixture(scope="module")
def found() -> tuple[Foreseen, ...]:
    return foreseen(PLAN, BUSY, MONDAY, runs=RUNS)


def test_errors_and_latency_are_foreseen(found: tuple[Foreseen, ...]) -> None:
    errors, latency = of(found, "errors"), of(found, "latency")
    same, half = errors["0.1% of its requests fail"], errors["50% of its requests fail"]
    assert same.rolled_back <= 0.05
    assert half.rolled_back == 1
    assert half.late_hours is not None
    assert half.late_hours < 1 / 60
    assert half.met < 0.001
    same = latency["it takes 1 times as long"]
    assert same.rolled_back <= 0.05
    assert same.cleared >= 0.9
    assert latency["it takes 1.2 times as long"].rolled_back >= 0.95
    for guard in ("errors", "latency"):
        assert least(found, guard).rolled_back >= 0.8
    assert msgspec.json.decode(msgspec.json.encode(found), type=tuple[Foreseen, ...]) == found


def test_scores_are_foreseen(found: tuple[Foreseen, ...]) -> None:
    scores = of(found, "score")
    alike, moved = scores["its scores are alike"], scores["its scores are higher by 1 standard deviation"]
    assert (alike.rolled_back, moved.rolled_back) == (0, 1)
    assert alike.cleared == 1
    assert least(found, "score").rolled_back >= 0.8


def test_quality_is_foreseen_when_its_labels_have_come(found: tuple[Foreseen, ...]) -> None:
    same, *worse = of(found, "quality brier").values()
    mean = f"{np.mean(LOSSES):.3g}"
    assert same.candidate == f"a mean of {mean}, the champion's is {mean}"
    assert same.rolled_back <= 0.05
    assert [each.rolled_back for each in worse] == [1, 1, 1]
    assert all((each.median_hours or 0) > 2 for each in worse)
    assert worse[0].median_hours is not None
    assert worse[-1].median_hours is not None
    assert worse[0].median_hours > worse[-1].median_hours


def test_a_goal_is_foreseen_in_its_own_direction(found: tuple[Foreseen, ...]) -> None:
    same, *better = of(found, "outcome paid").values()
    assert same.candidate == "a mean of 0.1, the champion's is 0.1"
    assert [each.candidate for each in better][-1] == "a mean of 0.15, the champion's is 0.1"
    assert (same.cleared <= 0.1, better[-1].cleared, better[-1].rolled_back) == (True, 1, 0)
    assert least(found, "outcome paid").cleared >= 0.8


def test_labels_that_come_after_the_plan_has_ended_find_nothing() -> None:
    late = msgspec.structs.replace(BUSY.labelled[0], age_us=7 * HOUR)
    traffic = msgspec.structs.replace(BUSY, labelled=(late,))
    plan = msgspec.structs.replace(PLAN, guards=PLAN.guards[3:], goals=())
    assert {(each.rolled_back, each.cleared) for each in foreseen(plan, traffic, MONDAY, runs=10)} == {(0, 0)}


def test_less_traffic_takes_longer() -> None:
    plan = msgspec.structs.replace(PLAN, guards=(guards.errors(),), goals=())
    busy, quiet = (
        of(foreseen(plan, msgspec.structs.replace(BUSY, requests_an_hour=(each,)), MONDAY, runs=RUNS), "errors")
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
        (msgspec.structs.replace(PLAN, guards=(guards.score(),), goals=()), msgspec.structs.replace(BUSY, scores=())),
    ],
    ids=["blue-green", "shadow", "no traffic", "no history"],
)
def test_nothing_is_foreseen(plan: Plan, traffic: Traffic) -> None:
    assert foreseen(plan, traffic, MONDAY) == ()


def test_the_log_and_the_labels_tell_what_is_needed() -> None:
    made = [prediction(each, each * MINUTE, 0.1 * (each % 9)) for each in range(200)]
    rows = [label(f"f{each}", each % 2 == 0, each * MINUTE + (HOUR if each % 4 else 5 * HOUR)) for each in range(200)]
    chosen = guards.quality("brier", within="2h"), guards.errors()
    plan = msgspec.structs.replace(PLAN, endpoint="late", guards=chosen, goals=())
    (known,) = labelled_of(plan, ledger(made), arrivals(rows), "1", 6 * HOUR)
    assert known.age_us == 2 * HOUR
    assert known.known == pytest.approx(0.75, abs=0.01)
    assert len(known.values["quality brier 7200000000"]) == 150


def test_traffic_of_a_log() -> None:
    assert traffic_of([], [], []).requests_an_hour == (0.0,)
    hour = traffic_of(np.arange(0, 2 * HOUR, MINUTE), np.ones(120), np.full(120, 0.5))
    assert hour.requests_an_hour[0] == pytest.approx(120, rel=0.02)
    # a hundred requests a second: the newest of a log span seconds, and the first of a new one count as an hour's
    busy = np.arange(0, 50 * SECOND, SECOND // 100), np.ones(5_000), np.ones(5_000)
    assert traffic_of(*busy, cut=True).requests_an_hour[0] == pytest.approx(360_000, rel=0.01)
    assert traffic_of(*busy).requests_an_hour == (5_000.0,)
    # two weeks from a Monday, with traffic from noon to midnight
    at = np.concatenate([MONDAY + np.arange(day * DAY + 12 * HOUR, (day + 1) * DAY, 6 * MINUTE) for day in range(14)])
    week = traffic_of(at, np.ones(at.size), np.ones(at.size))
    assert week.requests_an_hour == tuple(10.0 if hour % 24 >= 12 else 0.0 for hour in range(168))
