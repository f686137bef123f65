"""Whole distributions compared between two arms: slower latency, and scores that moved.

Values are counted in bins whose thresholds are fixed before the first observation, from the control's history. A test
bets on the arm of each value given its bin. For "no slower" every bet grows with the bin, which makes it fair against
each candidate whose latency is stochastically no larger; for "the same distribution" any bet is fair. Each view of the
distribution (a threshold, the whole range) has an e-value of its own, and their mean is the test's.

Counts have the shape (..., strata, bins), as in `sequential.events`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.events import Floats, log_e_above, log_e_below, log_likelihoods, mixed, prior

TAIL = (0.5, 0.75, 0.9, 0.95, 0.99)  # quantiles for latency
TENTHS = tuple(each / 10 for each in range(1, 10))  # quantiles for scores
_STEPS = np.geomspace(0.01, 6.0, 24)  # alternatives as |log odds ratio|
_SCALE = 0.5  # of their prior


class Bins(msgspec.Struct, frozen=True):
    """Bins of a distribution: bin k holds values above threshold k - 1, up to threshold k.

    Attributes:
        thresholds: Ascending, shape (bins - 1,).
        shares: Share of each bin in the history, shape (bins,); it directs the bets and is not assumed to be true.
    """

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]

    def of(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the bin of each value; NaN, such as the latency of a reply that never came, is in the last bin."""
        return np.searchsorted(np.asarray(self.thresholds), np.asarray(values, dtype=np.float64), side="left")


def bins_of(history: npt.ArrayLike, quantiles: tuple[float, ...]) -> Bins:
    """Return bins with thresholds at quantiles of the control's history.

    Equal quantiles, as of scores that are often the same, become one threshold.

    Raises:
        Invalid: The history has no two different values.
    """
    values = np.asarray(history, dtype=np.float64)
    values = values[np.isfinite(values)]
    thresholds = np.unique(np.quantile(values, quantiles, method="inverted_cdf")) if values.size else values
    thresholds = thresholds[thresholds < values.max()] if values.size else thresholds
    if not thresholds.size:
        raise Invalid(
            f"A history of {values.size} values gives no threshold.", fix="wait until the control has answered more."
        )
    counted = np.bincount(np.searchsorted(thresholds, values, side="left"), minlength=thresholds.size + 1)
    shares = (counted + 0.5) / (counted + 0.5).sum()  # a bin that the history leaves empty can be met later
    return Bins(tuple(thresholds.tolist()), tuple(shares.tolist()))


def log_e_slower(bins: Bins, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> Floats:
    """Return the log e-value against "the candidate's values are stochastically no larger"; shape (...,).

    Half of the mean of `slower_views` is the whole range's, half the thresholds'.

    Raises:
        Invalid: The counts do not fit the bins, or are refused by `log_likelihoods`.
    """
    return _halved(slower_views(bins, weight, candidate, control), 1)


def slower_views(bins: Bins, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> Floats:
    """Return the log e-values that `log_e_slower` is the mean of, shape (..., views): thresholds, the whole range."""
    shares = _shares(bins, candidate)
    ranks = np.cumsum(shares) - shares / 2
    views = [np.arange(shares.size) > threshold for threshold in range(shares.size - 1)]
    return _views(shares, [*views, ranks / np.sqrt(shares @ (ranks - 0.5) ** 2)], (1,), weight, candidate, control)


def log_e_moved(bins: Bins, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> Floats:
    """Return the log e-value against "the candidate's values have the control's distribution"; shape (...,).

    Half of the mean of `moved_views` is that of location and spread, half the bins'.

    Raises:
        Invalid: As `log_e_slower`.
    """
    return _halved(moved_views(bins, weight, candidate, control), 2)


def moved_views(bins: Bins, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> Floats:
    """Return the log e-values that `log_e_moved` is the mean of, shape (..., views): bins, the location, the spread."""
    shares = _shares(bins, candidate)
    ranks = np.cumsum(shares) - shares / 2 - 0.5
    views = [np.arange(shares.size) == each for each in range(shares.size)]
    smooth = [each / np.sqrt(shares @ (each - shares @ each) ** 2) for each in (ranks, ranks**2)]
    return _views(shares, [*views, *smooth], (-1, 1), weight, candidate, control)


def log_e_exceeding(
    weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, ratio: float, *, above: bool = True
) -> Floats:
    """Return the log e-values against "values exceed a threshold at most `ratio` times as often", by threshold.

    Args:
        above: False tests against "at least `ratio` times as often": evidence that the candidate is not so slow.

    Returns:
        Shape (..., thresholds). Their mean tests all thresholds together; the least of those with `above=False` is
        evidence that none is exceeded so often.

    Raises:
        Invalid: As `log_e_above`.
    """
    test = log_e_above if above else log_e_below
    exceed = [np.cumsum(np.asarray(each, np.float64)[..., ::-1], axis=-1)[..., -2::-1] for each in (candidate, control)]
    thresholds = range(exceed[0].shape[-1])
    return np.stack([test(weight, exceed[0][..., each], exceed[1][..., each], ratio) for each in thresholds], axis=-1)


def averaged(log_es: npt.ArrayLike) -> Floats:
    """Return the log of the mean of e-values over the last axis, an e-value however they depend on each other."""
    each = np.asarray(log_es, dtype=np.float64)
    return np.asarray(np.logaddexp.reduce(each, axis=-1) - math.log(each.shape[-1]))


def _halved(log_es: Floats, smooth: int) -> Floats:
    """Return the log of a mean of e-values in which the last `smooth` weigh as much as all others together."""
    return np.asarray(np.logaddexp(averaged(log_es[..., :-smooth]), averaged(log_es[..., -smooth:])) - math.log(2))


def _shares(bins: Bins, counts: npt.ArrayLike) -> Floats:
    shares = np.asarray(bins.shares, dtype=np.float64)
    found = np.shape(counts)
    if not found or found[-1] != shares.size:
        raise Invalid(f"Counts of shape {found} do not fit {shares.size} bins.")
    return shares


def _views(
    shares: Floats,
    views: list[npt.NDArray[np.float64] | npt.NDArray[np.bool_]],
    signs: tuple[int, ...],
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
) -> Floats:
    """Return the log e-value of each view: a mixture over exponential tilts of the shares along it."""
    steps = np.concatenate([sign * _STEPS for sign in signs])
    log_weights = np.tile(prior(_SCALE, _STEPS) - math.log(len(signs)), len(signs))
    directions = np.asarray(views, dtype=np.float64)
    tilts = steps[None, :, None] * directions[:, None, :]
    tilts -= np.log((shares * np.exp(tilts)).sum(axis=-1, keepdims=True))  # relative risks whose mean is 1
    found = log_likelihoods(weight, candidate, control, tilts.reshape(-1, shares.size))
    return mixed(found.reshape(*found.shape[:-1], len(views), steps.size), log_weights)
