"""Differences and ratios of each pair of groups, with bounds by blocks of time."""

from __future__ import annotations

from math import nan
from statistics import NormalDist

import numpy as np

from mainspring.stats.distributions import student_quantile
from mainspring.stats.fairness.counting import Measured
from mainspring.stats.jackknife import FEWEST_BLOCKS, Floats, effective_blocks, standard_errors

_TINY = float(np.log(np.finfo(np.float64).tiny))


def compare(measured: Measured, *, ratio: bool, sure: float | None) -> tuple[Floats, Floats, Floats]:
    """Return the difference of each pair of means, or their ratio, with its bounds; each of shape (groups, groups).

    Each bound holds with probability `sure`; `None` has none. NaN stands for a group with itself, and for a ratio to 0.
    """
    rows, sums = measured.rows, measured.sums
    with np.errstate(invalid="ignore", divide="ignore"):  # without its only block a group has no rate
        rate = without(sums) / without(rows)
    return (_ratios if ratio else _differences)(measured, rate, sure)


def without(values: Floats) -> Floats:
    """Return the sums of all blocks, then without each block; shape (groups, 1 + blocks)."""
    return np.asarray(values.sum(axis=1, keepdims=True) - np.c_[np.zeros(len(values)), values])


def _differences(measured: Measured, rate: Floats, sure: float | None) -> tuple[Floats, Floats, Floats]:
    size, total = measured.rows.sum(axis=1), measured.sums.sum(axis=1)
    smooth = (total + 1) / (size + 2)  # a group without a flagged row does not have an error of zero
    apart = rate[:, None, :] - rate[None, :, :]
    floor = smooth * (1 - smooth) / (size + 2) if measured.counts else measured.spread
    half = _half(sure, apart, measured.rows, floor)
    value = np.where(np.eye(size.size, dtype=np.bool_), nan, apart[..., 0])
    return value, value - half, value + half


def _ratios(measured: Measured, rate: Floats, sure: float | None) -> tuple[Floats, Floats, Floats]:
    size, total = measured.rows.sum(axis=1), measured.sums.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(rate > 0, np.log(rate), nan)
        value = rate[:, None, 0] / rate[None, :, 0]
        relative = measured.spread / rate[:, 0] ** 2
    smooth = np.log((total + 0.5) / (size + 0.5)) if measured.counts else np.full(total.size, _TINY)
    known = np.asarray(np.where(np.all(np.isfinite(logs), axis=1, keepdims=True), logs, smooth[:, None]))
    apart = known[:, None, :] - known[None, :, :]
    floor = 1 / (total + 0.5) - 1 / (size + 0.5) if measured.counts else np.where(total > 0, relative, 0.0)
    undefined = np.eye(size.size, dtype=np.bool_) | (total == 0)[None, :]
    value = np.where(undefined, nan, value)
    if sure is None:
        return value, value, value
    half = _half(sure, apart, measured.rows, floor)
    low, high = (np.where(undefined, nan, np.exp(apart[..., 0] + side)) for side in (-half, half))
    return value, low, high


def _half(sure: float | None, apart: Floats, rows: Floats, floor: Floats) -> Floats:
    """Return half the width of each pair's interval: by blocks of time, at least as wide as for independent rows.

    A pair with a group of too few blocks has the interval of independent rows.
    """
    if sure is None:
        return np.zeros(apart.shape[:2])
    sizes = rows.sum(axis=0)
    filled = sizes > 0
    blocks = effective_blocks(rows)
    error = np.sqrt(floor[:, None] + floor[None, :])
    enough = blocks >= FEWEST_BLOCKS
    several = np.logical_and.outer(enough, enough)
    if enough.any():
        by_block = standard_errors(apart[..., np.r_[True, filled]], sizes[filled])
        error = np.where(several, np.maximum(by_block, error), error)
    normal = NormalDist().inv_cdf(sure)
    alone = [student_quantile(sure, each - 1) if each >= FEWEST_BLOCKS else normal for each in blocks.tolist()]
    factor = np.where(several, np.maximum.outer(alone, alone), normal)  # the group with fewer blocks is less certain
    return np.asarray(factor * error)
