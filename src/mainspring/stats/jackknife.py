"""Confidence bounds of metrics, and of differences of two models' metrics on the same rows, by a jackknife over time.

Rows that are near in time are correlated: the flights of one day share its weather. So whole blocks of time are left
out one after the other (delete-a-group jackknife, as for the clusters of a survey: Wolter, Introduction to Variance
Estimation, 2007, chapter 4), and the bound uses Student's t with one degree of freedom less than blocks. Blocks of
unequal size count as fewer. For the AUC without blocks this is the interval of DeLong, DeLong and Clarke-Pearson
(1988). No random numbers are drawn: equal rows give equal bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats.distributions import student_quantile, student_tail
from mainspring.stats.intervals import row_losses
from mainspring.stats.metrics import Metric, measure

FEWEST_BLOCKS = 5
MOST_BLOCKS = 60

_MEANS = ("brier", "log_loss", "accuracy", "mae", "rmse")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate with its standard error. `error` is NaN if it is unknown.

    `blocks` is the number of blocks of equal size that would tell as much: one block with half of the rows counts for
    more than the others, and is one draw only.
    """

    value: float
    error: float
    blocks: int

    @property
    def known(self) -> bool:
        """True if there are bounds."""
        return self.blocks >= FEWEST_BLOCKS and math.isfinite(self.value) and math.isfinite(self.error)

    def bounds(self, sure: float) -> tuple[float, float]:
        """Return the lower and the upper bound, each of which holds with probability `sure`."""
        half = student_quantile(sure, self.blocks - 1) * self.error
        return self.value - half, self.value + half

    def bounds_within_one(self, sure: float) -> tuple[float, float]:
        """Return the bounds of a value that is not a difference.

        A value of exactly 0 or 1 whose error is 0, such as an accuracy without a wrong row, gets the exact bound of as
        many faultless trials as there are blocks.
        """
        if self.error == 0.0 and self.value in (0.0, 1.0):
            unseen = 1.0 - (1.0 - sure) ** (1.0 / self.blocks)
            return (1.0 - unseen, 1.0) if self.value else (0.0, unseen)
        return self.bounds(sure)

    def chance_below(self, level: float) -> float:
        """Return the p-value of "the true value is at most `level`": small if it is shown to be above."""
        if self.error == 0.0:
            return 0.0 if self.value > level else 1.0
        return student_tail((self.value - level) / self.error, self.blocks - 1)


def time_blocks(at: npt.NDArray[Any], length: int) -> Ints:
    """Return the block of each row, shape (rows,), numbered from 0 in the order of time.

    A block is a period of `length`, aligned to the epoch (a day is a UTC day), or several adjacent ones: at most 60
    blocks are made, each with at least a 60th of the rows.

    Args:
        at: Shape (rows,), UTC epoch microseconds.
        length: Microseconds.
    """
    _, period, sizes = np.unique(at // length, return_inverse=True, return_counts=True)
    least, block, filled = at.size / MOST_BLOCKS, 0, 0
    of_period = np.zeros(sizes.size, np.int64)
    for place, size in enumerate(sizes.tolist()):
        if filled >= least:
            block, filled = block + 1, 0
        of_period[place] = block
        filled += size
    if block and filled < least:  # the rest joins the last full block
        of_period[of_period == block] = block - 1
    return of_period[period]


def leave_out(metric: Metric, y: npt.NDArray[Any], score: Floats, block: Ints) -> Floats:
    """Return a metric of all rows, then of the rows without each block; shape (1 + blocks,), NaN where undefined.

    Raises:
        MetricFailed: A custom metric raised, or returned no number.
    """
    blocks = int(block.max(initial=-1)) + 1
    if metric.name == "auc" and not metric.custom and score.ndim == 1:
        return _auc(y.astype(np.bool_), score, block, blocks)
    if metric.name in _MEANS and not metric.custom:
        found = mean_without(row_losses(metric.name, y, score), np.ones(y.shape[0]), block)
        return np.sqrt(found) if metric.name == "rmse" else found
    if not metric.custom and score.ndim == 1:  # no order of rows matters to these, and what is sorted is sorted fast
        order = np.argsort(-score, kind="stable")
        y, score, block = y[order], score[order], block[order]
    kept = [np.ones(block.size, np.bool_), *(block != each for each in range(blocks))]
    return np.array([measure(metric, y[rows], score[rows]) for rows in kept])


def mean_without(values: Floats, weights: Floats, block: Ints) -> Floats:
    """Return the weighted mean of all rows, then of the rows without each block; shape (1 + blocks,)."""
    blocks = int(block.max(initial=-1)) + 1
    sums, sizes = (np.bincount(block, each, blocks) for each in (values * weights, weights))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.r_[sums.sum(), sums.sum() - sums] / np.r_[sizes.sum(), sizes.sum() - sizes])


def estimate(found: Floats, block: Ints) -> Estimate:
    """Return the estimate from a statistic of all rows and of the rows without each block, as of `leave_out`."""
    value, blocks = float(found[0]), found.size - 1
    sizes = np.bincount(block, minlength=blocks)
    if blocks < 2 or not np.isfinite(found).all():
        return Estimate(value, math.nan, blocks)
    return Estimate(value, float(standard_errors(found, sizes)), int(effective_blocks(sizes)))


def effective_blocks(sizes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return how many blocks of equal size vary as much as blocks of these sizes (Kish), shape (...,); 0 without rows.

    Args:
        sizes: Rows of each block, shape (..., blocks).
    """
    squares = (sizes.astype(np.float64) ** 2).sum(axis=-1)
    total = sizes.astype(np.float64).sum(axis=-1) ** 2
    return np.asarray(np.rint(np.divide(total, squares, out=np.zeros_like(total), where=squares > 0)), np.int64)


def standard_errors(found: Floats, sizes: npt.NDArray[Any]) -> Floats:
    """Return the standard errors of several statistics; shape (...,).

    A block's weight in the variance grows with the square of its size. So a large block counts as one draw of what its
    rows share, where weights by size would count its rows as independent.

    Args:
        found: Shape (..., 1 + blocks): each statistic of all rows, and of the rows without each block.
        sizes: Rows of each block, shape (blocks,).
    """
    without, rest = found[..., 1:], 1.0 - sizes / sizes.sum()
    centre = (rest * without).sum(axis=-1, keepdims=True) / rest.sum()
    return np.asarray(np.sqrt((rest * (without - centre) ** 2).sum(axis=-1)))


def holm(chances: Sequence[float], alpha: float) -> list[bool]:
    """Return which of several hypotheses Holm's procedure rejects (Scandinavian Journal of Statistics 6, 1979).

    Args:
        chances: The p-values.
        alpha: Largest probability of rejecting any true hypothesis.
    """
    rejected = [False] * len(chances)
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda each: chances[each])):
        if chances[place] > alpha / (len(chances) - rank):
            break
        rejected[place] = True
    return rejected


def _auc(positive: npt.NDArray[np.bool_], score: Floats, block: Ints, blocks: int) -> Floats:
    """Return the AUC as `leave_out` does, from the pairs that each block takes part in; O(rows log rows)."""
    if np.isnan(score).any():
        return np.full(1 + blocks, math.nan)
    of_positive, of_negative = block[positive], block[~positive]
    high, low = score[positive], score[~positive]
    won = np.bincount(of_positive, _below(low, high), blocks)  # by a block's positives, of all negatives
    lost = np.bincount(of_negative, high.size - _below(high, low), blocks)  # by its negatives, to all positives
    inside = np.array([_below(low[of_negative == each], high[of_positive == each]).sum() for each in range(blocks)])
    positives, negatives = (np.bincount(each, minlength=blocks) for each in (of_positive, of_negative))
    pairs = np.r_[high.size * low.size, (high.size - positives) * (low.size - negatives)].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.r_[won.sum(), won.sum() - won - lost + inside]
        return np.asarray(found / np.where(pairs > 0, pairs, math.nan))


def _below(values: Floats, levels: Floats) -> Floats:
    """Return how many of `values` lie below each level, those equal to it counting half."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, levels, "left") + np.searchsorted(ordered, levels, "right")) / 2.0
