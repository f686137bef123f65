"""Intervals against a plain loop over resamples, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.stats import intervals as module
from mainspring.stats import metrics
from mainspring.stats.intervals import intervals

pytestmark = pytest.mark.slow


def looped(
    task: str, y: npt.NDArray[np.float64], score: npt.NDArray[np.float64], seed: int, resamples: int
) -> dict[str, tuple[float, float]]:
    """One resample after the other, each scored as rows."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in metrics.metrics_of(task)}
    for _ in range(resamples):
        drawn = rng.integers(0, len(y), len(y))
        for name, value in metrics.score(task, y[drawn], score[drawn]).items():
            found[name].append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in found.items()
        if len(values) >= 0.95 * resamples
    }


def rows_of(task: str, rows: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(size=rows)
        return y, y + rng.normal(size=rows)
    if task == "multiclass":
        shares = rng.dirichlet(np.ones(3), rows)
        return rng.integers(0, 3, rows).astype(np.float64), shares
    score = np.round(rng.random(rows), 1)  # many ties
    return (rng.random(rows) < score).astype(np.float64), score


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@given(rows=st.integers(1, 70), seed=st.integers(0, 1000))
@settings(max_examples=examples(gate=5, deep=15), deadline=None)
def test_they_are_what_a_plain_loop_finds(task: str, rows: int, seed: int) -> None:
    y, score = rows_of(task, rows, seed)
    found = intervals(task, y, score, seed=seed, resamples=60)
    expected = looped(task, y, score, seed, 60)
    assert found.keys() == expected.keys()
    for name, (low, high) in expected.items():
        assert (found[name].low, found[name].high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_in_parts_they_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    y, score = rows_of("binary", 51, 3)  # odd: draws of 32 bits come in pairs
    whole = intervals("binary", y, score, seed=5, resamples=40)
    monkeypatch.setattr(module, "_CELLS", 51 * 7)
    in_parts = intervals("binary", y, score, seed=5, resamples=40)
    assert {name: (each.low, each.high) for name, each in in_parts.items()} == {
        name: pytest.approx((each.low, each.high), rel=1e-12) for name, each in whole.items()
    }


def test_95_of_100_hold_the_truth() -> None:
    """300 samples of 200 rows each: 95 % is 285 of them, with a standard deviation of 3.8."""
    held = {"accuracy": 0, "brier": 0, "auc": 0}
    # The truth of this world: y is 1 with the probability `score`, which is even over [0, 1].
    truth = {"accuracy": 0.75, "brier": 1 / 6, "auc": 5 / 6}
    rng = np.random.default_rng(11)
    for sample in range(300):
        score = rng.random(200)
        y = rng.random(200) < score
        found = intervals("binary", y, score, seed=sample, resamples=400)
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    assert all(270 <= count <= 297 for count in held.values()), held


def test_a_metric_that_resamples_do_not_define_has_no_interval() -> None:
    y, score = np.zeros(50), np.linspace(0, 1, 50)
    y[0] = 1.0  # a third of the resamples lack it
    assert set(intervals("binary", y, score, seed=0)) == {"brier", "log_loss", "accuracy"}  # nor average precision
    assert "auc" not in intervals("binary", np.zeros(50), score, seed=0)


def test_nan_scores_have_no_interval() -> None:
    assert intervals("binary", [0, 1, 0], [0.1, np.nan, 0.2], seed=0, resamples=50).keys() <= {"accuracy"}


@pytest.mark.parametrize(
    ("y", "score", "options"),
    [([], [], {}), ([1, 0], [0.5], {}), ([1], [0.5], {"resamples": 0}), ([1], [0.5], {"confidence": 1.0})],
)
def test_what_makes_no_sense_is_refused(y: list[int], score: list[float], options: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        intervals("binary", y, score, seed=0, **options)  # type: ignore[arg-type]


def test_fewer_rows_drawn_give_an_interval_of_the_same_width() -> None:
    """30,000 rows, drawn whole and a tenth of them: within a fifth of each other, as each has errors of its own."""
    rng = np.random.default_rng(5)
    score = rng.random(30_000)
    y = rng.random(30_000) < score**2
    whole = intervals("binary", y, score, seed=1, resamples=300, most_rows=30_000)
    some = intervals("binary", y, score, seed=1, resamples=300, most_rows=3_000)
    values = metrics.score("binary", y, score)
    assert whole.keys() == some.keys() == values.keys()
    for name, each in whole.items():
        assert some[name].high - some[name].low == pytest.approx(each.high - each.low, rel=0.25), name
        assert some[name].low < values[name] < some[name].high


def test_a_further_metric_has_the_interval_of_a_loop_and_one_that_fails_has_none() -> None:
    y, score = rows_of("binary", 60, 2)

    @metrics.metric(higher_is_better=True)
    def fails(_y: npt.ArrayLike, _score: npt.ArrayLike) -> float:
        raise ValueError("no")

    further = metrics.recall_at_k(0.25)
    found = intervals("binary", y, score, seed=3, resamples=50, more=[further, fails])
    rng = np.random.default_rng(3)
    values = []
    for _ in range(50):
        drawn = rng.integers(0, 60, 60)
        values.append(further(y[drawn], score[drawn]))
    assert (found[further.name].low, found[further.name].high) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975]))
    )
    assert "fails" not in found
