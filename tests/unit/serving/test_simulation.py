"""The simulation against formulas of queues, and against what has to hold of any."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.time import HOUR, SECOND
from mainspring.serving.simulation.arrivals import described, recorded
from mainspring.serving.simulation.fleet import ByTime, ByUtilisation, Fixed
from mainspring.serving.simulation.lives import Lives, read_lives
from mainspring.serving.simulation.model import Endpoint, Machines
from mainspring.serving.simulation.simulator import simulate
from mainspring.serving.simulation.times import Times

pytestmark = pytest.mark.slow

MEAN_US = 10_000


def one_by_one(times: Times, executors: int = 1, **changes: object) -> Endpoint:
    """An endpoint whose requests run alone, and are never late."""
    usual: dict[str, object] = {
        "times": times, "overhead_us": 0.0, "deadline_us": HOUR, "executors": (executors, executors), "cores": 64.0,
        "max_batch_rows": 1, "max_queue_rows": 1 << 30,
    }  # fmt: skip
    return Endpoint(**(usual | changes))  # type: ignore[arg-type]


def exponential() -> Times:
    places = (np.arange(20_000) + 0.5) / 20_000
    return Times({1: (-MEAN_US * np.log1p(-places)).tolist()})


def erlang_c(servers: int, load: float) -> float:
    """Chance that a request waits."""
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(load**each / factorial(each) for each in range(servers)) + last)


@pytest.mark.parametrize(("servers", "share"), [(1, 0.5), (1, 0.8), (3, 0.7)])
def test_waits_are_those_of_erlang(servers: int, share: float) -> None:
    rate = share * servers / (MEAN_US / SECOND)
    found = simulate(one_by_one(exponential(), servers), described(f"{rate}/s for {60_000 / rate:.0f}s", 3), Fixed(1))
    waits = erlang_c(servers, share * servers) / (servers / MEAN_US * (1 - share))
    assert found.latencies_us.mean() == pytest.approx(waits + MEAN_US, rel=0.06)
    assert found.busy_s == pytest.approx(found.asked * MEAN_US / SECOND, rel=0.03)
    if servers == 1:  # sojourn times are exponential
        for at in (0.5, 0.95):
            expected = -np.log(1 - at) * MEAN_US / (1 - share)
            assert found.quantile_us(at) == pytest.approx(expected, rel=0.1)


def test_waits_of_constant_services_are_half_of_that() -> None:
    found = simulate(one_by_one(Times({1: [MEAN_US]})), described("80/s for 600s", 4), Fixed(1))
    assert found.latencies_us.mean() == pytest.approx(MEAN_US * (1 + 0.8 / (2 * 0.2)), rel=0.08)


@given(
    st.lists(st.integers(0, 1_500), min_size=1, max_size=60), st.integers(1, 300), st.integers(0, 900),
    st.integers(1, 200),
)  # fmt: skip
def test_a_loop_reads_what_has_come_and_then_computes(
    gaps: list[int], read_us: int, batch_us: int, row_us: int
) -> None:
    arrivals = np.cumsum(gaps)
    endpoint = one_by_one(
        Times.exactly(batch_us, row_us), overhead_us=float(read_us), max_batch_rows=64, inline=True
    )  # fmt: skip
    expected, free = list[int](), 0
    while len(expected) < len(arrivals):
        begins = max(arrivals[len(expected)], free)
        come = arrivals[len(expected) : max(len(expected) + 1, np.searchsorted(arrivals, begins))]
        free = begins + len(come) * read_us + batch_us + row_us * len(come)
        expected += (free - come).tolist()
    assert simulate(endpoint, arrivals, Fixed(1)).latencies_us.tolist() == expected


def test_two_loops_have_shorter_queues() -> None:
    endpoint = one_by_one(Times({1: [1.0]}), overhead_us=1_000.0)
    one, two = (simulate(endpoint, described("800/s for 60s", 5), Fixed(count)) for count in (1, 2))
    assert one.latencies_us.mean() > 1_000 * (1 + 0.8 / (2 * 0.2))  # if each were answered as soon as it is read
    assert two.latencies_us.mean() < 0.6 * one.latencies_us.mean()


def test_a_batch_answers_what_waits_together() -> None:
    """20 requests at once: one alone, then the other 19 in one batch."""
    arrivals = np.zeros(20, np.int64)
    endpoint = one_by_one(Times.exactly(1_000, 10), max_batch_rows=64)
    found = simulate(endpoint, arrivals, Fixed(1))
    assert sorted(found.latencies_us.tolist()) == [1_010] + [1_010 + 1_190] * 19


@given(
    st.integers(1, 3), st.floats(5, 400), st.integers(500, 40_000), st.integers(2_000, 60_000), st.integers(0, 2),
    st.sampled_from([0.0, 900.0]), st.booleans(), st.integers(0, 5),
)  # fmt: skip
def test_no_request_is_lost_from_sight(
    most: int, rate: float, takes_us: int, deadline_us: int, least: int, interrupted: float, by_use: bool, seed: int
) -> None:
    endpoint = Endpoint(
        times=Times.exactly(takes_us, takes_us / 10), overhead_us=50.0, deadline_us=deadline_us,
        executors=(min(least, most), most), cores=2.0, idle_s=0.5, load_s=0.2,
    )  # fmt: skip
    rule = ByUtilisation(1, 4, every_s=0.5, settle_s=1.0) if by_use else Fixed(2)
    arrivals = described(f"{rate}/s for 2s, 0/s for 1s, {rate}/s for 2s, 1/s for 2s", seed)
    if not len(arrivals):
        return
    found = simulate(endpoint, arrivals, rule, Machines(boot_s=0.3, lives=Lives.at(interrupted)), seed)
    assert len(found.latencies_us) + found.refused + found.lost == found.asked == len(arrivals)
    assert found.in_time <= len(found.latencies_us)
    assert (found.latencies_us >= min(takes_us, 1)).all()
    assert found.busy_s <= found.executor_s * 2 + 1e-6 or found.lost
    again = simulate(endpoint, arrivals, rule if not by_use else ByUtilisation(1, 4, every_s=0.5, settle_s=1.0),
                     Machines(boot_s=0.3, lives=Lives.at(interrupted)), seed)  # fmt: skip
    assert again.latencies_us.tolist() == found.latencies_us.tolist()


def test_from_zero_the_first_request_waits_for_the_model() -> None:
    endpoint = one_by_one(Times({1: [1_000.0]}), executors=2, load_s=0.25, idle_s=2.0)
    endpoint = Endpoint(**{**{each: getattr(endpoint, each) for each in endpoint.__slots__}, "executors": (0, 2)})
    arrivals = np.array([0, 10 * SECOND, 10 * SECOND + 400_000], np.int64)
    found = simulate(endpoint, arrivals, Fixed(1))
    assert found.latencies_us.tolist() == pytest.approx([1_000, 251_000, 1_000], abs=2)
    assert found.executor_s < 8


def test_replicas_follow_the_load_and_cost_their_time() -> None:
    endpoint = one_by_one(Times({1: [20_000.0]}), deadline_us=500_000)
    arrivals = described("20/s for 2m, 120/s for 4m, 20/s for 10m", 6)
    found = simulate(endpoint, arrivals, ByUtilisation(1, 10, target=0.5), Machines(boot_s=20))
    numbers = [number for _, number in found.replicas]
    assert max(numbers) in {5, 6}
    assert numbers[-1] == 1
    assert found.share_in_time > 0.9
    fixed = simulate(endpoint, arrivals, Fixed(6))
    assert found.machine_s < 0.75 * fixed.machine_s
    assert fixed.machine_s == pytest.approx(6 * fixed.seconds, rel=0.01)
    timed = simulate(endpoint, arrivals, ByTime(((0, 1), (120, 6), (360, 1))))
    assert timed.machine_s == pytest.approx(120 + 6 * 240 + 600, rel=0.05)


def test_lost_machines_lose_what_they_have() -> None:
    endpoint = one_by_one(Times({1: [50_000.0]}))
    found = simulate(endpoint, described("30/s for 10m", 7), Fixed(3), Machines(boot_s=5, lives=Lives.at(60)))
    assert found.lost > 10
    assert len(found.latencies_us) + found.lost == found.asked


def test_descriptions_of_loads() -> None:
    steady = described("steady 10/s for 2s")
    assert np.diff(steady).tolist() == [100_000] * 19
    rising = described("0-100/s for 100s", 8)
    assert len(rising) == pytest.approx(5_000, rel=0.1)
    assert (rising < 50 * SECOND).mean() == pytest.approx(0.25, abs=0.03)
    falling = described("100-0/s for 100s", 8)
    assert (falling < 50 * SECOND).mean() == pytest.approx(0.75, abs=0.03)
    assert recorded([5, 3, 9], faster=2).tolist() == [0, 1, 3]
    for wrong in (
        "",
        "fast",
        "5 for 10s",
        "5/s for ever",
        "1..2/s for 1s",
        "9e9/s for 1s",
        "99999999/s for 1h",
        "-1/s for 1s",
    ):
        with pytest.raises(Invalid):
            described(wrong)
    with pytest.raises(Invalid, match="No request"):
        recorded([])


def test_durations_are_drawn_as_they_were_measured() -> None:
    times = Times({1: [100.0, 200.0], 11: [1_100.0, 2_200.0]})
    assert (times.draw(1, 0.0), times.draw(11, 0.5), times.draw(6, 0.0)) == (100, 2_200, 600)
    assert times.draw(21, 0.0) == pytest.approx(2_100)
    assert Times({4: [8.0]}).draw(8, 0.3) == 16
    assert Times.exactly(5, 2).mean(10) == pytest.approx(25)
    for wrong in ({}, {1: []}, {0: [1.0]}, {1: [0.0]}, {1: [float("nan")]}):
        with pytest.raises(Invalid):
            Times(wrong)


def test_lives_of_machines_are_those_of_a_trace() -> None:
    """Of four, one is interrupted after 1 h, one given back after 2 h, one interrupted after 4 h, one kept for 5 h."""
    lives = read_lives("hours,interrupted\n4,1\n1,1\n2,0\n5,0\n")
    drawn = [lives.draw_s((place + 0.5) / 1000) / 3600 for place in range(1000)]
    assert (sum(each == 1 for each in drawn), sum(each == 4 for each in drawn)) == (250, 375)  # 3/4, then 1/2 of it
    assert lives.an_hour == pytest.approx(2 / 12)
    beyond = [each - 5 for each in drawn if each > 5]
    assert np.mean(beyond) == pytest.approx(6, rel=0.02)  # exponential, of that rate
    assert Lives.at(0.0).draw_s(0.99) == float("inf")
    assert np.mean([Lives.at(0.5).draw_s((each + 0.5) / 1000) for each in range(1000)]) == pytest.approx(7200, rel=0.02)
    for wrong in ("", "hours\n1\n", "hours,interrupted\n", "hours,interrupted\n0,1\n", "hours,interrupted\n1,2\n",
                  "hours,interrupted\nnan,1\n", "hours,interrupted\n1\n"):  # fmt: skip
        with pytest.raises(Invalid):
            read_lives(wrong)
