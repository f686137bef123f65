"""Running means above a limit: the level under looks at any time, and the delay of detection."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.running import log_weights, running_mean_above

pytestmark = pytest.mark.slow

LEVEL = math.log(1 / 0.05)


def blocks(values: np.ndarray) -> np.ndarray:
    """Return number, sum and sum of squares of each row of values."""
    return np.stack([np.full(len(values), values.shape[1]), values.sum(axis=1), (values**2).sum(axis=1)], axis=1)


def first_alarm(sums: np.ndarray, limit: float, least: int = 1) -> int | None:
    """Return the block after which an analyst who looks after each would reject."""
    ends = range(1, len(sums) + 1)
    return next((end for end in ends if running_mean_above(0, 1, sums[:end], limit, least).log_e >= LEVEL), None)


@pytest.mark.parametrize("rows", [20, 500])
@pytest.mark.parametrize("kind", ["coin", "skewed", "dependent", "rising and falling"])
def test_a_mean_at_the_limit_is_rejected_in_at_most_one_of_twenty_whole_lives(kind: str, rows: int) -> None:
    days, rejected, runs = 40, 0, 100
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        if kind == "coin":
            values = (rng.random((days, rows)) < 0.1).astype(float)
        elif kind == "skewed":
            values = rng.beta(0.2, 1.8, (days, rows))
        elif kind == "dependent":  # a value is followed by its like; the conditional mean stays at the limit
            scale = np.where(np.cumsum(rng.random((days, rows)) < 0.02, axis=1) % 2, 1.0, 0.2)
            values = np.where(rng.random((days, rows)) < 0.1 / scale, scale, 0.0)
        else:  # of each 10 days half are above the limit and half below: no span of ten days is above
            mean = np.where(np.arange(days) % 10 < 5, 0.09, 0.11)
            values = (rng.random((days, rows)) < mean[:, None]).astype(float)
        least = 10 if kind == "rising and falling" else 1
        rejected += first_alarm(blocks(values), 0.1 if least == 1 else 0.105, least) is not None
    assert rejected <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)


def test_a_change_is_found_soon_however_long_all_was_well() -> None:
    delays = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mean = np.where(np.arange(160) < 120, 0.15, 0.22)
        found = first_alarm(blocks((rng.random((160, 500)) < mean[:, None]).astype(float)), 0.17)
        assert found is None or found > 120
        delays.append(99 if found is None else found - 120)
    assert np.median(delays) <= 5
    assert max(delays) <= 10


def test_a_span_shorter_than_the_least_is_no_evidence() -> None:
    rng = np.random.default_rng(1)
    values = (rng.random((20, 1_000)) < 0.1).astype(float)
    values[-2:] = (rng.random((2, 1_000)) < 0.35).astype(float)  # two bad days
    assert running_mean_above(0, 1, blocks(values), 0.15).log_e > LEVEL
    assert running_mean_above(0, 1, blocks(values), 0.15, least=7).log_e < LEVEL


def test_the_span_that_tells_most_is_named() -> None:
    rng = np.random.default_rng(2)
    values = (rng.random((30, 1_000)) < np.where(np.arange(30) < 20, 0.1, 0.3)[:, None]).astype(float)
    found = running_mean_above(0, 1, blocks(values), 0.15)
    assert found.first == 20
    assert found.mean == pytest.approx(0.3, abs=0.02)


def test_nothing_is_no_evidence_and_impossible_limits_are_refused() -> None:
    assert running_mean_above(0, 1, np.zeros((0, 3)), 0.5).log_e == -math.inf
    assert running_mean_above(0, 1, np.zeros((3, 3)), 0.5).log_e == -math.inf
    with pytest.raises(Invalid, match="not between the bounds"):
        running_mean_above(0, 1, np.zeros((3, 3)), 1.5)


def test_the_weights_of_beginnings_sum_to_at_most_one() -> None:
    # The rest of the sum is at most the integral, 0.473 / log(n + 1).
    n = 100_000
    assert np.exp(log_weights(n)).sum() + 0.473 / math.log(n + 1) <= 1.0
