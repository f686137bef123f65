"""Whether a column still looks as it did: tests on counts, and when to say so.

A numeric column has two tests: Kolmogorov and Smirnov's on the reference's bins (shape), and a z-test of the mean,
which sees a small shift of the whole sooner. A categorical one has a chi-square test. Missing values (null, NaN) are
one more bin, so a column that goes missing drifts too. Significance alone is no news with a million rows: an effect
must also be over a floor, and a second window in a row must agree.
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
FEWEST_ROWS = 30  # below, the tests' limiting distributions say little
_FEWEST_EXPECTED = 5.0  # in a cell of the chi-square table (Cochran, 1954)


class Comparison(NamedTuple):
    """How far a column is from its reference, and how surprising that is.

    `ks` is the largest distance of the two cumulative distributions over the bins; for categories the total variation
    distance, half the sum of the differences of shares. `shift_sd` is the mean's shift in reference standard
    deviations, None for categories, without values, and where the reference is constant.
    """

    ks: float
    shift_sd: float | None
    p_value: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one window says of one column."""

    column: str
    ks: float
    shift_sd: float | None
    null_share: float
    p_value: float
    q_value: float  # Benjamini-Hochberg over the columns judged together
    drifted: bool  # in this window: q under the limit, and an effect at least at its floor
    alert: bool  # drifted in this window and in the one before


def compare(reference: ColumnReference, counts: Counts) -> Comparison:
    """Return distance and p-value of counts against the reference whose bins they were counted over.

    The p-value is Bonferroni's over the column's tests; 1 with fewer than 30 rows on either side.
    """
    before = np.array([*reference.bins, reference.nulls + reference.nans], dtype=np.float64)
    after = np.array([*counts.bins, counts.nulls + counts.nans], dtype=np.float64)
    if not reference.count or not counts.rows:
        return Comparison(0.0, None, 1.0)
    enough = min(reference.count, counts.rows) >= FEWEST_ROWS
    difference = after / counts.rows - before / reference.count
    if reference.kind == CATEGORICAL:
        p_value = _chi_square(before, after) if enough else 1.0
        return Comparison(float(np.abs(difference).sum() / 2.0), None, p_value)
    ks = float(np.abs(np.cumsum(difference)[:-1]).max())
    effective = reference.count * counts.rows / (reference.count + counts.rows)
    tests = [kolmogorov_tail(math.sqrt(effective) * ks)]
    shift = None
    if reference.sd > 0.0 and reference.n and counts.n:
        shift = (counts.mean - reference.mean) / reference.sd
        # The larger variance of the two stands for the window's: a window of equal values is no certainty.
        error = math.sqrt(reference.sd**2 / reference.n + max(reference.sd, counts.sd) ** 2 / counts.n)
        tests.append(normal_two_sided((counts.mean - reference.mean) / error))
    return Comparison(ks, shift, min(1.0, len(tests) * min(tests)) if enough else 1.0)


def _chi_square(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    """Return the p-value of Pearson's test that two rows of counts have the same shares.

    Cells that expect fewer than five are counted together.
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
    """Return q-values: the smallest false discovery rate at which each p-value would be a discovery, in the same order.

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
    """Return one verdict a column of `counts`, in its order.

    Args:
        counts: By column; a column that the reference lacks is left out.
        drifted_before: The columns that had drifted in the window before: those alone can alert.
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
    """Return whether the effect is large enough to be worth saying."""
    if kind == CATEGORICAL:
        return comparison.ks >= FLOOR_VARIATION
    return comparison.ks >= FLOOR_KS or abs(comparison.shift_sd or 0.0) >= FLOOR_SD
