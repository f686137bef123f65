"""Evidence of each guard of a rollout, in both directions: worse than tolerated, and no worse than tolerated.

Rollouts, their simulation in advance, the benchmark and the tests of false alarms all compute these. Arrays have the
shapes of `sequential.events`, `distributions` and `means`; leading axes, such as runs and looks, are kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.stats.sequential.distributions import Bins, averaged, log_e_faster, log_e_slower
from mainspring.stats.sequential.events import (
    Floats,
    log_e_above,
    log_e_below,
    log_e_share_above,
    log_e_share_below,
)
from mainspring.stats.sequential.means import Bounds, log_e_mean_above, log_e_mean_below


class Verdicts(NamedTuple):
    """Log e-values, shape (...,): `worse` against "no worse than tolerated", `fine` against "worse than tolerated"."""

    worse: Floats
    fine: Floats


def of_errors(
    weight: npt.ArrayLike,
    candidate: npt.ArrayLike,
    control: npt.ArrayLike,
    asked: npt.ArrayLike,
    ratio: float,
    at_most: float,
) -> Verdicts:
    """Return the evidence on errors: worse is both a larger relative risk than `ratio` and a share above `at_most`.

    Args:
        candidate, control: Numbers of errors, shape (..., strata).
        asked: The candidate's requests, shape (...,).
        at_most: Share that is harmless; 0 for none.
    """
    worse, fine = (test(weight, candidate, control, ratio) for test in (log_e_above, log_e_below))
    if not at_most:
        return Verdicts(worse, fine)
    alone = of_share(np.asarray(candidate, dtype=np.float64).sum(axis=-1), asked, at_most)
    # Against "either holds" the least of both e-values counts, against "both fail" their mean, which is at least a half
    # of the larger one.
    return Verdicts(np.minimum(worse, alone.worse), np.maximum(fine, alone.fine) - math.log(2))


def of_share(failed: npt.ArrayLike, asked: npt.ArrayLike, at_most: float) -> Verdicts:
    """Return the evidence on errors of a candidate that has nothing to be compared with, shape of `failed`."""
    return Verdicts(log_e_share_above(failed, asked, at_most), log_e_share_below(failed, asked, at_most))


def of_latency(bins: Bins, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike) -> Verdicts:
    """Return the evidence on latency: worse is stochastically slower than the control's latency times a factor.

    While more speaks for slower than against it, as a longer tail beside a shorter median, nothing speaks for fine.

    Args:
        candidate: Numbers by bin of the candidate's latencies divided by the factor, shape (..., strata, bins).
        control: Numbers by bin of the control's.
    """
    worse = log_e_slower(bins, weight, candidate, control)
    return Verdicts(worse, np.where(worse > 0, 0.0, log_e_faster(bins, weight, candidate, control)))


def of_scores(weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, ratio: float) -> Verdicts:
    """Return the evidence on scores: worse is a bin with more than `ratio` times the control's share.

    Args:
        candidate, control: Numbers by bin, shape (..., strata, bins).
    """
    mine, its = (np.moveaxis(np.asarray(each, dtype=np.float64), -1, 0) for each in (candidate, control))
    worse = averaged(np.moveaxis(log_e_above(weight, mine, its, ratio), 0, -1))
    return Verdicts(worse, log_e_below(weight, mine, its, ratio).min(axis=0))


def of_means(
    bounds: Bounds, weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, difference: float
) -> Verdicts:
    """Return the evidence on a mean: worse is larger than the control's by more than `difference`."""
    tests = log_e_mean_above, log_e_mean_below
    return Verdicts(*(test(bounds, weight, candidate, control, difference) for test in tests))


def of_missing(weight: npt.ArrayLike, candidate: npt.ArrayLike, control: npt.ArrayLike, ratio: float = 2.0) -> Floats:
    """Return the log e-value against "neither arm lacks labels `ratio` times as often as the other"; shape (...,)."""
    both = log_e_above(weight, candidate, control, ratio), log_e_below(weight, candidate, control, 1 / ratio)
    return averaged(np.stack(both, axis=-1))
