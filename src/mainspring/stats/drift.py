"""Drift of the columns of a window from their training reference, and rules for an alert.

Each column has the tests of `column_tests`, combined after Bonferroni, and the columns are tested together after
Benjamini and Hochberg. With a million rows significance alone means little: the effect must also be over a floor with
confidence, and a second consecutive window must agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from mainspring.stats.column_tests import compare
from mainspring.stats.reference import Reference
from mainspring.stats.sketches import Sketch

Q_LIMIT = 0.01


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the drift tests of one column in one window; see `column_tests.Comparison` for the distances."""

    column: str
    ks: float
    shift_sd: float | None
    null_share: float
    p_value: float
    q_value: float  # Benjamini-Hochberg over the columns tested together
    drifted: bool  # in this window: q below the limit by tests whose effect is large
    alert: bool  # drifted in this window and in the previous one
    test: str | None = None  # the strongest: shape, mean, variance, range, shares, unseen, missing
    variance_ratio: float | None = None
    unseen_share: float = 0.0
    outside_share: float = 0.0


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
    reference: Reference, sketch: Sketch, drifted_before: Collection[str] = (), *, q_limit: float = Q_LIMIT
) -> list[Verdict]:
    """Return one result per column of `sketch`, in its order.

    Args:
        sketch: Of the window, made by a ruler of `reference`; columns that the reference lacks are skipped.
        drifted_before: Columns that drifted in the previous window; only these can alert.
    """
    judged = [name for name in sketch.columns if name in reference.columns]
    found = [compare(reference.columns[name], sketch, name) for name in judged]
    q_values = benjamini_hochberg([each.p_value for each in found])
    q_large = benjamini_hochberg([each.p_large for each in found])
    verdicts = []
    for name, each, q_value, large in zip(judged, found, q_values, q_large, strict=True):
        drifted = large < q_limit
        verdicts.append(
            Verdict(
                column=name,
                ks=each.ks,
                shift_sd=each.shift_sd,
                null_share=each.null_share,
                p_value=each.p_value,
                q_value=q_value,
                drifted=drifted,
                alert=drifted and name in drifted_before,
                test=each.strongest,
                variance_ratio=each.variance_ratio,
                unseen_share=each.unseen_share,
                outside_share=each.outside_share,
            )
        )
    return verdicts
