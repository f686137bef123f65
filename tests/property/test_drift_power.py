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
from tests.kit.trained import Trained

from mainspring.stats.distributions import kolmogorov_tail
from mainspring.stats.drift import judge
from mainspring.stats.reference import Reference, profile_column
from mainspring.stats.sketches import Ruler, Sketch

PARTS = ("counts", "bins", "sums")
ROWS, WINDOW, REFERENCES, REPETITIONS = 200_000, 20_000, 10, 10


def exact_distance(ordered: npt.NDArray[np.float64], window: npt.NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's distance on the values themselves; the largest gap is at one of the window's."""
    window = np.sort(window)
    below = np.searchsorted(ordered, window) / ordered.size
    ranks = np.arange(window.size + 1) / window.size
    return float(max((ranks[1:] - below).max(), (below - ranks[:-1]).max()))


def side_by_side(sketches: list[Sketch]) -> Sketch:
    """The sketches of one column each as one of the columns 0, 1, ..."""
    columns = tuple(str(number) for number in range(len(sketches)))
    return Sketch(columns, *(np.concatenate([getattr(each, part) for each in sketches]) for part in PARTS))


@cache
def found(shift: float) -> dict[str, float]:
    """The share of windows, shifted by `shift` standard deviations, that each test finds at 0.01."""
    random = np.random.default_rng(round(shift * 1_000))
    scale = math.sqrt(ROWS * WINDOW / (ROWS + WINDOW))
    hits = {"exact KS": 0, "KS on bins": 0, "both tests": 0}
    for _ in range(REFERENCES):
        trained = np.sort(random.normal(size=ROWS))
        reference = Trained(trained)
        for _ in range(REPETITIONS):
            window = random.normal(shift, size=WINDOW)
            comparison = reference.compare(window)
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
    ruler = Ruler(Reference({"x": column}))
    unmoved = [ruler.sketch({"x": random.normal(size=WINDOW)}) for _ in range(100)]
    alerts, others = 0, 0
    for _ in range(20):
        drifted: set[str] = set()
        for _ in range(2):
            sketches = [unmoved[number] for number in random.integers(100, size=100)]
            sketches[7] = ruler.sketch({"x": random.normal(0.05, size=WINDOW)})
            verdicts = judge(reference, side_by_side(sketches), drifted)
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
    reference = Trained(draw(20_000))
    p_values = np.array([reference.compare(draw(rows)).p_value for _ in range(1_000)])
    allowed = 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 1_000)
    assert (p_values < 0.05).mean() <= allowed


@pytest.mark.parametrize("rows", [50, 2_000])
def test_false_alarms_of_categories_stay_under_the_nominal_level(rows: int) -> None:
    random = np.random.default_rng(4)
    shares = 0.5 ** np.arange(1, 21)
    names = np.array([f"c{number}" for number in range(20)])

    def draw(size: int) -> list[str]:
        return random.choice(names, size, p=shares / shares.sum()).tolist()

    # Over many references: the rare categories that one of them lacks are new in each of its windows.
    references = [Trained(draw(20_000)) for _ in range(40)]
    p_values = np.array([each.compare(draw(rows)).p_value for each in references for _ in range(25)])
    assert (p_values < 0.05).mean() <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 1_000)


def test_no_alarm_in_a_year_of_days_without_drift() -> None:
    random = np.random.default_rng(5)
    column = profile_column(random.normal(size=20_000))
    reference = Reference({str(number): column for number in range(20)})
    ruler = Ruler(reference)
    drifted: set[str] = set()
    alerts = 0
    for _ in range(365):
        verdicts = judge(reference, ruler.sketch({name: random.normal(size=500) for name in ruler.columns}), drifted)
        drifted = {verdict.column for verdict in verdicts if verdict.drifted}
        alerts += sum(verdict.alert for verdict in verdicts)
    assert alerts == 0


@pytest.mark.parametrize("trained", [2_000, 20_000])
@pytest.mark.parametrize("rows", [100, 1_000, 10_000])
@pytest.mark.parametrize("kind", ["uniform 1,000", "zipf 10,000"])
def test_false_alarms_of_many_categories_stay_under_the_nominal_level(kind: str, trained: int, rows: int) -> None:
    """Chosen and counted on the same rows, .83 to 1.0 of these windows had p < .01."""
    random = np.random.default_rng(6)
    shares = np.ones(1_000) if kind.startswith("uniform") else 1.0 / np.arange(1, 10_001)
    names = np.array([f"c{number}" for number in range(shares.size)])

    def draw(size: int) -> list[str]:
        return names[np.searchsorted(np.cumsum(shares / shares.sum())[:-1], random.random(size))].tolist()

    low = 0
    for _ in range(10):
        reference = Trained(draw(trained))
        low += sum(reference.compare(draw(rows)).p_value < 0.01 for _ in range(10))
    assert low <= 5  # of 100; one is expected


def moved(kind: str, random: np.random.Generator, size: int) -> list[object]:
    """A column's values with one of the faults, which begin with the column's name."""
    column, _, fault = kind.partition(": ")
    if column == "text":
        values = random.choice(np.array(list("abcde")), size, p=[0.5, 0.3, 0.1, 0.07, 0.03]).astype(object)
    else:
        values = random.normal(size=size)
    if column == "nulls":
        values[random.random(size) < 0.01] = np.nan
    some = random.random(size)
    if fault.startswith("new category"):
        values[some < float(fault.split()[-1])] = "new"
    elif fault == "null 3%":
        values[some < 0.0202] = np.nan
    elif fault == "1% of values x100":
        values[some < 0.01] *= 100.0
    elif fault == "variance x1.2":
        values *= math.sqrt(1.2)
    elif fault == "mean +.25 sd":
        values += 0.25
    return values.tolist()


POWER = [
    ("nulls: null 3%", 1_000, 0.85, "missing"),
    ("number: 1% of values x100", 1_000, 0.85, "range"),
    ("number: variance x1.2", 1_000, 0.5, "variance"),
    ("number: mean +.25 sd", 1_000, 0.99, "mean"),
    ("text: new category 0.01", 1_000, 0.99, "unseen"),
    ("text: new category 0.001", 10_000, 0.9, "unseen"),
    ("text: new category 0.001", 100_000, 0.99, "unseen"),
]


@pytest.mark.parametrize(("kind", "rows", "least", "test"), POWER)
def test_faults_are_found_at_the_level_of_thirty_columns(kind: str, rows: int, least: float, test: str) -> None:
    """The present column's corrected p-value against .01 / 30, Benjamini and Hochberg's limit for one of 30 columns."""
    random = np.random.default_rng(7)
    column = kind.partition(": ")[0]
    repetitions, hits = (40, 0) if rows > 1_000 else (200, 0)
    tests = set()
    for number in range(repetitions):
        if number % 40 == 0:
            reference = Trained(moved(column, random, 100_000))
        comparison = reference.compare(moved(kind, random, rows))
        hits += comparison.p_large < 0.01 / 30
        tests.add(comparison.strongest)
    assert hits >= repetitions * least - 2.0 * math.sqrt(repetitions * least * (1.0 - least))
    assert test in tests
