"""The weekly classifier: an interaction that no statistic of pairs shows, on days that it has not seen."""

from typing import Any

import numpy as np
import pytest

from mainspring.core.time import DAY
from mainspring.monitoring.channels.separation import (
    FEWEST_WEEKS,
    Separation,
    auc,
    coded,
    judge,
    separation,
)
from mainspring.monitoring.channels.windows import WEEK
from mainspring.monitoring.signals import CLASSIFIER
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler

WEEK_START = 2_800 * WEEK
NAMES = ("F.a", "F.b", "F.c", "F.kind")


def rows_of(count: int, seed: int, *, together: bool = False) -> dict[str, Any]:
    """Return rows; `together` lets a and b be middling together or not at all, which changes no correlation."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(-1.0, 1.0, (3, count))
    if together:
        middling = np.abs(a) < 0.5
        b = np.where(middling, rng.uniform(-0.5, 0.5, count), rng.choice([-1, 1], count) * rng.uniform(0.5, 1.0, count))
    return {"F.a": a, "F.b": b, "F.c": c, "F.kind": rng.choice(["x", "y"], count).astype(object)}


REFERENCE = profile(rows_of(5_000, 0))


def week(*, together: bool, seed: int = 1, level: float = 0.0) -> Separation:
    """Return the separation of a week; with a level, each day has its own of c."""
    before, after = rows_of(3_000, seed), rows_of(1_500, seed + 1, together=together)
    values = {name: np.concatenate([before[name], after[name]]) for name in NAMES}
    rng = np.random.default_rng([seed, 7])
    at = np.r_[
        rng.integers(WEEK_START - 4 * WEEK, WEEK_START, 3_000), rng.integers(WEEK_START, WEEK_START + WEEK, 1_500)
    ]
    values["F.c"] = values["F.c"] + level * np.random.default_rng(9).normal(size=40)[(at - at.min()) // DAY]
    return separation(WEEK_START, NAMES, coded(values), at)


def test_an_interaction_that_pairs_do_not_see_is_seen_with_its_columns() -> None:
    ruler = Ruler(REFERENCE, NAMES)
    usual, moved = (ruler.measure(rows_of(20_000, 5, together=together))[1] for together in (False, True))
    assert np.abs(moved.products - usual.products).max() / 20_000 < 0.02
    alike, found = week(together=False), week(together=True)
    assert abs(alike.auc - 0.5) < 0.06
    assert found.auc > 0.65
    assert {*found.columns[:2]} == {"F.a", "F.b"}
    assert found.drops[1] > 3 * max(found.drops[2], 0.0)


def test_a_day_is_not_known_by_its_level() -> None:
    assert week(together=False, level=3.0).auc < 0.75  # trees that had seen the days would reach 1


def test_few_rows_and_columns_that_vanished_are_no_crash() -> None:
    values = coded({**rows_of(1_200, 3), "F.a": [None] * 1_200, "F.kind": [None, 3] * 600})
    at = np.linspace(WEEK_START - WEEK, WEEK_START + WEEK - 1, 1_200).astype(np.int64)
    assert abs(separation(WEEK_START, NAMES, values, at).auc - 0.5) < 0.15
    assert separation(WEEK_START, NAMES, values[:1], at[:1]).rows == 0
    assert separation(WEEK_START, NAMES, np.full_like(values, np.nan), at).rows == 0
    assert separation(WEEK_START, (), np.zeros((0, 0)), at[:0]).rows == 0


def test_the_auc_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(4)
    scores, positive = rng.integers(0, 9, 300).astype(float), rng.random(300) < 0.3
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def weeks(aucs: list[float]) -> list[Separation]:
    return [
        Separation(number * WEEK, 1_500, 3_000, value, 0.009, ("F.a", "F.b"), (0.1, 0.05))
        for number, value in enumerate(aucs)
    ]


def test_an_alarm_is_an_auc_beyond_its_own_history() -> None:
    usual = [0.61, 0.63, 0.6, 0.62, 0.61]
    windows, signals = judge("e", weeks([*usual, 0.62, 0.75]), alarms_per_week=1.0)
    assert windows == [(number * WEEK, (number + 1) * WEEK) for number in range(FEWEST_WEEKS, 7)]
    assert [(each.start, each.statistic, each.column) for each in signals] == [(6 * WEEK, CLASSIFIER, "F.a")]
    assert signals[0].severity > 1.0
    assert "F.a (-0.1), F.b (-0.05)" in signals[0].detail
    confirmed = [(3 * WEEK, 4 * WEEK)]
    assert len(judge("e", weeks([*usual, 0.62, 0.75]), alarms_per_week=1.0, incidents=confirmed)[0]) == 2


def test_alarms_keep_to_the_share_of_the_budget() -> None:
    rng = np.random.default_rng(6)
    alarms = judged = 0
    for _ in range(400):
        windows, signals = judge("e", weeks(rng.normal(0.6, 0.02, 12).tolist()), alarms_per_week=1.0)
        alarms, judged = alarms + len(signals), judged + len(windows)
    assert 0.03 < alarms / judged < 0.07
