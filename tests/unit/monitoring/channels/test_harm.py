"""The channel of harm: its level over a version's life of daily looks, its power, and labels that come late."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.harm import Harm, harms, signals, tolerances_of
from mainspring.monitoring.quality.measuring import AGES_S, AGES_US
from mainspring.monitoring.quality.table import Key
from mainspring.stats.quality_sums import PLACE, Rows, Sums, scores_summed, summed

Truth = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]
HELD_OUT = {"brier": 0.1667}  # of a uniform score that is the probability


def calibrated(rng: np.random.Generator, score: np.ndarray, day: int) -> np.ndarray:
    return (rng.random(score.size) < score).astype(float)


def traffic(
    seed: int, days: int, rows: int, truth: Truth = calibrated, lags: tuple[int, int] = (HOUR, HOUR)
) -> dict[Key, Sums]:
    """Return sums of predictions at one hour of each day; `lags` of labels 0 and 1."""
    rng = np.random.default_rng(seed)
    found: dict[Key, Sums] = {}
    for day in range(days):
        score = rng.random(rows)
        y = truth(rng, score, day)
        every = Sums.nothing()
        every.totals[PLACE["predictions"]], every.bins[:] = rows, scores_summed(score)
        found[Key("1", "d1", day * DAY, "", "", 0, "binary")] = every
        for value, lag in enumerate(lags):
            of = y == value
            age = AGES_S[int(np.searchsorted(np.array(AGES_US), lag))]
            key = Key("1", "d1", day * DAY, "", "", age, "binary")
            part = summed("binary", Rows(score[of], y[of], cap=9.2))
            found[key] = found[key] + part if key in found else part
    return found


def known(sums: dict[Key, Sums], now: int) -> dict[Key, Sums]:
    """Return what is known at a time."""
    return {key: each for key, each in sums.items() if key.hour + max(key.age_s * 1_000_000, HOUR) <= now}


def looked(sums: dict[Key, Sums], days: int, declared: dict[str, float]) -> list[list[Harm]]:
    """Return the alarms of looks at the end of each day."""
    found = []
    for day in range(1, days + 1):
        now = day * DAY + HOUR
        made = harms(known(sums, now), now, DAY, lambda _: HELD_OUT, declared)
        found.append([each for each in made if each.severity >= 1])
    return found


def test_a_model_at_its_tolerance_is_hardly_ever_an_alarm_in_a_life_of_daily_looks() -> None:
    def worse(rng: np.random.Generator, score: np.ndarray, day: int) -> np.ndarray:
        # Scores are too extreme: the Brier score is .25, its held-out value plus the tolerance, every day.
        return (rng.random(score.size) < 0.25 + score / 2).astype(float)

    lives = 40
    alarms = sum(
        any(looked(traffic(seed, 25, 200, worse), 25, {"brier": 0.0833, "calibration": 0.03})) for seed in range(lives)
    )
    assert alarms <= 4  # at most one in twenty is expected


def test_harm_is_found_in_days_by_the_loss_and_by_calibration() -> None:
    def broken(rng: np.random.Generator, score: np.ndarray, day: int) -> np.ndarray:
        return (rng.random(score.size) < (score if day < 20 else (1 - score) / 2)).astype(float)

    alarms = looked(traffic(3, 30, 500, broken), 30, {"brier": 0.02, "calibration": 0.05})
    assert not any(alarms[:20])
    first = next(number for number, each in enumerate(alarms) if each)
    assert first <= 24
    found = {harm.metric: harm for each in alarms for harm in each}
    assert set(found) == {"brier", "calibration"}
    assert found["calibration"].value > 0.1
    assert found["brier"].value > found["brier"].limit > HELD_OUT["brier"]


def test_a_bad_day_alone_is_no_alarm_within_thrice_the_tolerance() -> None:
    def one(rng: np.random.Generator, score: np.ndarray, day: int) -> np.ndarray:
        return (rng.random(score.size) < (np.clip(score + 0.12, 0, 1) if day == 15 else score)).astype(float)

    assert not any(looked(traffic(5, 25, 1_000, one), 25, {"brier": 0.02, "calibration": 0.05}))


def test_labels_of_one_class_that_come_first_are_no_alarm() -> None:
    # Ones are known after an hour and zeros after twelve: by then only ones are known, and the plain mean is wrong.
    sums = traffic(7, 20, 1_000, lags=(12 * HOUR, HOUR))
    at_noon = [
        harms(known(sums, day * DAY + 14 * HOUR), day * DAY + 14 * HOUR, DAY, lambda _: HELD_OUT, {})
        for day in range(3, 20)
    ]
    assert any(harm.early for each in at_noon for harm in each)
    assert not any(harm.severity >= 1 for each in at_noon for harm in each)


def test_harm_is_found_before_the_horizon_by_weighted_labels() -> None:
    def broken(rng: np.random.Generator, score: np.ndarray, day: int) -> np.ndarray:
        return (rng.random(score.size) < (score if day < 20 else 1 - score)).astype(float)

    sums = traffic(9, 21, 3_000, broken, lags=(12 * HOUR, HOUR))
    now = 20 * DAY + 14 * HOUR  # no prediction of the broken day is a day old
    found = [each for each in harms(known(sums, now), now, DAY, lambda _: HELD_OUT, {}) if each.severity >= 1]
    assert {each.early for each in found} == {True}
    assert found[0].end == 21 * DAY


def test_versions_are_judged_against_their_own_held_out_figures() -> None:
    sums = traffic(11, 12, 500)
    strict = harms(sums, 20 * DAY, DAY, lambda _: {"brier": 0.1}, {"brier": 0.02})
    assert max(each.severity for each in strict) > 1
    assert harms(sums, 20 * DAY, DAY, lambda _: {}, {"brier": 0.02}) == []  # nothing to compare with
    mixed = sums | {key._replace(version="2", digest="d2"): each for key, each in sums.items()}
    both = harms(mixed, 20 * DAY, DAY, {"d1": {"brier": 0.1}, "d2": {"brier": 0.2}}.__getitem__, {"brier": 0.02})
    assert {each.version for each in both if each.severity >= 1} == {"1"}


def test_an_alarm_is_a_page_that_names_the_values() -> None:
    found = harms(traffic(11, 12, 500), 20 * DAY, DAY, lambda _: {"brier": 0.1}, {"brier": 0.02})
    signal = signals("late", found)[-1]
    assert (signal.channel, signal.statistic, signal.version, signal.page) == ("harm", "brier", "1", True)
    assert signal.end - signal.start == DAY
    assert "brier of version 1 was 0.16" in signal.detail
    assert "held out it is 0.1, and at most 0.12 is tolerated" in signal.detail


@pytest.mark.parametrize(
    ("task", "held_out", "declared", "expected"),
    [
        ("binary", {"brier": 0.16}, {}, {"brier": 0.05, "calibration": 0.1}),
        ("binary", {"brier": 0.02}, {}, {"brier": 0.01, "calibration": 0.02}),
        ("binary", {}, {}, {}),
        ("regression", {"mae": 8.0}, {}, {"mae": 2.0}),
        ("multiclass", {"log_loss": 1.0}, {}, {"log_loss": 0.25}),
        ("multiclass", {"log_loss": 1.0, "accuracy": 0.8}, {"accuracy": 0.05}, {"accuracy": 0.05}),
        ("regression", {"mae": 8.0}, {"brier": 0.1}, {}),
    ],
)
def test_tolerances(task: str, held_out: dict, declared: dict, expected: dict) -> None:
    assert tolerances_of(task, held_out, declared) == pytest.approx(expected)


def test_a_worse_accuracy_and_a_larger_error_are_alarms() -> None:
    rng = np.random.default_rng(1)
    sums: dict[Key, Sums] = {}
    for day in range(12):
        y = rng.normal(size=400)
        rows = Rows(y + rng.normal(0, 3, 400), y, cap=10.0)
        sums[Key("1", "d1", day * DAY, "", "", AGES_S[0], "regression")] = summed("regression", rows)
    found = harms(sums, 20 * DAY, DAY, lambda _: {"mae": 1.0}, {})
    assert max(each.severity for each in found) > 1
    assert found[-1].value == pytest.approx(2.4, abs=0.1)
    wrong = harms(traffic(2, 12, 400), 20 * DAY, DAY, lambda _: {"accuracy": 0.9}, {"accuracy": 0.05})
    assert max(each.severity for each in wrong) > 1
    assert wrong[-1].value == pytest.approx(0.75, abs=0.02)
    assert wrong[-1].limit in (pytest.approx(0.85), pytest.approx(0.75))
