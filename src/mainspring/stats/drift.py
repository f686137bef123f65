"""Drift tests on counts, and rules for an alert.

A numeric column has two tests: Kolmogorov-Smirnov on the reference's bins (shape), and a z-test of the mean, which
detects a small overall shift sooner. A categorical column has a chi-square test. Missing values (null, NaN) are one
more bin, so a column that goes missing drifts too. With a million rows significance alone means little: an effect must
also exceed a floor, and a second consecutive window must agree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.stats.distributions import chi_square_tail, kolmogorov_tail, normal_two_sided
from mainspring.stats.reference import CATEGORICAL, ColumnReference, Counts, Reference

Q_LIMIT = 0.01
FLOOR_SD = 0.03
FLOOR_KS = 0.01
FLOOR_VARIATION = 0.01
FEWEST_ROWS = 30  # minimum for the tests' limiting distributions
_FEWEST_EXPECTED = 5.0  # minimum per cell of the chi-square table (Cochran, 1954)


class Comparison(NamedTuple):
    """Distance of a column from its reference, and its p-value.

    `ks` is the largest distance of the two cumulative distributions over the bins; for categories the total variation
    distance, half the sum of the differences of shares. `shift_sd` is the shift of the mean in reference standard
    deviations, None for categories, without values, and for a constant reference.
    """

    ks: float
    shift_sd: float | None
    p_value: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the drift test of one column in one window."""

    column: str
    ks: float
    shift_sd: float | None
    null_share: float
    p_value: float
    q_value: float  # Benjamini-Hochberg over the columns tested together
    drifted: bool  # in this window: q below the limit, and the effect at or above its floor
    alert: bool  # drifted in this window and in the previous one


def compare(reference: ColumnReference, counts: Counts) -> Comparison:
    """Return distance and p-value of counts against the reference that defines their bins.

    The p-value is Bonferroni-corrected over the column's tests; 1 with fewer than 30 rows on either side.
    """
    missing = (reference.nulls + reference.nans) * (reference.binned / reference.n if reference.n else 1.0)
    before = np.array([*reference.bins, missing], dtype=np.float64)
    after = np.array([*counts.bins, counts.nulls + counts.nans], dtype=np.float64)
    if not reference.count or not counts.rows:
        return Comparison(0.0, None, 1.0)
    enough = min(reference.count, counts.rows) >= FEWEST_ROWS
    difference = after / counts.rows - before / before.sum()
    if reference.kind == CATEGORICAL:
        p_value = _chi_square(before, after) if enough else 1.0
        return Comparison(float(np.abs(difference).sum() / 2.0), None, p_value)
    ks = float(np.abs(np.cumsum(difference)[:-1]).max())
    effective = reference.count * counts.rows / (reference.count + counts.rows)
    tests = [kolmogorov_tail(math.sqrt(effective) * ks)]
    shift = None
    if reference.sd > 0.0 and reference.n and counts.n:
        shift = (counts.mean - reference.mean) / reference.sd
        # Use the larger of the two variances for the window: a window of equal values would have zero error.
        error = math.sqrt(reference.sd**2 / reference.n + max(reference.sd, counts.sd) ** 2 / counts.n)
        tests.append(normal_two_sided((counts.mean - reference.mean) / error))
    return Comparison(ks, shift, min(1.0, len(tests) * min(tests)) if enough else 1.0)


def _chi_square(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    """Return the p-value of Pearson's test that two rows of counts have the same shares.

    Cells with an expected count below five are merged.
    """
    table = np.stack([before, after])
    share = table.sum(axis=1, keepdims=True) / table.sum()
    rare = (table.sum(axis=0) * share.min()) < _FEWEST_EXPECTED
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=0) * share
    return chi_square_tail(float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Return q-values in the same order: the smallest false discovery rate at which each p-value is a discovery.

    Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995).
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")[::-1]
    ranks = np.arange(values.size, 0, -1)
    q = np.empty_like(values)
    q[order] = np.minimum.accumulate(np.minimum(1.0, values[order] * values.size / ranks)) if values.size else []
    return [float(value) for value in q]


def judge(
    reference: Reference,
    counts: Mapping[str, Counts],
    drifted_before: Collection[str] = (),
    *,
    q_limit: float = Q_LIMIT,
) -> list[Verdict]:
    """Return one result per column of `counts`, in its order.

    Args:
        counts: Column -> counts; columns that the reference lacks are skipped.
        drifted_before: Columns that drifted in the previous window; only these can alert.
    """
    judged = [name for name in counts if name in reference.columns]
    comparisons = [compare(reference.columns[name], counts[name]) for name in judged]
    q_values = benjamini_hochberg([comparison.p_value for comparison in comparisons])
    verdicts = []
    for name, comparison, q_value in zip(judged, comparisons, q_values, strict=True):
        drifted = q_value < q_limit and over_floor(reference.columns[name].kind, comparison)
        verdicts.append(
            Verdict(
                column=name,
                ks=comparison.ks,
                shift_sd=comparison.shift_sd,
                null_share=counts[name].null_share,
                p_value=comparison.p_value,
                q_value=q_value,
                drifted=drifted,
                alert=drifted and name in drifted_before,
            )
        )
    return verdicts


def over_floor(kind: str, comparison: Comparison) -> bool:
    """Return whether the effect is large enough to report."""
    if kind == CATEGORICAL:
        return comparison.ks >= FLOOR_VARIATION
    return comparison.ks >= FLOOR_KS or abs(comparison.shift_sd or 0.0) >= FLOOR_SD
