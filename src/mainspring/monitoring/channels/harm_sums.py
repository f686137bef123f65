"""Losses by day, of predictions that are as old as the horizon, and of younger ones, weighted.

Labels of one class may come first: a delivery is known to be late only when it is late. So a label that is known at an
early age counts by the inverse of the usual probability, among predictions with its value, of being known by then. A
number has no class: short times are known first, and their errors are smaller. So its loss counts by the inverse of the
share of the whole loss that is usually known by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mainspring.core.time import DAY, HOUR, SECOND
from mainspring.monitoring.quality.measuring import AGES_S, EVER_S
from mainspring.monitoring.quality.table import Key
from mainspring.stats.quality_sums import PLACE, Floats, Sums

_LEAST_KNOWN = 0.2  # of each class by an age, below which labels of that age are not weighted
_FEWEST = 200  # labels of each class that tell the usual probability


class Loss(NamedTuple):
    """A loss with known bounds; `total` and `squares` are names of sums, `wrong` the number of wrong decisions."""

    total: str
    squares: str
    low: float
    high: float
    sides: tuple[int, ...] = (1,)


class Ripe(NamedTuple):
    """Sums by day of predictions that are as old as the horizon."""

    days: list[int]
    totals: Floats  # shape (days, len(TOTALS))

    def sums(self, loss: Loss) -> Floats:
        number = self.totals[:, PLACE["scored"]]
        if loss.total == "wrong":
            wrong = number - self.totals[:, PLACE["correct"]]
            return np.stack([number, wrong, wrong], axis=1)
        return np.stack([number, *(self.totals[:, PLACE[name]] for name in (loss.total, loss.squares))], axis=1)


def ripe_sums(group: Mapping[Key, Sums], now: int, horizon_us: int) -> Ripe:
    age = age_of(horizon_us)
    days: dict[int, Floats] = {}
    for key, each in group.items():
        if key.age_s <= age and key.hour + HOUR + horizon_us <= now:
            before = days.get(key.hour // DAY)
            days[key.hour // DAY] = each.totals if before is None else before + each.totals
    ordered = sorted(days)
    return Ripe(ordered, np.array([days[day] for day in ordered]).reshape(len(ordered), len(PLACE)))


def age_of(horizon_us: int) -> int:
    return next((age for age in AGES_S if age * SECOND >= horizon_us), EVER_S)


class Early(NamedTuple):
    """Weighted sums by day: number, total and squares of a loss; `reach` is the largest weight."""

    days: list[int]
    sums: Floats  # shape (days, 3)
    reach: float


def early_sums(
    group: Mapping[Key, Sums], made: Mapping[Key, Sums], now: int, horizon_us: int, loss: Loss
) -> Early | None:
    """Return a loss's sums of all hours, those not yet ripe weighted; `None` if labels cannot be weighted, or none is
    early.

    The usual probabilities come from ripe hours, and are taken as given.

    Args:
        group: Sums of labelled predictions of one version, output and segment.
        made: Sums of all its predictions.
    """
    ages = [age for age in AGES_S if age * SECOND < horizon_us]
    if not ages:
        return None
    ripe_before = now - HOUR - horizon_us
    by_hour: dict[int, dict[int, Floats]] = {}  # hour -> age -> sums by stratum, of labels known by the horizon
    for key, each in group.items():
        if key.age_s <= age_of(horizon_us):
            by_hour.setdefault(key.hour, {})[key.age_s] = _by_stratum(key.task, each, loss)
    predictions = {key.hour: each["predictions"] for key, each in made.items()}
    ripe = [hour for hour in predictions if hour <= ripe_before]
    strata = next((sums for of_hour in by_hour.values() for sums in of_hour.values()), np.zeros((1, 4)))
    whole, by_age = np.zeros_like(strata), {age: np.zeros_like(strata) for age in ages}
    for hour in ripe:
        for known_at, sums in by_hour.get(hour, {}).items():
            whole += sums
            for age in ages:
                by_age[age] += sums * (known_at <= age)
    asked = sum(predictions[hour] for hour in ripe)
    if whole[:, 0].min() < _FEWEST or whole[:, 1].min() <= 0 or not asked:
        return None
    usual = {age: sums[:, 1] / whole[:, 1] for age, sums in by_age.items()}
    covered = float(whole[:, 0].sum() / asked)
    days: dict[int, Floats] = {}
    reach, any_early = 1.0, False
    for hour in sorted(predictions):
        age, weight, number = age_of(horizon_us), np.ones(len(whole)), 0.0
        if hour > ripe_before:
            known = [age for age in ages if hour + HOUR + age * SECOND <= now and usual[age].min() >= _LEAST_KNOWN]
            if not known:
                continue
            age, any_early, number = max(known), True, covered * predictions[hour]
            weight = 1 / usual[age]
            reach = max(reach, float(weight.max()))
        parts = sum((sums for at, sums in by_hour.get(hour, {}).items() if at <= age), np.zeros_like(strata))
        day = np.array([number or parts[:, 0].sum(), parts[:, 2] @ weight, parts[:, 3] @ weight**2])
        days[hour // DAY] = days.get(hour // DAY, np.zeros(3)) + day
    if not any_early:
        return None
    ordered = sorted(days)
    return Early(ordered, np.array([days[day] for day in ordered]), reach)


def _by_stratum(task: str, sums: Sums, loss: Loss) -> Floats:
    """Return, for each stratum, the number of labels, what is usually known of by an age, and a loss and its square.

    The weights of two classes, and of right and wrong answers for the calibration of several, are those of their
    labels. Another loss has one stratum, and is itself what is known by an age: its weight is the inverse of the usual
    share of the loss.
    """
    if (task == "binary" and loss.total == "squared") or loss.total == "error":
        number, error, squared = _by_class(sums).T
        # A squared error is at most 1, so its square is at most itself.
        return np.stack([number, number, error if loss.total == "error" else squared, squared], axis=1)
    wrong = sums["scored"] - sums["correct"]
    total, squares = (wrong, wrong) if loss.total == "wrong" else (sums[loss.total], sums[loss.squares])
    return np.array([[sums["scored"], total, total, squares]])


def _by_class(sums: Sums) -> Floats:
    """Return the number, sum of errors and of squared errors of label 0 and of label 1, shape (2, 3).

    The mean square of the positives' scores is that of their mean in each bin, a bin being narrow.
    """
    rows, labels, scores, products = sums.bins.T[:4]
    squares = np.where(labels > 0, products**2 / np.maximum(labels, 1e-9), 0.0)
    positive = float((labels - 2 * products + squares).sum())
    positives = float(labels.sum())
    return np.array(
        [
            [float(rows.sum()) - positives, float((scores - products).sum()), max(sums["squared"] - positive, 0.0)],
            [positives, float((products - labels).sum()), positive],
        ]
    )
