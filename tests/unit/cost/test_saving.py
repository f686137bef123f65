"""What would save, against brute force and closed forms."""

from __future__ import annotations

import random
from math import exp, sqrt
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.cost.saving.commitments import best_commitment
from mainspring.cost.saving.idle import LEAST_DAYS, idle_endpoints
from mainspring.cost.saving.regions import PLACES, allowed, ranked, round_trip_ms
from mainspring.cost.saving.spot import Training, expected_s, simulated_s
from mainspring.cost.saving.tiers import ARCHIVE, INFREQUENT, OBJECT, TERMS, Kept, cheapest, month_cost

_use = st.lists(st.floats(0, 50) | st.integers(0, 5).map(float), min_size=1, max_size=60)


def cost(use: list[float], level: float, on_demand: float, committed: float) -> float:
    return sum(level * committed + max(0.0, each - level) * on_demand for each in use)


@given(_use, st.floats(0.01, 5), st.floats(0, 6), st.integers(1, 70))
def test_no_other_level_would_have_cost_less(use: list[float], on_demand: float, committed: float, window: int) -> None:
    found = best_commitment(use, on_demand, committed, window=window)
    assert found.cost == pytest.approx(cost(use, found.level, on_demand, committed))
    assert found.without == pytest.approx(cost(use, 0.0, on_demand, committed))
    for level in (0.0, *use, *(each / 8 for each in range(400))):
        assert found.cost <= cost(use, level, on_demand, committed) + 1e-6
    length = min(window, len(use))
    windows = [use[at : at + length] for at in range(len(use) - length + 1)]
    extra = [cost(each, found.level, on_demand, committed) - cost(each, 0.0, on_demand, committed) for each in windows]
    assert found.worst - found.worst_without == pytest.approx(max(extra), abs=1e-6)
    assert extra[found.worst_at] == pytest.approx(max(extra), abs=1e-6)
    assert 0 <= found.used <= 1 + 1e-9


@given(_use, st.floats(0.01, 5), st.floats(0, 6))
def test_no_other_number_of_whole_units_would_have_cost_less(
    use: list[float], on_demand: float, committed: float
) -> None:
    found = best_commitment(use, on_demand, committed, whole=True)
    assert found.level == int(found.level)
    assert found.cost <= min(cost(use, level, on_demand, committed) for level in range(60)) + 1e-6


def test_a_unit_pays_if_it_is_used_more_often_than_the_ratio_of_prices() -> None:
    use = [1.0] * 6 + [3.0] * 4
    assert best_commitment(use, 1.0, 0.35).level == 3.0  # the third is used in 4 of 10 periods
    assert best_commitment(use, 1.0, 0.45).level == 1.0
    assert best_commitment(use, 1.0, 1.05).level == 0.0
    with pytest.raises(Invalid, match="0 periods"):
        best_commitment([], 1.0, 0.5)


def test_endpoints_that_are_asked_rarely() -> None:
    requests = {"busy": [500] * 10, "new": [0] * (LEAST_DAYS - 1), "never": [0] * 10, "weekly": [9] + [0] * 9}
    costs = {name: [1.0] * len(counts) for name, counts in requests.items()}
    found = {each.endpoint: each for each in idle_endpoints(requests, costs, month_days=30)}
    assert set(found) == {"never", "weekly"}  # too few days of the new one are known
    assert (found["never"].cost, found["never"].saved) == (30.0, 30.0)
    assert (found["weekly"].quiet, found["weekly"].cost, found["weekly"].saved) == (9, 30.0, 27.0)


def test_a_class_of_storage_is_chosen_by_all_that_it_charges() -> None:
    prices, terms = {OBJECT: 0.023, INFREQUENT: 0.0125, ARCHIVE: 0.0036}, TERMS["aws"]
    kept = Kept(gib=1000, files=10_000, reads=1, days=300)
    assert month_cost(kept, 0.023, terms[OBJECT], moved=False) == pytest.approx(23 + 10 * 0.0004)
    by_hand = 12.5 + 1000 * 0.01 + 10 * 0.001 + 10 * 0.01 * 30 / 300
    assert month_cost(kept, 0.0125, terms[INFREQUENT], moved=True) == pytest.approx(by_hand)
    assert cheapest(kept, prices, terms)[0] == INFREQUENT
    assert cheapest(Kept(gib=1000, files=10_000, reads=2, days=300), prices, terms)[0] == OBJECT  # reading costs more
    assert cheapest(Kept(gib=1000, files=10_000, reads=0, days=300), prices, terms)[0] == ARCHIVE
    early = Kept(gib=1000, files=10_000, reads=0, days=10)
    assert cheapest(early, prices, terms)[0] == OBJECT  # 30 days are paid, of files that live for 10
    small = Kept(gib=1, files=1_000_000, reads=0.1, days=60)
    assert cheapest(small, prices, terms)[0] == OBJECT  # each file is moved by a request
    assert ARCHIVE not in cheapest(kept, prices, terms)[1]  # what is read must be there at once


def test_distances_bound_what_is_measured() -> None:
    for one, other, measured in (  # published medians of AWS's own network, 2024
        ("aws/us-east-1", "aws/eu-west-1", 67), ("aws/eu-west-1", "aws/eu-central-1", 21),
        ("aws/us-east-1", "aws/us-west-2", 60), ("aws/ap-northeast-1", "aws/ap-southeast-1", 68),
    ):  # fmt: skip
        bounds = round_trip_ms(one, other)
        assert bounds is not None
        assert bounds[0] <= measured <= bounds[1], (one, other, bounds)
        assert bounds == pytest.approx(round_trip_ms(other, one))
    assert round_trip_ms("aws/us-east-1", "aws/us-east-1") == (0.0, 0.0)
    assert round_trip_ms("aws/us-east-1", "aws/moon-1") is None


@given(
    st.dictionaries(st.sampled_from(sorted(PLACES)), st.floats(0.01, 9), max_size=8),
    st.lists(st.sampled_from(["aws/eu-*", "google/europe-west3", "*/us*", "azure/westeurope"]), max_size=2),
    st.floats(0, 300),
)
def test_data_never_leave_where_they_may_live(hours: dict[str, float], where: list[str], most_ms: float) -> None:
    found = ranked(hours, where, callers="aws/eu-west-1", most_ms=most_ms, known_ms={"aws/us-east-1": 70.0})
    assert all(allowed(each.name, where) for each in found)
    assert [each.hour for each in found] == sorted(each.hour for each in found)
    for name in hours:
        trip = 70.0 if name == "aws/us-east-1" else (round_trip_ms("aws/eu-west-1", name) or (0, 1e9))[1]
        assert (name in {each.name for each in found}) == (allowed(name, where) and trip <= most_ms)


@pytest.mark.parametrize(
    ("work_h", "every_s", "an_hour"), [(2, 600, 0.3), (5, 1800, 0.5), (1, 7200, 0.2), (3, 900, 0.0)]
)
def test_simulated_trainings_take_as_long_as_the_formula_says(work_h: float, every_s: float, an_hour: float) -> None:
    from mainspring.serving.simulation.lives import Lives

    training = Training(work_s=work_h * 3600, every_s=every_s, checkpoint_s=20, restart_s=180)
    rng = random.Random(5)
    took = [simulated_s(training, Lives.at(an_hour).draw_s, rng.random)[0] for _ in range(1_500)]
    expected = expected_s(training, an_hour)
    assert abs(fmean(took) - expected) <= 4 * (stdev(took) / sqrt(len(took))) + 1e-6
    count = len(training.stretches)
    assert sum(training.stretches) == pytest.approx(training.work_s + (count - 1) * training.checkpoint_s)
    if an_hour:
        mean = 3600 / an_hour  # Daly's form, a stretch at a time
        daly = sum(mean * exp(180 / mean) * (exp(each / mean) - 1) for each in training.stretches)
        assert expected == pytest.approx(daly)
    else:
        assert min(took) == max(took) == pytest.approx(expected)


def test_the_interval_of_daly_is_near_the_best_of_all() -> None:
    from mainspring.training.loop.interval import best_interval_s

    def total(every_s: float) -> float:
        return expected_s(Training(work_s=40 * 3600, every_s=every_s, checkpoint_s=30, restart_s=120), 0.25)

    best = min(total(each) for each in range(60, 20_000, 20))
    assert total(best_interval_s(30, 4 * 3600)) <= 1.002 * best
