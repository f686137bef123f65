"""Differences of means between two arms, and means of paired differences.

Values are clipped to bounds that are fixed before the first observation, so the tests are exact, whatever the tails.
Bounds with a bend count larger values by their logarithm, so that a value far beyond the history is told from its end.
Each value is weighted by the inverse of its arm's probability; the mean of that is the difference of means, whatever
the arms' probabilities are and however the values rise and fall. Evidence is the wealth of bets on it (Waudby-Smith and
Ramdas, arXiv 2010.09686), a mixture over sizes of the bet.

The wealth depends on each value. A value between two nodes of a fixed grid is therefore counted in parts at both. The
logarithm of wealth is concave in the value, so its interpolation between nodes is never more than the wealth itself:
numbers by node are enough, and the test stays exact. Paired differences have an empirical Bernstein bound (Fan, Grama
and Liu 2015), which needs their number, sum and sum of squares alone.

Arrays have the shapes: weight (strata,); values of an arm (..., strata, nodes), as `Bounds.cells` counts them; sums of
pairs (..., 3). A weight of 0 or 1 compares nothing, and its stratum is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.intervals import Interval
from mainspring.stats.sequential.events import Floats, checked, mixed, prior

_BETS = np.concatenate([np.geomspace(1e-3, 0.6, 26), [0.7, 0.8, 0.9]])  # shares of the largest bet
_PRIOR = prior(0.3, _BETS)
_PAIRED = prior(0.1, _BETS)
_LOSSES = -np.log1p(-_BETS) - _BETS  # cost of a bet for each squared value, of pairs
_NODES = 33  # of bounds that name none
_FARTHEST = 100  # times the history's range, or its end, up to which values are told apart
_QUANTILES = np.arange(1, 25) / 25  # of the history, at which there are nodes


class Bounds(msgspec.Struct, frozen=True):
    """Bounds to which values are clipped, a centre, and nodes: these two make a test powerful and never wrong.

    Attributes:
        centre: A guess of the mean.
        inner: Nodes between the bounds, ascending, where most values are; by default 31 at equal distances.
        bend: A value above which the logarithm counts, and the scale of it: `bend + scale log(1 + (value - bend) /
            scale)`, which rises like the value at first. The other attributes are in these units. `None` for no bend.

    Raises:
        Invalid: Not low <= centre <= high, or low = high, or nodes are not between the bounds, or a scale is not above
            0.
    """

    low: float
    high: float
    centre: float
    inner: tuple[float, ...] = ()
    bend: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bend is not None and not (0 < self.bend[1] < math.inf):
            raise Invalid(f"A bend has the scale {self.bend[1]}.", fix="give a finite number above 0.")
        if not (-math.inf < self.low < self.high < math.inf and self.low <= self.centre <= self.high):
            raise Invalid(
                f"Bounds of {self.low} and {self.high} with the centre {self.centre} bound nothing.",
                fix="give two finite numbers, the lower first, and a centre between them.",
            )
        if self.inner and not (np.diff([self.low, *self.inner, self.high]) > 0).all():
            raise Invalid(
                f"Nodes from {self.inner[0]} to {self.inner[-1]} do not rise from {self.low} to {self.high}.",
                fix="give each once, in order, and without the bounds.",
            )

    @property
    def nodes(self) -> Floats:
        """The bounds and all nodes between them, shape (nodes,)."""
        if self.inner:
            return np.array([self.low, *self.inner, self.high])
        return np.linspace(self.low, self.high, _NODES)

    def cells(self, values: npt.ArrayLike) -> Floats:
        """Return the shares of each value, clipped, at the two nodes beside it; shape (..., nodes).

        Raises:
            Invalid: A value is NaN.
        """
        each, nodes = self._within(values), self.nodes
        if np.isnan(each).any():
            raise Invalid("A value is not a number.", fix="leave it out, and compare how often it is missing.")
        place = np.clip(np.searchsorted(nodes, each, side="right") - 1, 0, nodes.size - 2)
        part = (each - nodes[place]) / (nodes[place + 1] - nodes[place])
        found = np.zeros((*each.shape, nodes.size))
        np.put_along_axis(found, place[..., None], 1 - part[..., None], axis=-1)
        np.put_along_axis(found, place[..., None] + 1, part[..., None], axis=-1)
        return found

    def sums(self, values: npt.ArrayLike) -> Floats:
        """Return the number, sum and sum of squares of values, each clipped; shape (3,).

        Raises:
            Invalid: A value is NaN.
        """
        each = self._within(values)
        found = np.array([each.size, each.sum(), (each**2).sum()])
        if np.isnan(found[1]):
            raise Invalid("A value is not a number.", fix="leave it out, and compare how often it is missing.")
        return found

    def _within(self, values: npt.ArrayLike) -> Floats:
        """Return values as they are counted: bent, and clipped."""
        each = np.asarray(values, dtype=np.float64)
        if self.bend is not None:
            at, scale = self.bend
            each = np.where(each > at, at + scale * np.log1p(np.maximum(each - at, 0.0) / scale), each)
        return np.clip(each, self.low, self.high)


def bounds_of(
    history: npt.ArrayLike,
    tail: float = 0.001,
    known: tuple[float, float] | None = None,
    tolerance: float | None = None,
) -> Bounds:
    """Return bounds at the outermost quantiles of the control's history, its clipped mean as centre, and nodes.

    Args:
        tail: Share of the history that is clipped on either side; its extremes are the bounds if nothing else is left.
        known: Bounds to use instead, of values that cannot be outside.
        tolerance: A difference that has to be told: values above the history's end count by their logarithm, whose
            scale is the history's standard deviation, or this if it is more. `None` clips them.

    Raises:
        Invalid: The history has no two different values.
    """
    values = np.asarray(history, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size or values.min() == values.max():
        raise Invalid(f"A history of {values.size} values gives no bounds.", fix="give the bounds yourself.")
    low, high = known or (float(each) for each in np.quantile(values, [tail, 1 - tail]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    clipped = np.clip(values, low, high)
    inner, top, bend = np.unique([*np.quantile(clipped, _QUANTILES), *np.linspace(low, high, 9)]), high, None
    if tolerance is not None and known is None:
        bend = high, max(tolerance, float(clipped.std()) / 2)
        top = high + bend[1] * math.log1p(_FARTHEST * max(high - low, abs(high)) / bend[1])
        inner = np.unique([*inner, *np.linspace(high, top, 9)])
    inside = tuple(inner[(inner > low) & (inner < top)].tolist())
    return Bounds(low, top, float(clipped.mean()), inside, bend)


def log_e_mean_above(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, difference: float = 0.0
) -> Floats:
    """Return the log e-value against "the candidate's mean was never above the control's by more than `difference`".

    Returns:
        Shape (...,).

    Raises:
        Invalid: Shapes do not match, a weight is not a probability, or a number of values is negative.
    """
    return _Wealth(bounds, weight, candidate, control, 1).log_e(difference)


def log_e_mean_below(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, difference: float = 0.0
) -> Floats:
    """Return the log e-value against "the candidate's mean minus the control's was never less than `difference`".

    Raises:
        Invalid: As `log_e_mean_above`.
    """
    return _Wealth(bounds, weight, candidate, control, -1).log_e(-difference)


def mean_difference(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Return the candidate's mean minus the control's, and a confidence sequence, half of the error on each side.

    Args:
        candidate, control: Shape (strata, nodes).

    Raises:
        Invalid: `confidence` is not between 0 and 1, or as `log_e_mean_above`.
    """
    above, below = (_Wealth(bounds, weight, candidate, control, side) for side in (1, -1))
    reach = bounds.high - bounds.low
    return above.estimate, _interval(above.log_e, below.log_e, -reach, reach, confidence)


class _Wealth:
    """Wealth of bets on payoffs: values weighted by the inverse of their arm's probability.

    Args:
        side: 1, or -1 for the negated values.
    """

    def __init__(
        self, bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, side: int
    ) -> None:
        w, above, below = checked(weight, candidate, control)
        nodes = side * (bounds.nodes - bounds.centre)
        if above.shape[-1] != nodes.size:
            raise Invalid(f"Numbers of values of shape {above.shape} do not fit {nodes.size} nodes.")
        self._numbers = np.stack([above, below], axis=-3)  # (..., arms, strata, nodes)
        self._payoffs = np.stack([nodes / w[:, None], -nodes / (1 - w[:, None])])
        self._least = self._payoffs.min(axis=(0, 2), initial=math.inf)

    def log_e(self, mean: float) -> Floats:
        """Return the log e-value against "the mean was never above `mean`"."""
        largest = np.maximum(mean - self._least, 1e-12)  # largest loss of one payoff
        bets = np.log1p(_BETS * ((self._payoffs - mean) / largest[:, None])[..., None])
        flat = self._numbers.reshape(*self._numbers.shape[:-3], -1)
        return mixed(flat @ bets.reshape(flat.shape[-1], -1), _PRIOR)

    @property
    def estimate(self) -> float:
        """The mean over strata, each with the weight that its values have in a bet."""
        each = self._numbers / -self._least[:, None]
        number = float(each.sum())
        return float((each * self._payoffs).sum()) / number if number else math.nan


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
    """Return the mean of paired differences, NaN without any, and a confidence sequence.

    Half of the error is on each side.

    Raises:
        Invalid: `confidence` is not between 0 and 1, or as `log_e_paired_above`.
    """
    above, below = (_paired(bounds, sums, side) for side in (1, -1))
    number, total, _ = np.asarray(sums, dtype=np.float64)
    estimate = float(total / number) if number else math.nan
    return estimate, _interval(above.log_e, below.log_e, bounds.low, bounds.high, confidence)


class _Payoffs(NamedTuple):
    """Sums of payoffs whose mean is tested, each at least `floor`; shape (...,)."""

    number: Floats
    total: Floats
    squares: Floats
    floor: float

    def log_e(self, mean: float) -> Floats:
        """Return the log e-value against "the mean was never above `mean`"."""
        largest = max(mean - self.floor, 1e-12)  # largest loss of one payoff
        gained = (self.total - self.number * mean) / largest
        spread = (self.squares - 2 * mean * self.total + self.number * mean**2) / largest**2
        return mixed(gained[..., None] * _BETS - spread[..., None] * _LOSSES, _PAIRED)


def _paired(bounds: Bounds, sums: npt.ArrayLike, side: int) -> _Payoffs:
    """Return the payoffs of differences, of `side` -1 the negated ones.

    Raises:
        Invalid: The sums are impossible within the bounds, for example because values were not clipped.
    """
    of = np.asarray(sums, dtype=np.float64)
    number, total, squares = of[..., 0], of[..., 1], of[..., 2]
    slack = 1e-6 * (1 + number) * max(abs(bounds.low), abs(bounds.high), 1.0)
    inside = (number * bounds.low - slack <= total) & (total <= number * bounds.high + slack)
    # (value - low) (high - value) is never negative, so its sum is not
    square = (bounds.low + bounds.high) * total - number * bounds.low * bounds.high - squares
    if not (inside & (square >= -slack * max(abs(bounds.low), abs(bounds.high), 1.0)) & (squares >= 0)).all():
        raise Invalid(
            f"Sums are impossible for values between {bounds.low} and {bounds.high}.",
            fix="clip values by `Bounds.sums`.",
        )
    return _Payoffs(number, side * total, squares, bounds.low if side > 0 else -bounds.high)


def _interval(
    above: Callable[[float], Floats], below: Callable[[float], Floats], least: float, most: float, confidence: float
) -> Interval:
    """Return the interval of a mean that lies between `least` and `most`."""
    if not 0 < confidence < 1:
        raise Invalid(f"There is no confidence of {confidence}.", fix="give a probability, such as 0.95.")
    limit = math.log(2 / (1 - confidence))
    low = _bound(lambda mean: above(mean) >= limit, least, most)
    high = -_bound(lambda mean: below(mean) >= limit, -most, -least)
    return Interval(low, high, confidence)


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
