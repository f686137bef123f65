"""Exposure: its definition, its chance, and what a model that memorises gives away."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from kit.depth import examples
from mainspring.stats.exposure import Exposure, exposure


def test_it_is_the_rank_among_controls_in_bits() -> None:
    controls = np.arange(1.0, 8.0)  # 7 of them
    assert exposure(np.full(10, 0.5), controls).largest == 3.0
    assert exposure(np.array([7.5]), controls).mean == 0.0
    found = exposure(np.array([0.0, 1.5]), controls)
    assert found.mean == pytest.approx((3.0 + 2.0) / 2)
    assert (found.planted, found.controls) == (2, 7)
    # Of 9!/(2! 7!) = 36 pairs of ranks one alone is {1, 2}, and {1, 3} is the next: planted are at ranks 1 and 3.
    assert found.chance == pytest.approx(2 / 36, abs=0.01)


def planted(seed: int, *, learned: bool) -> Exposure:
    """Rows with random labels, half of which a tree has among its training rows."""
    rng = np.random.default_rng(seed)
    X, rows = rng.normal(size=(1_000, 5)), rng.normal(size=(100, 5))
    y, labels = (X[:, 0] + rng.normal(size=1_000) > 0).astype(int), rng.integers(0, 2, 100)
    if learned:
        X, y = np.concatenate([X, rows[:50]]), np.concatenate([y, labels[:50]])
    chances = DecisionTreeClassifier(min_samples_leaf=3, random_state=0).fit(X, y).predict_proba(rows)
    losses = -np.log(np.clip(chances[np.arange(100), labels], 1e-12, None))
    return exposure(losses[:50], losses[50:], seed=seed)


def test_rows_that_a_model_memorised_are_exposed_and_others_are_not() -> None:
    tries = examples(gate=5, deep=200)
    seen = sum(planted(seed, learned=True).chance <= 0.01 for seed in range(tries))
    alarms = sum(planted(seed, learned=False).chance <= 0.01 for seed in range(tries))
    assert seen >= 0.6 * tries
    assert alarms <= 0.02 * tries + 1


def test_equal_losses_say_nothing() -> None:
    found = exposure(np.ones(20), np.ones(30))
    assert found.chance == 1.0
    assert found.mean == pytest.approx(np.log2(31) - np.log2(16))
