"""Simulated rollouts: what they foresee is what the tests do."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from kit.arms import allowed, looks, worse
from mainspring.core.errors import Invalid
from mainspring.stats.sequential.distributions import TAIL, bins_of
from mainspring.stats.sequential.events import log_e_above
from mainspring.stats.sequential.means import Bounds
from mainspring.stats.sequential.planning import (
    WEEK,
    Course,
    Step,
    _Strata,
    foresee_events,
    foresee_latency,
    foresee_means,
    smallest_effect,
)

pytestmark = pytest.mark.slow

CANARY = (Step(0.05, 2), Step(0.25, 2), Step(0.5, 4))
COURSE = Course(steps=CANARY, requests_an_hour=5_000)


def test_a_large_effect_is_found_soon_and_a_tolerated_one_is_not() -> None:
    none, some, large = foresee_events(COURSE, 0.01, [1.0, 2.0, 20.0], tolerance=1.2)
    assert none.breached <= allowed(0.05, COURSE.runs)
    assert none.cleared <= 0.5
    assert large.breached == 1
    assert large.late_hours is not None
    assert some.median_hours is not None
    assert large.late_hours < 0.3 < some.median_hours < 8
    assert large.met < 0.01 < some.met < none.met


def test_what_is_foreseen_is_what_the_test_does() -> None:
    """The same rollout, request by request."""
    course = Course(steps=(Step(0.2, 4),), requests_an_hour=1_000, runs=300)
    (foreseen,) = foresee_events(course, 0.02, [2.0])
    seen = looks(worse(np.random.default_rng(1), 300, 4_000, ratio=2.0, weight=0.2, rate=0.02))
    found = float((log_e_above(*seen) >= -np.log(0.05)).any(axis=1).mean())
    assert 0.2 < found < 0.8
    assert abs(foreseen.breached - found) < 0.13


def test_success_is_foreseen_as_well() -> None:
    fine = foresee_events(Course(steps=CANARY, requests_an_hour=50_000), 0.05, [1.0], tolerance=1.3)[0]
    assert fine.cleared >= 0.95
    assert fine.breached <= 0.05


def test_a_harmless_share_is_no_breach() -> None:
    course = Course(steps=CANARY, requests_an_hour=50_000)
    harmless, harmful = foresee_events(course, 0.0001, [5.0, 50.0], 1.5, at_most=0.001)
    assert harmless.breached <= 0.01
    assert harmless.cleared >= 0.95
    assert harmful.breached == 1


def test_traffic_by_the_hour_of_the_week() -> None:
    hourly = tuple(0.0 if hour % 24 < 12 else 100.0 for hour in range(WEEK))
    for starts, first in ((0.0, 0.0), (12.0, 600.0), (WEEK - 6.0, 600.0)):
        by = _Strata(Course(steps=(Step(0.1, 6), Step(0.5, 18)), requests_an_hour=hourly, starts=starts))
        assert by.requests.sum() == pytest.approx(1_200)
        assert by.requests[by.weight == 0.1].sum() == pytest.approx(first)
        assert by.hours[by.weight == 0.1].max() == pytest.approx(6)
    nights = foresee_events(Course(steps=(Step(0.1, 10),), requests_an_hour=hourly), 0.1, [5.0])[0]
    assert nights.breached == 0


def test_latency() -> None:
    history = np.random.default_rng(1).lognormal(3, 0.5, 5_000)
    same, slower = foresee_latency(COURSE, bins_of(history, TAIL), history, [1.0, 1.5], 1.2)
    assert same.breached <= allowed(0.05, COURSE.runs)
    assert slower.breached >= 0.95


def test_means() -> None:
    history = np.random.default_rng(1).beta(2, 8, 5_000)
    same, larger = foresee_means(COURSE, Bounds(0, 1, 0.2), history, [0.0, 0.05], 0.01)
    assert same.breached <= allowed(0.05, COURSE.runs)
    assert same.cleared >= 0.5
    assert larger.breached >= 0.95


def test_the_smallest_effect_that_is_found() -> None:
    course = Course(steps=CANARY, requests_an_hour=5_000, runs=100, looks=60)

    def foresee(effect: float) -> Any:
        return foresee_events(course, 0.01, [effect])[0]

    found = smallest_effect(foresee, 1.01, 50)
    assert found is not None
    assert 1.1 < found < 3
    assert foresee(found).breached >= 0.8 > foresee(found / 1.1).breached
    assert smallest_effect(foresee, 1.001, 1.01) is None


def test_a_course_can_be_stored_and_repeats() -> None:
    assert msgspec.json.decode(msgspec.json.encode(COURSE), type=Course) == COURSE
    assert foresee_events(COURSE, 0.01, [2.0]) == foresee_events(COURSE, 0.01, [2.0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Course(steps=CANARY, requests_an_hour=(1.0, 2.0)), "2 hours"),
        (lambda: Course(steps=CANARY, requests_an_hour=-1.0), "1 hours"),
        (lambda: Course(steps=(), requests_an_hour=1.0), "A step needs"),
        (lambda: Course(steps=(Step(1.0, 2),), requests_an_hour=1.0), "A step needs"),
        (lambda: Course(steps=CANARY, requests_an_hour=1.0, alpha=0), "tell nothing"),
        (lambda: foresee_events(COURSE, 0.5, [1.0, 3.0]), "1.5 is not a probability"),
    ],
)
def test_refusals(call: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        call()
