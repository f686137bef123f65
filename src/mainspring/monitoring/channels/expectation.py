"""Seasonal expectations of statistics, and how unusual a window is against its own past.

A statistic is expected to be as in the same window of the last four weeks and in the last three windows. Deviations
are in units of those of the past: alone, and after the part that the other columns' deviations explain. On a stormy day
all delays rise together, and one column that rises alone is unusual. Only what was known before a window judges it.
Scales and tails are learnt again each week.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.monitoring.channels.statistics import RELATIONS, REPEAT, ROWS, SEPARATION, SHAPE, Measures
from mainspring.monitoring.channels.windows import WEEK, Bools, Floats, Windows
from mainspring.stats.sketches import WIDTH

FEWEST_WINDOWS = 14  # of history, before deviations, tails or thresholds are learnt
_RECENT = 3
_WEEKS = 4
_SHRINKAGE = 0.05  # of a factor with this part of a deviation's variance, half is taken out
_CLIP = 4.0  # deviations beyond this explain no other column
_AT_ONCE = 64 * WIDTH  # bins: of a thousand columns, an intermediate result would be a gigabyte
_TAIL = 0.1  # share of the past that a tail is fitted to
_LEAST_TAIL = 5
_SMALLEST, _STEEPEST = 1.0, 0.4  # bounds of a tail's start and of its mean excess
_NOTHING = 0.004  # distance that counts as none
_ALIKE = 1.25  # times a dismissed magnitude: this much is the same movement


@dataclass(frozen=True, eq=False, slots=True)
class Unusual:
    """How unusual each item is in each window.

    Attributes:
        columns: Column of each item.
        statistics: Statistic of each item.
        alone: Whether the item is judged alone, not against the other columns.
        values: Shape (windows, items); NaN where the item has no value of its own.
        expected: Of the same shape.
        magnitudes: Deviations in units of past ones, of the same shape.
        severities: Minus the log of the tail's share, of the same shape; NaN where there is too little history.
    """

    columns: tuple[str, ...]
    statistics: tuple[str, ...]
    alone: Bools
    values: Floats
    expected: Floats
    magnitudes: Floats
    severities: Floats

    def first(self, number: int) -> Unusual:
        """Return the part about the first windows."""
        parts = (self.values, self.expected, self.magnitudes, self.severities)
        return Unusual(self.columns, self.statistics, self.alone, *(each[:number] for each in parts))


@dataclass(frozen=True, slots=True)
class Dismissed:
    """A time whose alarms a person called false or expected: as much is usual from then on.

    Attributes:
        columns: Those of the alarms. What follows from them, such as relations and outputs, is usual too.
    """

    start: int
    end: int
    columns: frozenset[str]


def unusual(
    windows: Windows,
    measures: Measures,
    known: Unusual | None = None,
    dismissed: Sequence[Dismissed] = (),
    outputs: frozenset[str] = frozenset(),
) -> Unusual:
    """Judge each item of each window by the windows before it.

    Args:
        known: An earlier answer about the first of these windows, which are then not judged again.
        outputs: Columns that follow from others.
    """
    values, items, size = measures.values, measures.values.shape[1], len(windows.columns)
    past = _Past(windows)
    expectations = past.expectations(values, fixed=np.array([name == ROWS for name in measures.statistics]))
    deviations = values[:, None] - expectations
    of_bins = measures.shares.reshape(len(windows), size * WIDTH).copy()
    for begin in range(0, size * WIDTH, _AT_ONCE):
        part = of_bins[:, begin : begin + _AT_ONCE]
        of_bins[:, begin : begin + _AT_ONCE] = part - past.expectations(part)[:, -1]
    repeated = _repeated(measures.shares, windows.usual)
    rising = np.isin(measures.statistics, RELATIONS)
    blocks = _blocks(measures.statistics)
    done = 0 if known is None else len(known.values)
    magnitudes = np.full((len(windows), 2 * items + 3 * size), np.nan)
    expected = np.full_like(values, np.nan)
    if known is not None:
        magnitudes[:done], expected[:done] = known.magnitudes, known.expected[:, :items]
    for first, end in _weeks(windows):
        before = np.flatnonzero(windows.usual[:first] & np.isfinite(deviations[:first, -1]).any(axis=1))
        if end <= done or before.size < FEWEST_WINDOWS:
            continue
        fit = _Fit(deviations[before], measures.errors[before], of_bins[before], windows.rows[before], blocks, rising)
        for window in range(max(first, done), end):
            expected[window] = np.take_along_axis(expectations[window], fit.chosen[None], axis=0)[0]
            magnitudes[window, : 2 * items + 2 * size] = fit.magnitudes(
                deviations[window], measures.errors[window], of_bins[window], size, float(windows.rows[window])
            )
            magnitudes[window, 2 * items + 2 * size :] = repeated[window]
    columns = (*measures.columns * 2, *windows.columns * 3)
    statistics = (*measures.statistics * 2, *(SHAPE,) * 2 * size, *(REPEAT,) * size)
    alone = np.repeat([True, False, True], [items, items, 3 * size])
    follows = ~alone | np.isin(statistics, (*RELATIONS, SEPARATION)) | np.isin(columns, [*outputs])
    severities = _severities(magnitudes, windows, done, _floors(magnitudes, windows, dismissed, columns, follows))
    if known is not None:
        severities[:done] = known.severities
    none = np.full((len(windows), 3 * size), np.nan)
    return Unusual(
        columns,
        statistics,
        alone,
        np.concatenate([values, values, none], axis=1),
        np.concatenate([expected, expected, none], axis=1),
        magnitudes,
        severities,
    )


class _Past:
    """The windows that an expectation is made of: the same one of the last weeks, and the last ones."""

    def __init__(self, windows: Windows) -> None:
        week = max(WEEK // windows.width, 1)
        self._season = [week * number for number in range(1, _WEEKS + 1)]
        self._recent = list(range(1, _RECENT + 1))
        self._windows = windows

    def expectations(self, values: Floats, fixed: Bools | None = None) -> Floats:
        """Return expectations of values of shape (windows, items), in shape (windows, kinds, items).

        The last kind is the mean of season and recent past. Where `fixed` is given, the first is the median of all.

        Args:
            fixed: Items whose level in training says nothing about live traffic.
        """
        shifted = [self._shifted(values, lag, fixed) for lag in (*self._season, *self._recent)]
        season, recent = _mean(shifted[: len(self._season)]), _mean(shifted[len(self._season) :])
        blend = np.where(np.isnan(season), recent, np.where(np.isnan(recent), season, (season + recent) / 2.0))
        return np.stack([blend] if fixed is None else [_median(shifted), blend], axis=1)

    def _shifted(self, values: Floats, lag: int, fixed: Bools | None) -> Floats:
        before = np.full_like(values, np.nan)
        if lag >= len(values):
            return before
        windows = self._windows
        before[lag:] = values[:-lag]
        before[lag:][~windows.usual[:-lag]] = np.nan
        if fixed is not None and fixed.any():
            training = windows.training & ~windows.steady
            known = (windows.steady | windows.usual)[:-lag] & ~(training[:-lag] & ~training[lag:])
            before[lag:, fixed] = values[:-lag, fixed]
            before[np.ix_(np.flatnonzero(~known) + lag, fixed)] = np.nan
        return before


def _mean(values: Sequence[Floats]) -> Floats:
    stacked = np.stack(values)
    number = np.isfinite(stacked).sum(axis=0)
    mean: Floats = np.where(number > 0, np.nansum(stacked, axis=0) / np.maximum(number, 1), np.nan)
    return mean


def _median(values: Sequence[Floats]) -> Floats:
    """Return the median without NaN; much quicker than NumPy's."""
    ordered = np.sort(np.stack(values), axis=0)  # NaN are last
    number = np.isfinite(ordered).sum(axis=0)
    lower, upper = np.maximum(number - 1, 0) // 2, number // 2
    pick = [np.take_along_axis(ordered, np.minimum(each, len(values) - 1)[None], axis=0)[0] for each in (lower, upper)]
    median: Floats = np.where(number > 0, (pick[0] + pick[1]) / 2.0, np.nan)
    return median


def _blocks(statistics: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    """Return the items of each statistic: those that explain each other. The number of rows goes with the nulls."""
    names = np.array([statistics[0] if name == ROWS else name for name in statistics])
    return [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]


def _repeated(shares: Floats, usual: Bools) -> Floats:
    """Return minus twice the log of the distance from the window before, shape (windows, columns).

    Twice, so that the least mean excess of a tail suits it: ordinary days differ by a tenth of a log, a repeated day is
    two logs nearer.
    """
    plain = np.sin(shares / 2.0) ** 2
    distances = np.full(plain.shape[:2], np.nan)
    distances[1:] = np.abs(plain[1:] - plain[:-1]).sum(axis=2) / 2.0
    distances[1:][~usual[:-1]] = np.nan
    return -2.0 * np.log(distances + _NOTHING)


def _weeks(windows: Windows) -> list[tuple[int, int]]:
    """Return first and end of the windows of each week; weeks are the calendar's, so that a pass repeats the last."""
    week = windows.starts // max(WEEK, windows.width)
    firsts = np.flatnonzero(np.diff(week, prepend=-1))
    return list(zip(firsts.tolist(), [*firsts.tolist(), len(week)][1:], strict=True))


class _Fit:
    """Scales of deviations, and how columns explain each other, learnt from past windows."""

    def __init__(
        self,
        deviations: Floats,
        errors: Floats,
        of_bins: Floats,
        rows: Floats,
        blocks: Sequence[npt.NDArray[np.intp]],
        rising: Bools,
    ) -> None:
        self._rising = rising
        mean = [np.nan_to_num(_mean(list(np.abs(deviations[:, kind])))) for kind in (0, 1)]
        self.chosen = np.argmin(mean, axis=0)
        mine = np.take_along_axis(deviations, self.chosen[None, None], axis=1)[:, 0]
        self._scale = np.maximum(_quantile(np.abs(mine), 0.9) / 1.64, np.median(errors, axis=0))
        parts = [of_bins[:, begin : begin + _AT_ONCE] for begin in range(0, of_bins.shape[1], _AT_ONCE)]
        bins = np.concatenate([_quantile(np.abs(part), 0.95) for part in parts] or [np.zeros(0)])
        self._bins = np.maximum(bins, _sampling(float(np.median(rows))))
        scaled = np.clip(np.nan_to_num(mine / self._scale), -_CLIP, _CLIP)
        self._blocks = [(block, *_factors(scaled[:, block])) for block in blocks]

    def magnitudes(self, deviations: Floats, errors: Floats, of_bins: Floats, columns: int, rows: float) -> Floats:
        """Return the magnitudes of a window: of each item alone, of each given the others, and of the columns' bins."""
        mine = np.take_along_axis(deviations, self.chosen[None], axis=0)[0]
        alone = mine / np.maximum(self._scale, errors)
        given = np.zeros_like(alone)
        for block, vectors, weights, left in self._blocks:
            plain = np.nan_to_num(alone[block])
            clipped = np.clip(plain, -_CLIP, _CLIP)
            explained = ((clipped @ vectors.T) * weights) @ vectors
            given[block] = (clipped - explained) / left + plain - clipped
        given[np.isnan(alone)] = np.nan
        bins = np.abs(of_bins / np.maximum(self._bins, _sampling(rows))).reshape(columns, WIDTH)
        none = np.isnan(bins).any(axis=1)
        whole = np.sqrt(np.mean(np.square(bins), axis=1))
        alone, given = (np.where(self._rising, np.maximum(each, 0.0), np.abs(each)) for each in (alone, given))
        return np.concatenate([alone, given, whole, np.where(none, np.nan, bins.max(axis=1))])


def _sampling(rows: float) -> float:
    """Return two sampling errors of a transformed share."""
    return 2.0 / math.sqrt(max(rows, 1.0))


def _factors(scaled: Floats) -> tuple[Floats, Floats, Floats]:
    """Return factors, their weights, and the part of each item's variance that a ridge on the other items leaves."""
    _, values, vectors = np.linalg.svd(scaled / np.sqrt(len(scaled)), full_matrices=False)
    weights = values**2 / (values**2 + _SHRINKAGE)
    return vectors, weights, 1.0 - (vectors.T**2 * weights).sum(axis=1)


def _quantile(values: Floats, at: float) -> Floats:
    """Return a quantile over the windows without NaN, 0 where all are; much quicker than NumPy's."""
    ordered = np.sort(values, axis=0)
    number = np.isfinite(ordered).sum(axis=0)
    place = at * np.maximum(number - 1, 0)
    lower = np.floor(place).astype(np.intp)
    upper = np.minimum(lower + 1, np.maximum(number - 1, 0))
    pick = [np.take_along_axis(ordered, each[None], axis=0)[0] for each in (lower, upper)]
    quantile: Floats = np.where(number > 0, pick[0] + (place - lower) * (pick[1] - pick[0]), 0.0)
    return quantile


def _floors(
    magnitudes: Floats, windows: Windows, dismissed: Sequence[Dismissed], columns: Sequence[str], follows: Bools
) -> Floats:
    """Return the magnitudes that are usual in each window by the verdicts about windows before it."""
    floors = np.zeros_like(magnitudes)
    for each in dismissed:
        during = (windows.starts < each.end) & (windows.starts + windows.width > each.start)
        concerned = follows | np.isin(columns, [*each.columns])
        place = np.ix_(np.flatnonzero(during), np.flatnonzero(concerned))
        floors[place] = np.maximum(floors[place], _ALIKE * np.nan_to_num(magnitudes[place]))
    floors[1:] = np.maximum.accumulate(floors, axis=0)[:-1]
    floors[:1] = 0.0
    return floors


def _severities(magnitudes: Floats, windows: Windows, done: int, floors: Floats) -> Floats:
    """Return minus the log of the share of past magnitudes beyond each, by exponential tails fitted to the past.

    Magnitudes outside the past's largest tenth have 0, those without history NaN.

    Args:
        floors: Least starts of the tails, shape (windows, items).
    """
    found = np.full_like(magnitudes, np.nan)
    for first, end in _weeks(windows):
        past = magnitudes[:first][windows.usual[:first]]
        number = np.isfinite(past).sum(axis=0)
        if end <= done or number.max(initial=0) < FEWEST_WINDOWS:
            continue
        ordered = -np.sort(-past, axis=0)  # the largest first, NaN last
        size = np.maximum((number * _TAIL).astype(np.intp), _LEAST_TAIL)
        start = np.take_along_axis(ordered, np.minimum(size, len(ordered) - 1)[None], axis=0)[0]
        beyond = np.where(np.arange(len(ordered))[:, None] < size, ordered - start, 0.0).sum(axis=0) / size
        start, excess = np.maximum(floors[first:end], np.maximum(start, _SMALLEST)), np.maximum(beyond, _STEEPEST)
        severity = np.log(np.maximum(number, 1) / size) + (magnitudes[first:end] - start) / excess
        tail = np.where(magnitudes[first:end] > start, np.maximum(np.nan_to_num(severity), 0.0), 0.0)
        found[first:end] = np.where(number >= FEWEST_WINDOWS, tail, np.nan)
    return found
