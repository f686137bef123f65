"""What an idle process takes more: found in the latencies of a rate, and right at another rate."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.depth import DEEP
from kit.serving import route
from mainspring.core.errors import Invalid
from mainspring.core.time import SECOND
from mainspring.operations.simulation.measuring import Measured, rates
from mainspring.serving.simulation.arrivals import Instants, described
from mainspring.serving.simulation.fleet import Fixed
from mainspring.serving.simulation.model import Endpoint
from mainspring.serving.simulation.simulator import simulate
from mainspring.serving.simulation.times import Times
from mainspring.serving.simulation.waking import Waking, Woken, after_idle, during_work

pytestmark = pytest.mark.slow

BUSY_US, WAKE_US, PAUSE_US = 200.0, 300.0, 20_000
REQUESTS = 50_000 if DEEP else 20_000


def served(arrivals: Instants, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Latencies of one process, which reads all that has come and answers it together: a request takes 200 µs, 300 more
    after a millisecond without work, and once a second, by chance, all stands still for 20 ms."""
    rng, free, found = np.random.default_rng(seed), -1e9, list[float]()
    pauses = np.cumsum(rng.exponential(SECOND, len(arrivals))).tolist()
    while len(found) < len(arrivals):
        at = arrivals[len(found)]
        begins = max(at, free)
        place = bisect_right(pauses, begins) - 1
        if place >= 0 and begins < pauses[place] + PAUSE_US:
            begins = pauses[place] + PAUSE_US
        together = arrivals[len(found) : max(len(found) + 1, int(np.searchsorted(arrivals, begins, "right")))]
        free = begins + len(together) * BUSY_US + (WAKE_US if at - free > 1_000 else 0)
        found += (free - together).tolist()
    return np.array(found)


@pytest.mark.parametrize("rate", [150, 1_000])
def test_a_load_is_predicted_from_others(rate: int) -> None:
    probes = []
    for number, other in enumerate((50, 400, 1_500)):
        arrivals = described(f"{other}/s for {REQUESTS / other:.0f}s", number)
        latencies = served(arrivals, number)
        more_us = 40.0 if other == 400 else 0.0
        alone, busy = after_idle(arrivals, latencies, BUSY_US), during_work(arrivals, latencies)
        probes.append(Woken(*alone, more_us, len(arrivals), busy))
    waking = Waking(probes, lambda _: BUSY_US)
    endpoint = Endpoint(
        times=Times({1: [100.0], 1_000: [100_000.0]}), overhead_us=100.0, waking=waking, deadline_us=10 * SECOND,
        inline=True, max_batch_rows=1_000, max_queue_rows=1 << 30,
    )  # fmt: skip
    asked, found, real = 0, list[float](), list[float]()
    processor_s = 0.0
    for seed in range(9, 11):  # chance has a say in how many pauses there are
        arrivals = described(f"{rate}/s for {REQUESTS / rate:.0f}s", seed)
        simulated = simulate(endpoint, arrivals, Fixed(1), seed=seed)
        found, real = [*found, *simulated.latencies_us], [*real, *served(arrivals, seed)]
        asked, processor_s = asked + len(arrivals), processor_s + simulated.processor_s
    for share in (0.5, 0.9, 0.99, 0.999):
        assert np.quantile(found, share) == pytest.approx(np.quantile(real, share), rel=0.2)
    assert np.mean(found) == pytest.approx(np.mean(real), rel=0.1)
    assert processor_s > asked * BUSY_US / SECOND  # the 40 µs more of each at some rates


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=30))
def test_requests_after_idleness_are_those_that_met_nobody(requests: list[tuple[int, int]]) -> None:
    requests.sort(key=lambda each: each[0])
    gaps, latencies = after_idle([due for due, _ in requests], [took for _, took in requests])
    busy = during_work([due for due, _ in requests], [took for _, took in requests])
    expected, others = [], []
    for place, (due, took) in enumerate(requests[1:], 1):
        last = max(other + long for other, long in requests[:place])
        if last <= due:
            expected.append((float(due - last), float(took)))
        else:
            others.append(float(max(0, due + took - last)))
    assert list(zip(gaps.tolist(), latencies.tolist(), strict=True)) == expected
    assert busy.tolist() == others


def test_those_answered_together_wait_for_their_own_sake() -> None:
    """100 and 110 come until 90 is answered, at 400, and 110 is answered too late to be of its turn; 500 is alone."""
    gaps, latencies = after_idle([0, 90, 100, 110, 500], [10, 310, 310, 350, 20], each_us=40.0)
    assert (gaps.tolist(), latencies.tolist()) == ([80, 40], [270, 20])


def test_a_rate_has_the_processor_time_that_was_measured_and_one_between_has_its_own() -> None:
    """After 1 ms without work a request costs 63 µs more, after 10 ms 100."""

    def gaps(rate: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.random.default_rng(round(rate)).exponential(SECOND / rate, 4_000)

    def costs(idle_us: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(100 * (1 - np.exp(-idle_us / 1_000)).mean())

    of = {rate: gaps(rate) for rate in (100.0, 300.0, 1_000.0)}
    waking = Waking([Woken(each, each * 0, costs(each), 4_000) for each in of.values()], lambda _: 0.0)
    for rate, off in ((100, 0.06), (200, 0.1), (300, 0.06), (500, 0.1), (1_000, 0.06)):
        idle = of.get(rate, gaps(rate))
        drawn = np.mean([waking.draw(each, 0.5)[1] for each in idle.tolist()])
        assert drawn == pytest.approx(costs(idle), rel=off)


def test_a_waking_needs_a_request() -> None:
    with pytest.raises(Invalid, match="No request"):
        Waking([Woken(np.zeros(0), np.zeros(0), 0.0, 5)], lambda _: 1.0)


def test_a_gateway_is_measured_at_the_rates_of_the_load() -> None:
    steady = described("steady 200/s for 20s")
    assert rates(steady, 1, 1_000.0) == pytest.approx([100, 200], rel=0.02)
    assert rates(steady, 4, 1_000.0) == pytest.approx([25, 70.7, 200], rel=0.02)
    assert rates(steady, 1, 20_000.0) == [25.0]  # half of what one executor can do
    assert rates(steady, 1, 2_000_000.0) == [0.25]
    assert rates(described("1/s for 20s"), 1, 1_000.0) == [10.0]
    assert rates(described("9000/s for 2s"), 1, 10.0) == [2_000.0]


@pytest.mark.parametrize(("cores", "takes_us", "inline"), [(1, 900.0, True), (4, 900.0, False), (4, 90.0, True)])
def test_a_slow_model_leaves_the_loop_where_there_are_cores(cores: int, takes_us: float, inline: bool) -> None:
    found = Measured(
        route=route(), version="1", times=Times({1: [takes_us]}), model_share=1.0, load_s=0.1,
        load_processor_s=0.1, inline=True, overhead_us=50.0, batch_us=0.0, apart_us=0.0, waking=None, idle_share=0.0,
        busy_share=1.0, cores=cores,
    )  # fmt: skip
    assert found.endpoint((1, 1), cores).inline is inline
