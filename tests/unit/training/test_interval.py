"""The interval of checkpoints against simulated failures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.registry.model import RunRecord
from mainspring.training.loop.interval import Interval, best_interval_s
from mainspring.training.runs.failures import Failures, failures_of

RESTART_S = 60.0
CASES = [(1.3, 36_000.0), (20.0, 4 * 3600.0), (0.01, 86_400.0), (120.0, 1800.0)]  # cost, mean time between failures


def expected_s(work_s: float, interval_s: float, cost_s: float, failure_every_s: float, restart_s: float) -> float:
    """Return how long a training is expected to take, with failures at random (Daly, equation 13)."""
    segment = math.expm1((interval_s + cost_s) / failure_every_s)
    return failure_every_s * math.exp(restart_s / failure_every_s) * segment * work_s / interval_s


def simulated(work_s: float, interval_s: float, cost_s: float, failure_every_s: float, trainings: int) -> float:
    """Return the mean time of trainings, in which failures come at random, also in checkpoints and restarts."""
    rng = np.random.default_rng(0)
    total = 0.0
    for _ in range(trainings):
        clock, done, fails = 0.0, 0.0, rng.exponential(failure_every_s)
        while done < work_s:
            piece = min(interval_s, work_s - done)
            if clock + piece + cost_s <= fails:
                clock, done = clock + piece + cost_s, done + piece
                continue
            clock = fails
            fails = clock + rng.exponential(failure_every_s)
            while clock + RESTART_S > fails:
                clock = fails
                fails = clock + rng.exponential(failure_every_s)
            clock += RESTART_S
        total += clock
    return total / trainings


def best_s(cost_s: float, failure_every_s: float) -> float:
    """The shortest expected time per second of work, over all intervals."""
    each = np.geomspace(cost_s / 10, 20 * failure_every_s, 4000)
    return min(expected_s(1.0, one, cost_s, failure_every_s, RESTART_S) for one in each if one < 100 * failure_every_s)


@pytest.mark.parametrize(("cost_s", "failure_every_s"), CASES)
def test_the_expected_time_is_within_a_thousandth_of_the_best(cost_s: float, failure_every_s: float) -> None:
    interval = best_interval_s(cost_s, failure_every_s)
    assert expected_s(1.0, interval, cost_s, failure_every_s, RESTART_S) < 1.001 * best_s(cost_s, failure_every_s)


@pytest.mark.parametrize(("cost_s", "failure_every_s"), [CASES[1], CASES[3]])
def test_simulated_trainings_take_as_long_as_expected_and_longer_with_other_intervals(
    cost_s: float, failure_every_s: float
) -> None:
    best = best_interval_s(cost_s, failure_every_s)
    work, trainings = 40 * failure_every_s, examples(gate=15, deep=200)
    took = {share: simulated(work, share * best, cost_s, failure_every_s, trainings) for share in (0.1, 1.0, 8.0)}
    assert took[1.0] == pytest.approx(expected_s(work, best, cost_s, failure_every_s, RESTART_S), rel=0.05)
    assert took[1.0] < 0.97 * min(took[0.1], took[8.0])


def test_it_follows_from_cost_and_failures_and_costs_at_most_two_percent() -> None:
    interval = Interval(failure_every_h=10)
    assert interval.seconds(None) == 30
    assert interval.seconds(1.3) == pytest.approx(math.sqrt(2 * 1.3 * 36_000), rel=0.01)
    assert interval.explained(1.3) == "every 305 s: a checkpoint costs 1.3 s, a failure every 10 h"
    assert interval.seconds(60.0) == 3000
    assert interval.explained(60.0) == "every 3000 s: a checkpoint costs 60 s, and at most 2 % of the time"
    assert Interval(machines=4).explained(0.01) == "every 20.8 s: a checkpoint costs 0.01 s, a failure every 6 h"


def run(hours: float | None, status: str = "FINISHED", **tags: str) -> RunRecord:
    ended = None if hours is None else int(hours * 3_600_000_000)
    named = {name.replace("__", "."): value for name, value in tags.items()}
    return RunRecord("r", "m", status, 0, ended, {}, {}, named)


def test_failures_of_trainings_so_far_correct_the_usual_rate() -> None:
    runs = [
        run(10.0, replaced="2"),
        run(5.0, preempted="after step 9"),
        run(90.0, "KILLED", mainspring__died="true"),  # nobody knows when
        run(7.0, "FAILED"),
        run(None, "RUNNING", replaced="1"),
        run(50.0, mainspring__purpose="influence"),
        run(50.0, mainspring__parent="r"),
    ]
    seen = failures_of(runs)
    assert seen == Failures(5, 22.0)
    said = Interval(seen=seen, machines=2).explained(0.01)
    assert said.endswith("a failure every 3.83 h (5 in 22 h so far)")  # (24 + 22) / (1 + 5) / 2
    assert Interval(seen=Failures(0, 76.0)).explained(0.01).endswith("a failure every 100 h")
    assert Interval(failure_every_h=10, seen=seen).explained(0.01).endswith("a failure every 10 h")


@pytest.mark.parametrize("failure_every_h", [2.0, 200.0])
def test_the_rate_of_many_hours_is_the_true_one_whatever_was_usual(failure_every_h: float) -> None:
    rng, hours = np.random.default_rng(0), 100 * failure_every_h
    seen = Failures(int(rng.poisson(hours / failure_every_h)), hours)
    assert seen.every_h(24.0) == pytest.approx(failure_every_h, rel=0.3)


def test_a_given_interval_is_only_extended_by_cost() -> None:
    assert Interval(30.0).seconds(0.001) == 30
    assert Interval(30.0).seconds(1.0) == 50
    assert Interval(30.0).explained(0.001) == "every 30 s: a checkpoint costs 0.001 s"
    assert Interval(0.0).seconds(None) == 0
    assert best_interval_s(10.0, 4.0) == 4.0


@pytest.mark.parametrize("hours", [0.0, -1.0, math.nan, math.inf])
def test_hours_that_are_none_are_refused(hours: float) -> None:
    with pytest.raises(Invalid, match="hours between two failures"):
        Interval(failure_every_h=hours)
