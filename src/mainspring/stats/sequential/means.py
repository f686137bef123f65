"""Differences of means between two arms, and means of paired differences.

Values are clipped to bounds that are fixed before the first observation, so the tests are exact, whatever the tails.
Each value is weighted by the inverse of its arm's probability; the mean of that is the difference of means, whatever
the arms' probabilities are and however the values rise and fall. An empirical Bernstein bound (Fan, Grama and Liu
2015; Howard et al., arXiv 1810.08240; Waudby-Smith and Ramdas, arXiv 2010.09686) needs the number of values, their sum
and sum of squares alone.

Arrays have the shapes: weight (strata,); sums (..., strata, 3): number, sum, sum of squares of the clipped values. A
weight of 0 or 1 compares nothing, and its stratum is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.intervals import Interval
from mainspring.stats.sequential.events import Floats, mixed, prior

_BETS = np.concatenate([np.geomspace(1e-4, 0.6, 44), [0.7, 0.8, 0.9]])  # shares of the largest bet
_SCALE = 0.1  # of their prior
_LOSSES = -np.log1p(-_BETS) - _BETS  # what a bet costs per squared value
FEWEST = 30  # of each arm, for the asymptotic interval


class Bounds(msgspec.Struct, frozen=True):
    """Bounds to which values are clipped, and a centre near the mean, which makes a test powerful but never wrong.

    Raises:
        Invalid: Not low <= centre <= high, or low = high.
    """

    low: float
    high: float
    centre: float

    def __post_init__(self) -> None:
        if not (-math.inf < self.low < self.high < math.inf and self.low <= self.centre <= self.high):
            raise Invalid(
                f"Bounds of {self.low} and {self.high} with the centre {self.centre} bound nothing.",
                fix="give two finite numbers, the lower first, and a centre between them.",
            )

    def sums(self, values: npt.ArrayLike) -> Floats:
        """Return the number, sum and sum of squares of values, each clipped; shape (3,).

        Raises:
            Invalid: A value is NaN.
        """
        each = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        found = np.array([each.size, each.sum(), (each**2).sum()])
        if np.isnan(found[1]):
            raise Invalid("A value is not a number.", fix="leave it out, and compare how often it is missing.")
        return found


def bounds_of(history: npt.ArrayLike, tail: float = 0.001) -> Bounds:
    """Return bounds at the outermost quantiles of the control's history, and its clipped mean as centre.

    Args:
        tail: Share of the history that is clipped on either side; its extremes are the bounds if nothing else is left.

    Raises:
        Invalid: The history has no two different values.
    """
    values = np.asarray(history, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size or values.min() == values.max():
        raise Invalid(f"A history of {values.size} values gives no bounds.", fix="give the bounds yourself.")
    low, high = (float(each) for each in np.quantile(values, [tail, 1 - tail]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return Bounds(low, high, float(np.clip(values, low, high).mean()))


def log_e_mean_above(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, difference: float = 0.0
) -> Floats:
    """Return the log e-value against "the candidate's mean was never above the control's by more than `difference`".

    Returns:
        Shape (...,).

    Raises:
        Invalid: Shapes do not match, a weight is not a probability, or sums are impossible within the bounds.
    """
    return _weighted(bounds, weight, candidate, control, 1).log_e(difference)


def log_e_mean_below(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, difference: float = 0.0
) -> Floats:
    """Return the log e-value against "the candidate's mean minus the control's was never less than `difference`".

    Raises:
        Invalid: As `log_e_mean_above`.
    """
    return _weighted(bounds, weight, candidate, control, -1).log_e(-difference)


def mean_difference(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Return the candidate's mean minus the control's, and a confidence sequence, half of the error on each side.

    Args:
        candidate, control: Shape (strata, 3).

    Raises:
        Invalid: `confidence` is not between 0 and 1, or as `log_e_mean_above`.
    """
    sides = [_weighted(bounds, weight, candidate, control, side) for side in (1, -1)]
    reach = bounds.high - bounds.low
    return _interval(sides[0], sides[1], -reach, reach, confidence)


def log_e_paired_above(bounds: Bounds, sums: npt.ArrayLike, difference: float = 0.0) -> Floats:
    """Return the log e-value against "the mean of paired differences was never above `difference`".

    Args:
        bounds: Of the differences, candidate minus control of the same input.
        sums: Shape (..., 3), of the clipped differences.

    Raises:
        Invalid: Sums are impossible within the bounds.
    """
    return _paired(bounds, sums, 1).log_e(difference)


def log_e_paired_below(bounds: Bounds, sums: npt.ArrayLike, difference: float = 0.0) -> Floats:
    """Return the log e-value against "the mean of paired differences was never below `difference`".

    Raises:
        Invalid: As `log_e_paired_above`.
    """
    return _paired(bounds, sums, -1).log_e(-difference)


def paired_difference(bounds: Bounds, sums: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, Interval]:
    """Return the mean of paired differences, and a confidence sequence, half of the error on each side.

    Raises:
        Invalid: `confidence` is not between 0 and 1, or as `log_e_paired_above`.
    """
    return _interval(_paired(bounds, sums, 1), _paired(bounds, sums, -1), bounds.low, bounds.high, confidence)


class _Payoffs:
    """Sums of payoffs whose mean is what is tested, each at least its stratum's `floor`; shape (..., strata)."""

    def __init__(self, number: Floats, total: Floats, squares: Floats, floor: Floats) -> None:
        self._number, self._total, self._squares, self._floor = number, total, squares, floor

    def log_e(self, mean: float) -> Floats:
        """Return the log e-value against "the mean was never above `mean`"."""
        largest = np.maximum(mean - self._floor, 1e-12)  # largest loss of one payoff
        gained = ((self._total - self._number * mean) / largest).sum(axis=-1)
        spread = self._squares - 2 * mean * self._total + self._number * mean**2
        spread = (spread / largest**2).sum(axis=-1)
        return mixed(gained[..., None] * _BETS - spread[..., None] * _LOSSES, prior(_SCALE, _BETS))

    @property
    def estimate(self) -> float:
        number = float((self._number / -self._floor).sum())
        return float((self._total / -self._floor).sum()) / number if number else math.nan


def _weighted(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, side: int
) -> _Payoffs:
    """Return the payoffs of values weighted by the inverse of their probability; `side` -1 of the negated values."""
    w, above, below = (np.asarray(each, dtype=np.float64) for each in (weight, candidate, control))
    if w.ndim != 1 or above.shape != below.shape or above.shape[-2:] != (w.size, 3):
        raise Invalid(f"Weights of shape {w.shape} do not match sums of shape {above.shape} and {below.shape}.")
    if not ((w >= 0) & (w <= 1)).all():
        raise Invalid(f"The weights {w.tolist()} are not all probabilities.")
    compares = (w > 0) & (w < 1)
    w = w[compares]
    first, second = (_centred(bounds, arm[..., compares, :]) for arm in (above, below))
    least, most = (bounds.low, bounds.high) if side > 0 else (-bounds.high, -bounds.low)
    floor = -np.maximum((side * bounds.centre - least) / w, (most - side * bounds.centre) / (1 - w))
    return _Payoffs(
        first[0] + second[0],
        side * (first[1] / w - second[1] / (1 - w)),
        first[2] / w**2 + second[2] / (1 - w) ** 2,
        floor,
    )


def _paired(bounds: Bounds, sums: npt.ArrayLike, side: int) -> _Payoffs:
    of = np.asarray(sums, dtype=np.float64)[..., None, :]
    _centred(bounds, of)
    floor = np.array([bounds.low if side > 0 else -bounds.high])
    return _Payoffs(of[..., 0], side * of[..., 1], of[..., 2], floor)


def _centred(bounds: Bounds, sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return number, sum and sum of squares of the deviations from the centre.

    Raises:
        Invalid: The sums are impossible within the bounds, for example because values were not clipped.
    """
    number, total, squares = sums[..., 0], sums[..., 1], sums[..., 2]
    slack = 1e-6 * (1 + number) * max(abs(bounds.low), abs(bounds.high), 1.0)
    inside = (number * bounds.low - slack <= total) & (total <= number * bounds.high + slack)
    # (value - low) (high - value) is never negative, so its sum is not
    square = (bounds.low + bounds.high) * total - number * bounds.low * bounds.high - squares
    if not (inside & (square >= -slack * max(abs(bounds.low), abs(bounds.high), 1.0)) & (squares >= 0)).all():
        raise Invalid(
            f"Sums are impossible for values between {bounds.low} and {bounds.high}.",
            fix="clip values by `Bounds.sums`.",
        )
    centred = squares - 2 * bounds.centre * total + number * bounds.centre**2
    return number, total - number * bounds.centre, np.maximum(centred, 0.0)


def _interval(above: _Payoffs, below: _Payoffs, least: float, most: float, confidence: float) -> tuple[float, Interval]:
    """Return the estimate and the interval of a mean that lies between `least` and `most`."""
    if not 0 < confidence < 1:
        raise Invalid(f"There is no confidence of {confidence}.", fix="give a probability, such as 0.95.")
    limit = math.log(2 / (1 - confidence))
    low = _bound(lambda mean: above.log_e(mean) >= limit, least, most)
    high = -_bound(lambda mean: below.log_e(mean) >= limit, -most, -least)
    return above.estimate, Interval(low, high, confidence)


def _bound(rejected: Callable[[float], Any], least: float, most: float) -> float:
    """Return the largest mean up to which all above `least` are rejected, to a millionth of the range."""
    grid = np.linspace(least, most, 129)[1:]
    kept = next((place for place, mean in enumerate(grid) if not rejected(float(mean))), grid.size - 1)
    if kept == 0:
        return least
    inside, outside = float(grid[kept - 1]), float(grid[kept])
    while outside - inside > 1e-6 * (most - least):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if rejected(middle) else (inside, middle)
    return inside


def asymptotic_difference(
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    best_at: float = 1_000.0,
) -> tuple[float, Interval] | None:
    """Return a difference of means within strata, and its asymptotic confidence sequence, two-sided.

    Theorem 2.2 of Waudby-Smith et al., arXiv 2103.06476, with overlap weights: a stratum counts by its number of values
    times weight times (1 - weight). It is narrower than `mean_difference` for values without bounds, and where the mean
    changes between strata; it holds for large numbers alone.

    Args:
        weight: Shape (strata,); here a stratum may also be an hour.
        candidate, control: Sums, shape (strata, 3); the values need no bounds.
        best_at: Sum of the strata's number times weight times (1 - weight) at which the interval is narrowest.

    Returns:
        `None` while an arm has fewer than 30 values in strata where each arm has two.
    """
    w = np.asarray(weight, dtype=np.float64)
    arms = [np.asarray(each, dtype=np.float64) for each in (candidate, control)]
    usable = (w > 0) & (w < 1) & (arms[0][:, 0] >= 2) & (arms[1][:, 0] >= 2)
    w, arms = w[usable], [arm[usable] for arm in arms]
    if min(arm[:, 0].sum() for arm in arms) < FEWEST:
        return None
    means = [arm[:, 1] / arm[:, 0] for arm in arms]
    errors = sum(
        np.maximum(arm[:, 2] / arm[:, 0] - mean**2, 0.0) / (arm[:, 0] - 1)
        for arm, mean in zip(arms, means, strict=True)
    )
    overlap = (arms[0][:, 0] + arms[1][:, 0]) * w * (1 - w)
    total = float(overlap.sum())
    difference = float((overlap * (means[0] - means[1])).sum() / total)
    deviation = math.sqrt(float((overlap**2 * errors).sum()) / total)  # of the influence of one unit of overlap
    alpha = 1 - confidence
    start = best_at / (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1)
    radius = deviation * math.sqrt((total + start) * (math.log((total + start) / start) - 2 * math.log(alpha))) / total
    return difference, Interval(difference - radius, difference + radius, confidence)
