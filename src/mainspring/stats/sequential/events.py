"""Relative risk between two arms, from the arm of each event.

If a unit is assigned to the candidate with probability w, and the candidate's risk is r times the control's, then an
event is the candidate's with probability w r / (w r + 1 - w), however the risk itself rises and falls. The evidence
against a ratio is a mixture of likelihood ratios over larger (or smaller) ones, as for counts of inhomogeneous
processes (Lindon and Malek, arXiv 2011.03567).

Arrays have the shapes: weight (strata,); candidate and control (..., strata), numbers of events. Leading axes, such as
looks, are kept. Strata of equal weight may be pooled. A weight of 0 or 1 compares nothing, and its stratum is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.intervals import Interval

RATIO_SCALE = 0.7  # of the prior of |log ratio|: half of it lies within a factor of two
SHARE_SCALE = 0.03  # the same for sample ratios, which differ by a few percent when assignment is broken
_STEPS = np.geomspace(
    1e-3, 9.0, 51
)  # alternatives as |log ratio|; neighbours differ by a fifth, which costs 1 % of power
_FURTHEST = 20.0  # largest |log ratio| of a bound that is not reported as 0 or infinite

Floats = npt.NDArray[np.float64]


def prior(scale: float, steps: Floats = _STEPS) -> Floats:
    """Return the log weights of alternatives in geometric steps: half of a Cauchy distribution; shape (steps,)."""
    density = steps / (steps**2 + scale**2)
    return np.asarray(np.log(density / density.sum()))


def mixed(log_likelihoods: Floats, log_weights: Floats) -> Floats:
    """Return the log of the weighted mean of likelihoods over the last axis."""
    terms = log_likelihoods + log_weights
    largest = terms.max(axis=-1, keepdims=True)
    terms -= largest
    return np.asarray(largest[..., 0] + np.log(np.exp(terms, out=terms).sum(axis=-1)))


def log_likelihoods(weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, tilts: Floats) -> Floats:
    """Return the log likelihood ratio of each alternative against "the arm is independent of the category".

    Args:
        weight: Shape (strata,).
        candidate, control: Observations by stratum and category, shape (..., strata, categories).
        tilts: Log relative risks, shape (alternatives, categories).

    Returns:
        Shape (..., alternatives).

    Raises:
        Invalid: Shapes do not match, a weight is not a probability, or a count is negative.
    """
    w, of_candidate, of_control = checked(weight, candidate, control)
    number = of_candidate + of_control
    # log(1 - w + w r), by stratum, category and alternative
    costs = np.log1p(w[:, None, None] * np.expm1(tilts.T))
    flat = number.reshape(*number.shape[:-2], -1) @ costs.reshape(-1, len(tilts))
    return np.asarray(of_candidate.sum(axis=-2) @ tilts.T - flat)


def checked(weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return the arrays without the strata that compare nothing.

    Raises:
        Invalid: As `log_likelihoods`.
    """
    w = np.asarray(weight, dtype=np.float64)
    arms = np.asarray(candidate, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if w.ndim != 1 or any(arm.ndim < 2 or arm.shape[-2] != w.size for arm in arms) or arms[0].shape != arms[1].shape:
        raise Invalid(f"Weights of shape {w.shape} do not match counts of shape {arms[0].shape} and {arms[1].shape}.")
    if not ((w >= 0) & (w <= 1)).all():
        raise Invalid(f"The weights {w.tolist()} are not all probabilities.")
    if any(arm.size and not arm.min() >= 0 for arm in arms):
        raise Invalid("A count of events is negative or not a number.")
    compares = (w > 0) & (w < 1)
    if compares.all():
        return w, *arms
    return w[compares], arms[0][..., compares, :], arms[1][..., compares, :]


def log_e_above(
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
    ratio: float = 1.0,
    *,
    scale: float = RATIO_SCALE,
) -> Floats:
    """Return the log e-value against "the candidate's risk was never more than `ratio` times the control's".

    Args:
        scale: Scale of the prior of the log of the ratio beyond `ratio`.

    Raises:
        Invalid: `ratio` is not positive, or the counts are refused by `log_likelihoods`.
    """
    return _log_e(weight, candidate, control, _log(ratio), _STEPS, prior(scale))


def log_e_below(
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
    ratio: float = 1.0,
    *,
    scale: float = RATIO_SCALE,
) -> Floats:
    """Return the log e-value against "the candidate's risk was never less than `ratio` times the control's".

    With a `ratio` above 1 this is evidence of non-inferiority.

    Raises:
        Invalid: As `log_e_above`.
    """
    return _log_e(weight, candidate, control, _log(ratio), -_STEPS, prior(scale))


def log_e_differs(
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
    ratio: float = 1.0,
    *,
    scale: float = RATIO_SCALE,
) -> Floats:
    """Return the log e-value against "the candidate's risk was always `ratio` times the control's".

    Raises:
        Invalid: As `log_e_above`.
    """
    sides, weights = np.concatenate([-_STEPS, _STEPS]), np.tile(prior(scale) - math.log(2), 2)
    return _log_e(weight, candidate, control, _log(ratio), sides, weights)


def _log_e(
    weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, null: float, steps: Floats, weights: Floats
) -> Floats:
    tilts = null + np.append(steps, 0.0)
    found = log_likelihoods(weight, _one(candidate), _one(control), tilts[:, None])
    return mixed(found[..., :-1] - found[..., -1:], weights)


def _one(counts: npt.ArrayLike) -> Floats:
    return np.asarray(counts, dtype=np.float64)[..., None]


def _log(ratio: float) -> float:
    if not 0 < ratio < math.inf:
        raise Invalid(
            f"A relative risk of {ratio} cannot be tested.", fix="give a positive number, 1 for no difference."
        )
    return math.log(ratio)


def risk_ratio(weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> float:
    """Return Mantel and Haenszel's estimate of the relative risk; NaN without events, infinite without control's.

    Args:
        candidate, control: Shape (strata,).
    """
    w, above, below = checked(weight, _one(candidate), _one(control))
    expected = float(((1 - w) * above[:, 0]).sum()), float((w * below[:, 0]).sum())
    if not expected[1]:
        return math.inf if expected[0] else math.nan
    return expected[0] / expected[1]


def risk_interval(
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    scale: float = RATIO_SCALE,
) -> Interval:
    """Return the ratios that are not rejected, half of 1 - `confidence` on each side: a confidence sequence.

    The lower bound exceeds a ratio exactly when `log_e_above` of it exceeds log(2 / (1 - confidence)), because the
    log likelihood is concave in the log ratio; likewise the upper bound and `log_e_below`.

    Args:
        candidate, control: Shape (strata,).

    Returns:
        Bounds of the relative risk: 0 and infinity if nothing is known.

    Raises:
        Invalid: `confidence` is not between 0 and 1, or the counts are refused by `log_likelihoods`.
    """
    if not 0 < confidence < 1:
        raise Invalid(f"There is no confidence of {confidence}.", fix="give a probability, such as 0.95.")
    limit = math.log(2 / (1 - confidence))
    weights = prior(scale)

    def rejected(steps: Floats) -> Callable[[float], bool]:
        return lambda null: bool(_log_e(weight, candidate, control, null, steps, weights) >= limit)

    above, below = rejected(_STEPS), rejected(-_STEPS)
    low = 0.0 if not above(-_FURTHEST) else math.exp(_edge(above, -_FURTHEST, _FURTHEST))
    high = math.inf if not below(_FURTHEST) else math.exp(_edge(below, _FURTHEST, -_FURTHEST))
    return Interval(low, high, confidence)


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the last rejected value on the way from `inside`, which is rejected, to `outside`, to 0.0001."""
    while abs(outside - inside) > 1e-4:
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if rejected(middle) else (inside, middle)
    return inside


def log_e_share_above(events: npt.ArrayLike, units: npt.ArrayLike, limit: float) -> Floats:
    """Return the log e-value against "the share of events was never more than `limit`" within one arm.

    Args:
        events, units: Numbers of events and of all units of the arm, any shape.

    Raises:
        Invalid: `limit` is not between 0 and 1, or there are more events than units.
    """
    return _log_e_share(events, units, limit, 1)


def log_e_share_below(events: npt.ArrayLike, units: npt.ArrayLike, limit: float) -> Floats:
    """Return the log e-value against "the share of events was never less than `limit`" within one arm.

    Raises:
        Invalid: As `log_e_share_above`.
    """
    return _log_e_share(events, units, limit, -1)


def _log_e_share(events: npt.ArrayLike, units: npt.ArrayLike, limit: float, side: int) -> Floats:
    happened, number = np.asarray(events, dtype=np.float64), np.asarray(units, dtype=np.float64)
    if not 0 < limit < 1:
        raise Invalid(f"A share of {limit} cannot be tested.", fix="give a number between 0 and 1.")
    if not ((happened >= 0) & (happened <= number)).all():
        raise Invalid("There are more events than units, or fewer than none.")
    # Alternatives are steps of the log odds, so each is a share.
    odds = math.log(limit / (1 - limit)) + side * _STEPS
    present, absent = -np.logaddexp(0.0, -odds) - math.log(limit), -np.logaddexp(0.0, odds) - math.log1p(-limit)
    return mixed(happened[..., None] * present + (number - happened)[..., None] * absent, prior(RATIO_SCALE))


def log_e_sample_ratio(weights: npt.ArrayLike, units: npt.ArrayLike) -> Floats:
    """Return the log e-value against "each unit was assigned with the stated probabilities", of any number of arms.

    The mean over arms of the two-sided e-value of one arm against the others (the case of arXiv 2011.03567).

    Args:
        weights: Probabilities of the arms, shape (strata, arms).
        units: Numbers of units, shape (..., strata, arms).

    Returns:
        Shape (...,); infinite if an arm of probability 0 has a unit.

    Raises:
        Invalid: Shapes do not match, a weight is not a probability, or those of a stratum do not add up to 1.
    """
    by_arm = log_e_arm_shares(weights, units)
    return np.asarray(np.logaddexp.reduce(by_arm, axis=-1) - math.log(by_arm.shape[-1]))


def log_e_arm_shares(weights: npt.ArrayLike, units: npt.ArrayLike) -> Floats:
    """Return the part of each arm in `log_e_sample_ratio`, shape (..., arms)."""
    w, number = np.asarray(weights, dtype=np.float64), np.asarray(units, dtype=np.float64)
    if w.ndim != 2 or number.shape[-2:] != w.shape:
        raise Invalid(f"Weights of shape {w.shape} do not match numbers of units of shape {number.shape}.")
    if not (np.abs(w.sum(axis=1) - 1) < 1e-6).all():
        raise Invalid(f"The weights of the arms add up to {w.sum(axis=1).tolist()}, not to 1.")
    total = number.sum(axis=-1)
    found: list[Any] = []
    for arm in range(w.shape[1]) if w.shape[1] != 2 else [1]:  # of two arms, one tells all about the other
        mine = number[..., arm]
        log_e = log_e_differs(w[:, arm], mine, total - mine, scale=SHARE_SCALE)
        impossible = (((w[:, arm] == 0) & (mine > 0)) | ((w[:, arm] == 1) & (total > mine))).any(axis=-1)
        found.append(np.where(impossible, math.inf, log_e))
    return np.stack(found if w.shape[1] != 2 else found * 2, axis=-1)
