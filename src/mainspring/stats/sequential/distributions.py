"""Latencies compared between two arms: whole distributions, in stochastic order.

Values are counted in bins whose thresholds are fixed before the first observation, from the control's history. A test
bets on the arm of each value given its bin. Every bet grows with the bin, which makes it fair against each candidate
whose latency is stochastically no larger. Each view of the distribution (a threshold, the whole range) has an e-value
of its own, and their mean is the test's.

Counts have the shape (..., strata, bins), as in `sequential.events`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.events import Floats, log_likelihoods, mixed, prior

TAIL = (0.5, 0.9, 0.99)  # quantiles for latency
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

    Half of it is a bet on the whole range, half are bets on each threshold.

    Raises:
        Invalid: The counts do not fit the bins, or are refused by `log_likelihoods`.
    """
    shares = _shares(bins, candidate)
    ranks = np.cumsum(shares) - shares / 2
    views = [np.arange(shares.size) > threshold for threshold in range(shares.size - 1)]
    found = _views(shares, [*views, ranks / np.sqrt(shares @ (ranks - 0.5) ** 2)], weight, candidate, control)
    return np.asarray(np.logaddexp(averaged(found[..., :-1]), found[..., -1]) - math.log(2))


def log_e_faster(bins: Bins, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> Floats:
    """Return the log e-value against "the candidate's values are stochastically no smaller"; shape (...,).

    Raises:
        Invalid: As `log_e_slower`.
    """
    mirrored = Bins(tuple(-each for each in reversed(bins.thresholds)), tuple(reversed(bins.shares)))
    return log_e_slower(mirrored, weight, *(np.asarray(each)[..., ::-1] for each in (candidate, control)))


def averaged(log_es: npt.ArrayLike) -> Floats:
    """Return the log of the mean of e-values over the last axis, an e-value however they depend on each other."""
    each = np.asarray(log_es, dtype=np.float64)
    return np.asarray(np.logaddexp.reduce(each, axis=-1) - math.log(each.shape[-1]))


def _shares(bins: Bins, counts: npt.ArrayLike) -> Floats:
    shares = np.asarray(bins.shares, dtype=np.float64)
    found = np.shape(counts)
    if not found or found[-1] != shares.size:
        raise Invalid(f"Counts of shape {found} do not fit {shares.size} bins.")
    return shares


def _views(
    shares: Floats,
    views: list[npt.NDArray[np.float64] | npt.NDArray[np.bool_]],
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
) -> Floats:
    """Return the log e-value of each view: a mixture over exponential tilts of the shares along it."""
    directions = np.asarray(views, dtype=np.float64)
    tilts = _STEPS[None, :, None] * directions[:, None, :]
    tilts -= np.log((shares * np.exp(tilts)).sum(axis=-1, keepdims=True))  # relative risks whose mean is 1
    found = log_likelihoods(weight, candidate, control, tilts.reshape(-1, shares.size))
    return mixed(found.reshape(*found.shape[:-1], len(views), _STEPS.size), prior(_SCALE, _STEPS))
