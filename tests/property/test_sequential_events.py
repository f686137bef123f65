"""False alarms and power of the tests on events, with a look at every request.

All seeds are fixed: a test fails because the code changed, never by chance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.arms import STREAMS, Looks, allowed, looks, worse
from kit.depth import examples
from mainspring.stats.sequential.events import (
    log_e_above,
    log_e_below,
    log_e_differs,
    log_e_sample_ratio,
    log_e_share_above,
    log_e_share_below,
    risk_interval,
    risk_ratio,
)

ALPHA = 0.05
RUNS = examples(gate=400, deep=10_000)
TESTS = {"above": log_e_above, "below": log_e_below, "differs": log_e_differs}
LIMIT = math.log(1 / ALPHA)


def false_alarms(stream: Any, rejects: Any) -> float:
    """Return the share of runs in which a test rejects at any look."""
    random = np.random.default_rng(12)
    alarms, step = 0, 100
    for _ in range(0, RUNS, step):
        alarms += int(rejects(looks(stream(random, step, 2_000))).any(axis=-1).sum())
    return alarms / RUNS


def peeking(seen: Looks) -> Any:
    """Reject as a z-test of the same counts does, at its fixed-horizon level, from the thirtieth event on."""
    expected = ((seen.candidate + seen.control) * seen.weights).sum(axis=-1)
    variance = ((seen.candidate + seen.control) * seen.weights * (1 - seen.weights)).sum(axis=-1)
    enough = (seen.candidate + seen.control).sum(axis=-1) >= 30
    return enough & (np.abs(seen.candidate.sum(axis=-1) - expected) > 1.96 * np.sqrt(variance))


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("stream", STREAMS)
def test_false_alarms_stay_under_alpha(stream: str, name: str) -> None:
    assert false_alarms(STREAMS[stream], lambda seen: TESTS[name](*seen) >= LIMIT) <= allowed(ALPHA, RUNS)


@pytest.mark.parametrize("stream", ["even", "nights", "steps"])
def test_a_peeking_z_test_fails_the_same_assertion(stream: str) -> None:
    assert false_alarms(STREAMS[stream], peeking) > 2 * allowed(ALPHA, RUNS)


def test_counts_pooled_over_steps_fail_the_same_assertion() -> None:
    """Weights and rates that both grow confound: strata are needed."""

    def pooled(seen: Looks) -> Any:
        weight = np.array([0.19])  # mean of the steps' weights
        return (
            log_e_differs(weight, seen.candidate.sum(-1, keepdims=True), seen.control.sum(-1, keepdims=True)) >= LIMIT
        )

    assert false_alarms(STREAMS["steps"], pooled) > 2 * allowed(ALPHA, RUNS)


@pytest.mark.parametrize(("truth", "null"), [(2.0, 2.0), (1.5, 2.0), (0.5, 0.5)])
def test_a_tolerated_difference_is_no_false_alarm(truth: float, null: float) -> None:
    stream = lambda random, runs, requests: worse(random, runs, requests, ratio=truth, weight=0.2, rate=0.05)  # noqa: E731
    assert false_alarms(stream, lambda seen: log_e_above(*seen, null) >= LIMIT) <= allowed(ALPHA, RUNS)
    assert false_alarms(stream, lambda seen: log_e_below(*seen, min(truth, 1 / null)) >= LIMIT) <= allowed(ALPHA, RUNS)


@pytest.mark.parametrize(
    ("ratio", "rate", "share"), [(1.0, 0.1, 0.0), (2.0, 0.1, 0.8), (10.0, 0.01, 0.9), (50.0, 0.01, 1.0)]
)
def test_a_worse_candidate_is_found(ratio: float, rate: float, share: float) -> None:
    random = np.random.default_rng(3)
    seen = looks(worse(random, 100, 5_000, ratio=ratio, weight=0.1, rate=rate))
    found = (log_e_above(*seen) >= LIMIT).any(axis=-1).mean()
    assert found >= share
    assert ratio > 1 or found <= 0.1


def test_half_of_the_answers_failing_is_found_within_a_few_events() -> None:
    seen = looks(worse(np.random.default_rng(4), 200, 4_000, ratio=500, weight=0.05, rate=0.001))
    rejected = log_e_above(*seen) >= math.log(1 / 0.01)
    assert rejected.any(axis=1).mean() >= 0.99
    assert np.median(rejected.argmax(axis=1)) <= 4


def test_no_worse_than_tolerated_is_found_and_a_worse_one_is_not() -> None:
    same, twice = (
        looks(worse(np.random.default_rng(5), 100, 5_000, ratio=r, weight=0.5, rate=0.1)) for r in (1.0, 2.0)
    )
    assert (log_e_below(*same, 1.5) >= LIMIT).any(axis=-1).mean() >= 0.9
    assert (log_e_below(*twice, 1.5) >= LIMIT).any(axis=-1).mean() <= ALPHA


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_the_interval_covers_at_every_look_and_ends_where_the_test_rejects(ratio: float) -> None:
    seen = looks(worse(np.random.default_rng(6), 1, 5_000, ratio=ratio, weight=0.3, rate=0.1))
    each = math.log(2 / 0.05)
    for look in range(0, seen.candidate.shape[1], 40):
        counts = seen.weights, seen.candidate[0, look], seen.control[0, look]
        found = risk_interval(*counts)
        assert found.low <= ratio <= found.high
        for bound, test, side in ((found.low, log_e_above, 1), (found.high, log_e_below, -1)):
            if 0 < bound < math.inf:
                assert test(*counts, bound * math.exp(-2e-4 * side)) >= each
                assert test(*counts, bound * math.exp(2e-4 * side)) < each
    assert found.low < risk_ratio(*counts) < found.high
    assert found.high / found.low < 4


def test_the_interval_covers_in_nearly_all_runs() -> None:
    """The truth is outside at some look exactly when one of the two tests of it rejects."""
    stream = lambda random, runs, requests: worse(random, runs, requests, ratio=3, weight=0.05, rate=0.05)  # noqa: E731
    each = math.log(2 / ALPHA)
    missed = false_alarms(stream, lambda seen: (log_e_above(*seen, 3) >= each) | (log_e_below(*seen, 3) >= each))
    assert missed <= allowed(ALPHA, RUNS)


@pytest.mark.parametrize("weights", [[0.95, 0.05], [0.5, 0.5], [0.6, 0.3, 0.1]])
def test_sample_ratios(weights: list[float]) -> None:
    random = np.random.default_rng(7)
    right = np.cumsum(random.multinomial(20, weights, (RUNS, 200)), axis=1)[:, :, None, :]
    found = (log_e_sample_ratio([weights], right) >= LIMIT).any(axis=-1).mean()
    assert found <= allowed(ALPHA, RUNS)
    broken = np.array(weights)
    broken[-1] *= 0.7  # a third of the last arm's units are lost
    wrong = np.cumsum(random.multinomial(400, broken / broken.sum(), (50, 200)), axis=1)[:, :, None, :]
    assert (log_e_sample_ratio([weights], wrong) >= LIMIT).any(axis=-1).mean() >= 0.95


@pytest.mark.parametrize("share", [0.002, 0.3])
def test_the_share_of_one_arm(share: float) -> None:
    random = np.random.default_rng(8)
    happened = np.cumsum(random.random((RUNS, 3_000), np.float32) < share, axis=1)[:, 9::10]
    units = np.arange(10, 3_001, 10)
    for test in (log_e_share_above, log_e_share_below):
        alarms = np.concatenate(
            [(test(part, units, share) >= LIMIT).any(axis=-1) for part in np.array_split(happened, 20)]
        )
        assert alarms.mean() <= allowed(ALPHA, RUNS)
    assert log_e_share_above(100, 1_000, 0.05) > LIMIT
    assert log_e_share_below(10, 1_000, 0.05) > LIMIT


counts = st.lists(st.integers(0, 50), min_size=3, max_size=3)


@given(counts, counts, st.sampled_from([0.25, 1.0, 3.0]))
def test_an_e_value_is_the_mean_of_likelihood_ratios(candidate: list[int], control: list[int], null: float) -> None:
    """The same sum, one event at a time, in Python."""
    weight = [0.01, 0.2, 0.5]
    steps = np.geomspace(1e-3, 9.0, 51)
    shares = steps / (steps**2 + 0.49)
    total = 0.0
    for step, share in zip(steps, shares / shares.sum(), strict=True):
        log_ratio = 0.0
        for w, a, b in zip(weight, candidate, control, strict=True):
            before, after = (w * r / (w * r + 1 - w) for r in (null, null * math.exp(step)))
            log_ratio += a * math.log(after / before) + b * math.log((1 - after) / (1 - before))
        total += share * math.exp(log_ratio)
    assert float(log_e_above(weight, candidate, control, null)) == pytest.approx(math.log(total), rel=1e-6, abs=1e-6)


@given(counts, counts)
def test_strata_of_equal_weight_can_be_pooled(candidate: list[int], control: list[int]) -> None:
    apart = log_e_differs([0.2, 0.2, 0.2], candidate, control)
    assert float(apart) == pytest.approx(float(log_e_differs([0.2], [sum(candidate)], [sum(control)])), abs=1e-9)
