"""The channel of harm: its level over a version's life of daily looks, its power, and labels that come late."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kit.depth import examples
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.harm import Harm, harms, signals, tolerances_of
from mainspring.monitoring.quality.measuring import AGES_S, AGES_US
from mainspring.monitoring.quality.table import Key
from mainspring.stats.quality_sums import PLACE, Rows, Sums, scores_summed, summed

pytestmark = pytest.mark.slow

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

    lives = examples(gate=10, deep=40)
    alarms = sum(
        any(looked(traffic(seed, 25, 200, worse), 25, {"brier": 0.0833, "calibration": 0.03})) for seed in range(lives)
    )
    assert alarms <= lives // 10  # at most one in twenty is expected


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


def by_segment(seed: int, days: int, segments: dict[str, float], bad: str = "") -> dict[Key, Sums]:
    """Return sums of a number of equal segments, each with its own error; `bad` has twice its error from day 10 on."""
    rng = np.random.default_rng(seed)
    found: dict[Key, Sums] = {}
    for day in range(days):
        for name, spread in segments.items():
            y = rng.normal(size=200)
            error = rng.normal(0, spread * (2 if name == bad and day >= 10 else 1), 200)
            part = summed("regression", Rows(y + error, y, cap=10.0))
            for segment in ("", name):
                key = Key("1", "d1", day * DAY, segment, "", AGES_S[0], "regression")
                found[key] = found[key] + part if key in found else part
    return found


def test_harm_in_one_segment_names_it_and_a_segment_that_was_always_worse_is_none() -> None:
    spreads = {f"Plan.carrier={name}": spread for name, spread in zip("ABCDEFGHIJ", [0.5] * 9 + [1.5], strict=True)}
    rng = np.random.default_rng(1)
    y = rng.normal(size=2_000)
    held = {(n, ""): summed("regression", Rows(y + rng.normal(0, s, y.size), y, cap=10.0)) for n, s in spreads.items()}
    held["Plan.carrier=rare", ""] = summed("regression", Rows(y[:150], y[:150]))
    whole = {"mae": float(np.mean([each["absolute"] / 2_000 for each in held.values()]))}
    sums = by_segment(2, 25, spreads, bad="Plan.carrier=C")
    few = by_segment(3, 25, {"Plan.carrier=rare": 3.0, "Plan.carrier=new": 3.0})  # with too few held-out rows
    sums |= {key: each for key, each in few.items() if key.segment}
    found = harms(sums, 30 * DAY, DAY, lambda _: whole, {"mae": 0.15}, lambda _: held)
    alarms = [each for each in found if each.severity >= 1]
    assert {each.segment for each in alarms} == {"Plan.carrier=C"}
    assert {each.segment for each in found} == {"", *spreads}
    signal = signals("late", alarms)[0]
    assert signal.segment == "Plan.carrier=C"
    assert "mae of version 1 in Plan.carrier=C was 0.7" in signal.detail
    plain = [each for each in harms(sums, 30 * DAY, DAY, lambda _: whole, {"mae": 0.15}) if not each.segment]
    with_segments = [each for each in found if not each.segment]
    assert all(
        one.severity > two.severity for one, two in zip(plain, with_segments, strict=True) if one.severity > 0
    )  # a fifth of the level is the segments'


def numbers(seed: int, days: int, broken: bool, task: str) -> dict[Key, Sums]:
    """Return predictions of one hour a day; small numbers, and most right answers, are known nine hours before others.

    Args:
        broken: Whether the last day's are much worse.
    """
    rng = np.random.default_rng(seed)
    found: dict[Key, Sums] = {}
    for day in range(days):
        worse = broken and day == days - 1
        rows = 1_500
        every = Sums.nothing()
        every.totals[PLACE["predictions"]] = rows
        found[Key("1", "d1", day * DAY, "", "", 0, task)] = every
        if task == "regression":
            y = rng.normal(size=rows)
            made = y + rng.normal(0, 3.0 if worse else 1.0, rows)
            first = y + rng.normal(size=rows) < 0.5
            parts = [(of, Rows(made[of], y[of], cap=10.0)) for of in (first, ~first)]
        else:
            classes = rng.dirichlet([1, 1, 1], rows)
            drawn = (rng.random(rows)[:, None] > classes.cumsum(axis=1)).sum(axis=1)
            place = classes.argmin(axis=1) if worse else drawn
            first = (classes.argmax(axis=1) == place) | (rng.random(rows) < 0.4)
            parts = [
                (of, Rows(classes[of].max(axis=1), place[of].astype(float), classes[of], cap=9.2))
                for of in (first, ~first)
            ]
        for lag, (_, part) in zip((3 * HOUR, 12 * HOUR), parts, strict=True):
            age = AGES_S[int(np.searchsorted(np.array(AGES_US), lag))]
            found[Key("1", "d1", day * DAY, "", "", age, task)] = summed(task, part)
    return found


@pytest.mark.parametrize(
    ("task", "held_out", "declared"),
    [
        ("regression", {"mae": 0.798}, {}),
        ("multiclass", {"log_loss": 0.83, "accuracy": 0.61, "brier": 0.5}, {"log_loss": 0.2, "accuracy": 0.1}),
    ],
)
def test_numbers_and_several_classes_are_judged_before_the_horizon_too(
    task: str, held_out: dict[str, float], declared: dict[str, float]
) -> None:
    now = 19 * DAY + 5 * HOUR  # of the last day only what comes first is known
    for broken in (False, True):
        sums = numbers(5, 20, broken, task)
        found = [each for each in harms(known(sums, now), now, DAY, lambda _: held_out, declared) if each.early]
        assert {each.metric for each in found} == (set(declared) or {"mae"})
        assert all((each.end == 20 * DAY) for each in found)
        assert any(each.severity >= 1 for each in found) is broken
