"""Tests of one column's sketch against its training reference.

Each test sees what the others hardly see: the shape of the distribution, its mean, its variance, missing values, values
outside the training range, and values that training never had. The moments are of values clipped to the training
range, so that a few extreme values neither make nor hide a shift of all others; these are counted by the range test.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.stats.distributions import (
    chi_square_tail,
    f_two_sided,
    kolmogorov_tail,
    larger_share,
    normal_two_sided,
)
from mainspring.stats.reference import CATEGORICAL, ColumnReference
from mainspring.stats.sketches import COUNTS, Sketch

SHAPE, MEAN, VARIANCE, RANGE = "shape", "mean", "variance", "range"  # of numbers
SHARES, UNSEEN = "shares", "unseen"  # of texts
MISSING = "missing"
# Shares of a column's error that each test may spend. The exact tests of rare events need most of it; a test that does
# not apply leaves its share to the others.
WEIGHTS = {SHAPE: 0.06, MEAN: 0.18, VARIANCE: 0.21, MISSING: 0.29, RANGE: 0.26, SHARES: 0.3, UNSEEN: 0.3}
_FEWER = 0.1  # share of the missing values' test for fewer of them

FEWEST_ROWS = 30  # minimum for the tests with limiting distributions
FLOOR_KS = 0.005
FLOOR_SD = 0.02
FLOOR_LOG_VARIANCE = 0.04
FLOOR_OUTSIDE = 0.0005  # additional share of values outside the range, which .0004 of the training values are
FLOOR_W = 0.02  # Cohen's w; shares of which 0.01 moved have at least this
_FLOOR_W_OLD = 0.5  # where an old reference chose and counted its categories on the same rows

_FEWEST_EXPECTED = 5.0  # minimum per cell of the chi-square table (Cochran, 1954)
_BOUND = 1.645  # normal quantile of a one-sided confidence bound of 95%

_Shares = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """Result of one test. `large` means that the effect's lower confidence bound is over its floor.

    Missing and unseen values have no floor: any significant number of them is large.
    """

    name: str
    p_value: float
    large: bool = True


class Comparison(NamedTuple):
    """Distance of a column's rows from its reference, with the tests that apply.

    `ks` is the largest distance of the two cumulative distributions over the bins, missing values being one more bin;
    for categories the total variation distance, half the sum of the differences of shares. `shift_sd` is the shift of
    the mean in reference standard deviations and `variance_ratio` the ratio of the variances, both of clipped values
    and None for categories, without values, and for a constant reference. The three shares are of all rows.
    """

    ks: float = 0.0
    shift_sd: float | None = None
    variance_ratio: float | None = None
    null_share: float = 0.0
    unseen_share: float = 0.0
    outside_share: float = 0.0
    tests: tuple[Outcome, ...] = ()

    @property
    def p_value(self) -> float:
        """Smallest p-value, corrected over the column's tests by weighted Bonferroni; 1 without a test."""
        return min([1.0, *(self._corrected(test) for test in self.tests)])

    @property
    def p_large(self) -> float:
        """The same over tests of a large effect alone."""
        return min([1.0, *(self._corrected(test) for test in self.tests if test.large)])

    @property
    def strongest(self) -> str | None:
        """Name of the test with the smallest corrected p-value, one of a large effect if there is any."""
        return min(self.tests, key=lambda test: (not test.large, self._corrected(test))).name if self.tests else None

    def _corrected(self, test: Outcome) -> float:
        return test.p_value * sum(WEIGHTS[each.name] for each in self.tests) / WEIGHTS[test.name]


def compare(reference: ColumnReference, sketch: Sketch, column: str) -> Comparison:
    """Return the distance of a sketch's column from the reference whose bins it was counted in.

    Fewer than 30 values on either side are tested for missing, outside and unseen values alone. A test that needs what
    an old reference does not have is left out.
    """
    place = sketch.columns.index(column)
    counts = dict(zip(COUNTS, sketch.counts[place].tolist(), strict=True))
    bins, rows = sketch.bins[place, : len(reference.bins)].astype(np.float64), counts["rows"]
    if not reference.count or not rows:
        return Comparison()
    missing, missing_before = counts["nulls"] + counts["nans"] + counts["type_errors"], reference.count - reference.n
    n = rows - missing
    found = Comparison(
        ks=_distance(reference, bins, rows),
        null_share=missing / rows,
        unseen_share=counts["unseen"] / rows,
        outside_share=(counts["below"] + counts["above"]) / rows,
        tests=(_missing(missing, rows, missing_before, reference.count),),
    )
    if not n or not reference.n:
        return found
    if reference.kind == CATEGORICAL:
        return _categories(found, reference, bins, counts["unseen"], n)
    return _numbers(found, reference, bins, sketch.sums[place] / n, counts["below"] + counts["above"], n)


def _distance(reference: ColumnReference, bins: _Shares, rows: int) -> float:
    before = np.asarray(reference.bins) / (reference.binned or 1) * (reference.n / reference.count)
    difference = bins / rows - before
    if reference.kind == CATEGORICAL:
        return float((np.abs(difference).sum() + abs(difference.sum())) / 2.0)
    return float(np.abs(np.cumsum(difference)).max())


def _missing(missing: int, rows: int, before: int, count: int) -> Outcome:
    more = larger_share(missing, rows, before, count)
    fewer = larger_share(rows - missing, rows, count - before, count)
    return Outcome(MISSING, min(1.0, more / (1.0 - _FEWER), fewer / _FEWER))


def _numbers(
    found: Comparison, reference: ColumnReference, bins: _Shares, moments: _Shares, outside: int, n: int
) -> Comparison:
    tests = list(found.tests)
    enough = min(n, reference.n) >= FEWEST_ROWS
    if enough:
        effective = n * reference.n / (n + reference.n)
        ks = float(np.abs(np.cumsum(bins / n - np.asarray(reference.bins) / reference.n)).max())
        bound = ks - math.sqrt(math.log(20.0) / 2.0 / effective)  # Dvoretzky, Kiefer and Wolfowitz
        tests.append(Outcome(SHAPE, kolmogorov_tail(math.sqrt(effective) * ks), bound >= FLOOR_KS))
    if reference.low is not None:
        # The range's ends are training values themselves: one more value lies outside of each than was counted.
        before, of = reference.below + reference.above + 2, reference.n + 1
        bound = max(0.0, math.sqrt(outside) - _BOUND / 2.0) ** 2 / n - before / of
        tests.append(Outcome(RANGE, larger_share(outside, n, min(before, of), of), bound >= FLOOR_OUTSIDE))
    spread = reference.sd if reference.scale is None else reference.scale
    if not spread:
        return found._replace(tests=tuple(tests))
    shift, square, cube, fourth = moments.tolist()
    variance = max(0.0, square - shift * shift)
    found = found._replace(shift_sd=shift, variance_ratio=variance)
    if enough:
        # Use the larger of the two variances for the window: a window of equal values would have zero error.
        error = math.sqrt(1.0 / reference.n + max(1.0, variance) / n)
        tests.append(Outcome(MEAN, normal_two_sided(shift / error), abs(shift) - _BOUND * error >= FLOOR_SD))
    if enough and reference.kurtosis is not None:
        central = fourth - 4.0 * shift * cube + 6.0 * shift**2 * square - 3.0 * shift**4
        kurtosis = max(reference.kurtosis, central / variance**2 if variance else 0.0)
        tests.append(_variance(variance * n / (n - 1), kurtosis, n, reference.n))
    return found._replace(tests=tuple(tests))


def _variance(ratio: float, kurtosis: float, n: int, before: int) -> Outcome:
    """Test the equality of two variances.

    A sample's variance is distributed about like a chi-square variable divided by its degrees of freedom, of which
    there are fewer if the tails are heavy (Box, Biometrika 40, 1953). This holds for its upper tail: where the variance
    is that of rare values, none of them may be in the window, so a smaller variance is tested on the linear scale.
    """
    share = 2.0 / max(kurtosis - 1.0, 1e-3)
    error = math.sqrt(2.0 / (share * n) + 2.0 / (share * before))
    bound = abs(math.log(ratio)) - _BOUND * error if ratio else math.inf
    p_value = f_two_sided(ratio, share * n, share * before) if ratio > 1.0 else normal_two_sided((1.0 - ratio) / error)
    return Outcome(VARIANCE, p_value, bound >= FLOOR_LOG_VARIANCE)


def _categories(found: Comparison, reference: ColumnReference, bins: _Shares, unseen: int, n: int) -> Comparison:
    tests = list(found.tests)
    if min(n, reference.binned) >= FEWEST_ROWS:
        tests.append(_shares(np.stack([np.asarray(reference.bins, np.float64), bins]), reference))
    before, of = reference.unseen, reference.unseen_of
    if reference.known is None and not reference.others:  # an old reference with all of its categories
        before, of = float(reference.bins.count(1)), float(reference.binned)
    if before is not None:
        # One more where some are rare, since those that training happens to lack are the same in each window.
        more = before > 0
        tests.append(Outcome(UNSEEN, larger_share(unseen, n, math.ceil(before) + more, math.floor(of) + more)))
    return found._replace(tests=tuple(tests))


def _shares(table: _Shares, reference: ColumnReference) -> Outcome:
    """Test whether two rows of counts have the same shares, by Pearson's chi-square.

    Cells with an expected count below five are merged; if there are too few of them together, with the next larger.
    """
    share = table.sum(axis=1, keepdims=True) / table.sum()
    order = np.argsort(table.sum(axis=0), kind="stable")
    each = table.sum(axis=0)[order] * share.min()
    rare = max(np.count_nonzero(each < _FEWEST_EXPECTED), int(np.searchsorted(np.cumsum(each), _FEWEST_EXPECTED)) + 1)
    table = np.column_stack([table[:, order[:rare]].sum(axis=1), table[:, order[rare:]]])
    if table.shape[1] < 2:
        return Outcome(SHARES, 1.0, False)
    expected, degrees = table.sum(axis=0) * share, table.shape[1] - 1
    statistic = float(((table - expected) ** 2 / expected).sum())
    n, before = table.sum(axis=1).tolist()
    excess = statistic - degrees
    bound = excess - _BOUND * math.sqrt(2.0 * degrees + 4.0 * max(0.0, excess))
    biased = reference.known is None and reference.others > 0
    floor = (_FLOOR_W_OLD if biased else FLOOR_W) ** 2 * n * before / (n + before)
    return Outcome(SHARES, chi_square_tail(statistic, degrees), bound >= floor)
