"""Three ways to count that are wrong, each beside ours: requests of sticky units, labels as they come, moving weights.

All seeds are fixed: a test fails because the code changed, never by chance.
"""

from __future__ import annotations

import math

import numpy as np

from kit.arms import DAY, HOUR, WEIGHT, Array, allowed, counted, labelled, looks_at, sticky
from kit.depth import examples
from mainspring.stats.sequential.bandit import weights_by_means
from mainspring.stats.sequential.counting import NEVER, first_of_units
from mainspring.stats.sequential.events import log_e_differs, log_e_sample_ratio

ALPHA = 0.05
LIMIT = math.log(1 / ALPHA)
RUNS = examples(gate=200, deep=2_000)


def alarms(strata: Array, candidate: Array, control: Array) -> bool:
    return bool((log_e_differs(strata, candidate, control) >= LIMIT).any())


def test_requests_of_sticky_units_are_no_independent_assignments_and_units_are() -> None:
    random = np.random.default_rng(12)
    found = {"requests": 0, "units": 0, "exposures by request": 0, "exposures": 0}
    for _ in range(RUNS):
        drawn = sticky(random)
        events = np.flatnonzero(drawn.failed)
        first = np.zeros(drawn.failed.size, np.bool_)
        first[events] = first_of_units(drawn.units[events])[0]
        for name, counts in (("requests", drawn.failed), ("units", first)):
            found[name] += alarms(*counted(drawn.weight, drawn.weight, drawn.candidate, counts))
        for name, counts in (
            ("exposures by request", drawn.failed | True),
            ("exposures", first_of_units(drawn.units)[0]),
        ):
            strata, candidate, control = counted(drawn.weight, drawn.weight, drawn.candidate, counts)
            log_e = log_e_sample_ratio(np.stack([1 - strata, strata], axis=1), np.stack([control, candidate], axis=-1))
            found[name] += bool((log_e >= LIMIT).any())
    share = {name: number / RUNS for name, number in found.items()}
    assert share["units"] <= allowed(ALPHA, RUNS)
    assert share["exposures"] <= allowed(ALPHA, RUNS)
    assert share["requests"] > 2 * allowed(ALPHA, RUNS)
    assert share["exposures by request"] > 2 * allowed(ALPHA, RUNS)


def test_a_worse_candidate_is_found_by_units() -> None:
    random = np.random.default_rng(3)
    found = 0
    for _ in range(20):
        drawn = sticky(random)
        failed = drawn.failed | (drawn.candidate & (random.random(drawn.failed.size) < 0.3))
        events = np.flatnonzero(failed)
        first = np.zeros(failed.size, np.bool_)
        first[events] = first_of_units(drawn.units[events])[0]
        found += alarms(*counted(drawn.weight, drawn.weight, drawn.candidate, first))
    assert found >= 18


def test_an_arm_whose_labels_come_sooner_wins_by_the_naive_way_alone() -> None:
    random = np.random.default_rng(12)
    found = {"as they come": 0, "in time": 0}
    for _ in range(RUNS):
        drawn = labelled(random)
        drawn = drawn._replace(came=np.where(drawn.came == NEVER, drawn.made + DAY, drawn.came))
        for kind in found:
            found[kind] += alarms(np.array([WEIGHT]), *looks_at(drawn, kind))
    assert found["in time"] / RUNS <= allowed(ALPHA, RUNS)
    assert found["as they come"] / RUNS > 0.9


def test_labels_missing_in_one_arm_are_an_event_of_their_own() -> None:
    random = np.random.default_rng(4)
    lost = [alarms(np.array([WEIGHT]), *looks_at(labelled(random, lost=0.8), "missing")) for _ in range(20)]
    assert np.mean(lost) >= 0.9
    equal = []
    for _ in range(RUNS):
        drawn = labelled(random)
        never = (
            random.random(drawn.made.size) < 0.05 + 0.2 * drawn.positive
        )  # missing informatively, alike in both arms
        drawn = drawn._replace(came=np.where(never, NEVER, drawn.made + HOUR))
        equal.append(
            alarms(np.array([WEIGHT]), *looks_at(drawn, "missing"))
            or alarms(np.array([WEIGHT]), *looks_at(drawn, "in time"))
        )
    assert np.mean(equal) <= 2 * allowed(ALPHA, RUNS)


def test_a_bandits_moving_weights_leave_the_test_valid() -> None:
    """Forty updates of a hundred units each; conversions are equally frequent, and rise with time."""
    random = np.random.default_rng(12)
    false, confounded, shares = 0, 0, []
    runs = RUNS // 3
    for _ in range(runs):
        weight, at, candidates, events = 0.5, [], [], []
        for update in range(40):
            candidate = random.random(100) < weight
            at.append(np.full(100, weight))
            candidates.append(candidate)
            events.append(random.random(100) < 0.05 + 0.005 * update)
            arm, happened = np.concatenate(candidates), np.concatenate(events)
            units, events_of = np.bincount(arm, minlength=2), np.bincount(arm[happened], minlength=2)
            sums = np.stack([units, events_of, events_of], axis=1)
            weight = weights_by_means(sums, floor=0.1, seed=update)[1]
        weights, arm, happened = np.concatenate(at), np.concatenate(candidates), np.concatenate(events)
        false += alarms(*counted(weights, weights, arm, happened))
        rate = happened.mean()
        z = np.abs(np.cumsum((arm - 0.5) * happened)) / np.sqrt(np.cumsum(happened) / 4 + 1)
        confounded += bool((z[500:] > 1.96).any())
        shares.append(np.unique(weights).size)
        assert 0.05 < rate < 0.3
    assert false / runs <= allowed(ALPHA, runs)
    assert confounded / runs > 2 * allowed(ALPHA, runs)
    assert max(shares) <= 41
