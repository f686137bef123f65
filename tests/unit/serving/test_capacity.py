"""The search for the highest load, on servers whose limit is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.serving.load.capacity import capacity, limits, point, search
from mainspring.serving.load.generator import Load
from mainspring.serving.model import Point


def tried(rate: float, *, met: bool) -> Point:
    return Point(offered=rate, answered=rate, in_time=1.0 if met else 0.5, refused=0.0, p50_us=1.0, p99_us=2.0)


@given(st.floats(1.0, 150_000))
def test_the_limit_is_found_to_the_precision_asked_for(limit: float) -> None:
    points = search(lambda rate: tried(rate, met=rate <= limit), close=1.1)
    found = capacity(points)
    assert found is not None
    assert found <= limit < found * 1.1 * 1.0001
    assert len(points) < 30
    assert [each.offered for each in points] == sorted(each.offered for each in points)


def test_a_server_that_meets_nothing_has_no_capacity() -> None:
    points = search(lambda rate: tried(rate, met=False))
    assert capacity(points) is None
    assert min(each.offered for each in points) < 4


def test_no_load_above_the_most_is_tried() -> None:
    points = search(lambda rate: tried(rate, met=True), most=1000)
    assert capacity(points) == max(each.offered for each in points) == 1000


def test_luck_above_a_load_that_was_too_much_proves_nothing() -> None:
    assert capacity([tried(10, met=True), tried(20, met=False), tried(40, met=True)]) == 10


def test_the_limit_is_between_the_highest_load_met_and_the_next() -> None:
    points = [tried(100, met=True), tried(144, met=False), tried(200, met=False)]
    assert limits(points, 100) == (120, 144)
    middle, failed = limits(points[:1], 100)
    assert (middle, failed) == (pytest.approx(100 * 1.1**0.5), pytest.approx(110))


def test_what_was_due_and_never_asked_is_not_in_time() -> None:
    load = Load(1.0, 10.0, asked=8, latencies_us=np.array([100.0] * 5 + [9000.0]), refusals_us=np.ones(2), unasked=2)
    found = point(load, deadline_us=1000)
    assert found.in_time == 0.5
    assert found.refused == 0.2
    assert found.answered == 6
    assert not found.met


def served(rate: float, seconds: float, takes: float, seed: int = 0) -> Load:
    """Poisson requests to a server that takes the same time for each: latencies by Lindley's recursion."""
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, round(rate * seconds)))
    latencies, free = [], 0.0
    for at in due:
        free = max(at, free) + takes
        latencies.append((free - at) * 1e6)
    return Load(max(seconds, free), rate, len(due), latencies_us=np.array(latencies), due_us=due * 1e6)


def test_a_queue_that_grows_is_not_sustained_however_long_the_deadline() -> None:
    def measure(rate: float) -> Point:
        return point(served(rate, 3.0, takes=0.002), deadline_us=60e6)

    found = capacity(search(measure))
    assert found is not None
    assert 400 < found < 550  # of 500 requests a second, which a load of three seconds tells from more by a tenth
    assert measure(1000).in_time == 1.0
    assert measure(1000).grew
    slow = capacity(search(lambda rate: point(served(rate, 10 / rate, takes=1.0), deadline_us=600e6)))
    assert slow is not None
    assert slow < 2.0


@given(st.floats(0.1, 0.9), st.integers(0, 1000))
def test_a_queue_below_its_limit_does_not_grow(share: float, seed: int) -> None:
    assert not point(served(1000 * share, 3.0, takes=0.001, seed=seed), deadline_us=50_000).grew


def test_a_pause_in_a_short_load_is_no_queue_that_grows() -> None:
    latencies = np.array([1_000.0] * 100 + [60_000.0] * 100)
    assert not point(Load(0.2, 1000.0, 200, latencies_us=latencies), deadline_us=100_000).grew
    assert point(Load(3.0, 67.0, 200, latencies_us=2 * latencies), deadline_us=500_000).grew


def test_a_load_without_answers_did_not_grow() -> None:
    assert not point(Load(1.0, 10.0, 10, unasked=10), deadline_us=1000).grew


def test_a_closed_loop_has_no_point() -> None:
    with pytest.raises(Invalid, match="closed loop"):
        point(Load(1.0, None, 10), 1000)
