"""Measures of groups with their intervals, and the two groups of each that lie furthest apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import msgspec
import numpy as np

from mainspring.stats.distributions import student_quantile
from mainspring.stats.fairness.comparing import compare, without
from mainspring.stats.fairness.counting import BIAS, CALIBRATION, MEASURES, GroupCounts, Measured
from mainspring.stats.jackknife import FEWEST_BLOCKS, effective_blocks, standard_errors

LEAST_ROWS = 200  # of the kind that a measure is of; fewer are insufficient data


class Rate(msgspec.Struct, frozen=True):
    """A measure of a group with its interval. A value without enough rows is `None`: insufficient data."""

    value: float | None
    low: float | None
    high: float | None
    rows: int  # that it is of: of a true positive rate the positive ones


class GroupRates(msgspec.Struct, frozen=True):
    """One group: the value of each column, its rows, and its measures by name."""

    group: dict[str, str]
    rows: int
    measures: dict[str, Rate]


class GroupGap(msgspec.Struct, frozen=True):
    """The two groups whose values of a measure lie furthest apart.

    Attributes:
        difference: Of the highest and the lowest.
        ratio: Of the lowest to the highest; `None` for a measure that may be negative, and where the highest is 0.
        certain: Whether the interval of the difference excludes 0.
    """

    measure: str
    highest: dict[str, str]
    lowest: dict[str, str]
    difference: Rate
    ratio: Rate | None
    certain: bool


class FairnessReport(msgspec.Struct, frozen=True):
    """Measures of groups by one column, or by the combinations of several.

    Attributes:
        confidence: Probability of each interval.
        least_rows: Rows below which a measure is insufficient data.
        blocks: Number of blocks of time.
        gaps: By measure; one is missing if fewer than two groups have sufficient data.
    """

    by: tuple[str, ...]
    confidence: float
    least_rows: int
    blocks: int
    groups: tuple[GroupRates, ...]
    gaps: tuple[GroupGap, ...]


def fairness_report(
    counts: GroupCounts,
    by: Sequence[str],
    task: str,
    *,
    confidence: float = 0.95,
    least_rows: int = LEAST_ROWS,
) -> FairnessReport:
    """Return the measures of the groups by some of the columns of `counts`, the largest groups first, and their gaps.

    Args:
        task: Binary, multiclass or regression, which decides the measures.
        least_rows: Rows of the kind that a measure is of, below which it is insufficient data.
    """
    counts = counts.by(by)
    size = counts.cells.sum(axis=(1, 2, 3))
    order = np.argsort(-size, kind="stable")
    counts = replace(counts.each(lambda part: part[order]), groups=tuple(counts.groups[p] for p in order.tolist()))
    names = [dict(zip(by, group, strict=True)) for group in counts.groups]
    found: list[dict[str, Rate]] = [{} for _ in names]
    gaps = []
    for measure in MEASURES[task]:
        rates = (
            _calibration(counts, confidence, least_rows)
            if measure == CALIBRATION
            else _intervals(counts.measured(measure), confidence, least_rows)
        )
        for group, rate in zip(found, rates, strict=True):
            group[measure] = rate
        gap = _gap(counts, measure, names, rates, confidence)
        gaps += [gap] if gap is not None else []
    groups = tuple(
        GroupRates(name, int(rows), measures) for name, rows, measures in zip(names, size[order], found, strict=True)
    )
    return FairnessReport(tuple(by), confidence, least_rows, len(counts.blocks), groups, tuple(gaps))


def _intervals(measured: Measured, confidence: float, least_rows: int) -> list[Rate]:
    sizes = measured.rows.sum(axis=1)
    totals = measured.sums.sum(axis=1)
    sure = (1 + confidence) / 2
    z = NormalDist().inv_cdf(sure)
    found = []
    for group, (size, total) in enumerate(zip(sizes.tolist(), totals.tolist(), strict=True)):
        if size < max(1, least_rows):
            found.append(Rate(None, None, None, int(size)))
            continue
        value = total / size
        if measured.counts:
            low, high = wilson(total, size, z)
        else:
            half = z * float(np.sqrt(measured.spread[group]))
            low, high = value - half, value + half
        half = _block_half(measured.of(np.array([group])), sure)
        low, high = min(low, value - half), max(high, value + half)
        if measured.counts:
            low, high = max(0.0, low), min(1.0, high)
        found.append(Rate(value, low, high, int(size)))
    return found


def _block_half(measured: Measured, sure: float) -> float:
    """Return half of the width of one group's interval by a jackknife over blocks; 0 with fewer than five blocks."""
    blocks = int(effective_blocks(measured.rows)[0])
    if blocks < FEWEST_BLOCKS:
        return 0.0
    filled = measured.rows[0] > 0
    rate = (without(measured.sums) / without(measured.rows))[0, np.r_[True, filled]]
    return student_quantile(sure, blocks - 1) * float(standard_errors(rate, measured.rows[0, filled]))


def wilson(successes: float, trials: float, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a share, for a normal quantile `z`."""
    share = successes / trials
    middle = share + z * z / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def _calibration(counts: GroupCounts, confidence: float, least_rows: int) -> list[Rate]:
    """Return calibration errors; their intervals are by a jackknife over blocks, else they have none."""
    values, rows = counts.calibration(), counts.cells.sum(axis=(2, 3)).astype(np.float64)
    found = []
    for value, sizes in zip(values, rows, strict=True):
        size, blocks = int(sizes.sum()), int(effective_blocks(sizes))
        if size < max(1, least_rows):
            found.append(Rate(None, None, None, size))
            continue
        low = high = None
        if blocks >= FEWEST_BLOCKS:
            filled = sizes > 0
            error = float(standard_errors(value[np.r_[True, filled]], sizes[filled]))
            half = student_quantile((1 + confidence) / 2, blocks - 1) * error
            low, high = max(0.0, float(value[0]) - half), float(value[0]) + half
        found.append(Rate(float(value[0]), low, high, size))
    return found


def _gap(
    counts: GroupCounts, measure: str, names: Sequence[dict[str, str]], rates: Sequence[Rate], confidence: float
) -> GroupGap | None:
    known = [(rate.value, place) for place, rate in enumerate(rates) if rate.value is not None]
    if len(known) < 2:
        return None
    (top, highest), (bottom, lowest) = max(known, key=lambda each: each[0]), min(known, key=lambda each: each[0])
    rows = rates[highest].rows + rates[lowest].rows
    if measure == CALIBRATION:
        difference, ratio = Rate(top - bottom, None, None, rows), None
    else:
        pair = np.array([highest, lowest])
        measured = counts.measured(measure).of(pair)
        difference = _difference(measured, confidence, rows)
        ratio = _ratio(measured, confidence, rows) if measure != BIAS else None
    certain = difference.low is not None and difference.low > 0
    return GroupGap(measure, names[highest], names[lowest], difference, ratio, certain)


def _difference(measured: Measured, confidence: float, rows: int) -> Rate:
    sure = (1 + confidence) / 2
    value, low, high = (float(part[0, 1]) for part in compare(measured, ratio=False, sure=sure))
    if measured.counts and (effective_blocks(measured.rows) < FEWEST_BLOCKS).any():
        z = NormalDist().inv_cdf(sure)
        size, total = measured.rows.sum(axis=1), measured.sums.sum(axis=1)
        (a, b), (low_a, high_a), (low_b, high_b) = (
            total / size,
            *(wilson(float(t), float(n), z) for t, n in zip(total, size, strict=True)),
        )
        low = value - float(np.hypot(a - low_a, high_b - b))
        high = value + float(np.hypot(high_a - a, b - low_b))
    return Rate(value, low, high, rows)


def _ratio(measured: Measured, confidence: float, rows: int) -> Rate | None:
    value, low, high = (float(part[1, 0]) for part in compare(measured, ratio=True, sure=(1 + confidence) / 2))
    return None if np.isnan(value) else Rate(value, low, high, rows)
