"""How often drift is seen, and how often it is seen where there is none.

20,000 rows against 200,000, alpha 0.01, as in the design's table (KS on 64 bins: .01 without a shift, .44 at .02
standard deviations, 1 at .05). The table is of one reference, whose own error of .002 standard deviations moves the
second figure by .1 either way; over many references the exact test finds .40 of shifts of .02, the bins .34. All seeds
are fixed: a test fails because the code changed, never by chance.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from mainspring.stats.distributions import kolmogorov_tail
from mainspring.stats.drift import compare, judge
from mainspring.stats.reference import Reference, count_bins, profile_column

ROWS, WINDOW, REFERENCES, REPETITIONS = 200_000, 20_000, 10, 10


def exact_distance(ordered: npt.NDArray[np.float64], window: npt.NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's distance on the values themselves; the largest gap is at one of the window's."""
    window = np.sort(window)
    below = np.searchsorted(ordered, window) / ordered.size
    ranks = np.arange(window.size + 1) / window.size
    return float(max((ranks[1:] - below).max(), (below - ranks[:-1]).max()))


@cache
def found(shift: float) -> dict[str, float]:
    """The share of windows, shifted by `shift` standard deviations, that each test finds at 0.01."""
    random = np.random.default_rng(round(shift * 1_000))
    scale = math.sqrt(ROWS * WINDOW / (ROWS + WINDOW))
    hits = {"exact KS": 0, "KS on bins": 0, "both tests": 0}
    for _ in range(REFERENCES):
        trained = np.sort(random.normal(size=ROWS))
        reference = profile_column(trained)
        for _ in range(REPETITIONS):
            window = random.normal(shift, size=WINDOW)
            comparison = compare(reference, count_bins(reference, window))
            hits["exact KS"] += kolmogorov_tail(scale * exact_distance(trained, window)) < 0.01
            hits["KS on bins"] += kolmogorov_tail(scale * comparison.ks) < 0.01
            hits["both tests"] += comparison.p_value < 0.01
    return {name: hits[name] / REFERENCES / REPETITIONS for name in hits}


def test_without_drift_next_to_nothing_is_found() -> None:
    assert max(found(0.0).values()) <= 0.04


def test_a_shift_of_a_fiftieth_is_found_nearly_as_often_as_on_all_values() -> None:
    share = found(0.02)
    assert 0.25 <= share["KS on bins"] <= 0.55
    assert share["KS on bins"] >= 0.7 * share["exact KS"]
    assert share["both tests"] > share["KS on bins"]


def test_a_shift_of_a_twentieth_is_always_found() -> None:
    assert found(0.05) == {"exact KS": 1.0, "KS on bins": 1.0, "both tests": 1.0}


def test_a_small_shift_in_one_of_a_hundred_columns_alerts_after_two_windows() -> None:
    random = np.random.default_rng(2)
    column = profile_column(random.normal(size=ROWS))
    reference = Reference({str(number): column for number in range(100)})
    unmoved = [count_bins(column, random.normal(size=WINDOW)) for _ in range(100)]
    alerts, others = 0, 0
    for _ in range(20):
        drifted: set[str] = set()
        for _ in range(2):
            counts = {str(number): unmoved[random.integers(100)] for number in range(100)}
            counts["7"] = count_bins(column, random.normal(0.05, size=WINDOW))
            verdicts = judge(reference, counts, drifted)
            drifted = {verdict.column for verdict in verdicts if verdict.drifted}
        alerts += any(verdict.alert and verdict.column == "7" for verdict in verdicts)
        others += sum(verdict.alert and verdict.column != "7" for verdict in verdicts)
    assert (alerts, others) == (20, 0)


@pytest.mark.parametrize("kind", ["normal", "exponential", "poisson", "rare flag", "constant with tail", "lognormal"])
@pytest.mark.parametrize("rows", [50, 2_000])
def test_false_alarms_stay_under_the_nominal_level(kind: str, rows: int) -> None:
    random = np.random.default_rng(3)
    draw = {
        "normal": lambda size: random.normal(size=size),
        "exponential": lambda size: random.exponential(size=size),
        "poisson": lambda size: random.poisson(2.0, size).astype(float),
        "rare flag": lambda size: (random.random(size) < 0.02).astype(float),
        "constant with tail": lambda size: np.where(random.random(size) < 0.9, 0.0, random.exponential(size=size)),
        "lognormal": lambda size: random.lognormal(size=size),
    }[kind]
    reference = profile_column(draw(20_000))
    p_values = np.array([compare(reference, count_bins(reference, draw(rows))).p_value for _ in range(1_000)])
    allowed = 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 1_000)
    assert (p_values < 0.05).mean() <= allowed


@pytest.mark.parametrize("rows", [50, 2_000])
def test_false_alarms_of_categories_stay_under_the_nominal_level(rows: int) -> None:
    random = np.random.default_rng(4)
    shares = 0.5 ** np.arange(1, 21)
    names = np.array([f"c{number}" for number in range(20)])

    def draw(size: int) -> list[str]:
        return random.choice(names, size, p=shares / shares.sum()).tolist()

    reference = profile_column(draw(20_000))
    p_values = np.array([compare(reference, count_bins(reference, draw(rows))).p_value for _ in range(1_000)])
    assert (p_values < 0.05).mean() <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 1_000)


def test_no_alarm_in_a_year_of_days_without_drift() -> None:
    random = np.random.default_rng(5)
    column = profile_column(random.normal(size=20_000))
    reference = Reference({str(number): column for number in range(20)})
    drifted: set[str] = set()
    alerts = 0
    for _ in range(365):
        counts = {str(number): count_bins(column, random.normal(size=500)) for number in range(20)}
        verdicts = judge(reference, counts, drifted)
        drifted = {verdict.column for verdict in verdicts if verdict.drifted}
        alerts += sum(verdict.alert for verdict in verdicts)
    assert alerts == 0
