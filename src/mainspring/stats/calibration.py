"""Calibration error: distance between predicted probabilities and observed frequencies."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mainspring.stats.ranking import pair

BINS = 10
_ROWS_A_BIN = 50


def expected_calibration_error(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the mean distance between predicted probability and observed frequency, in [0, 1]; NaN without rows.

    Rows are grouped by predicted probability into ten bins of equal size (fewer below 500 rows), and the distances
    weighted by rows (Naeini, Cooper and Hauskrecht, AAAI 2015). For several classes, the probability is that of the
    most likely class, and the outcome whether it is the true one. Noise only ever increases the error.
    """
    truth, scores = pair(y, score)
    if scores.ndim == 2:
        truth, scores = scores.argmax(axis=1) == truth, scores.max(axis=1, initial=0.0)
    if not truth.size or np.isnan(scores).any():
        return math.nan
    bins = max(1, min(BINS, truth.size // _ROWS_A_BIN))
    edges = np.quantile(scores, np.arange(1, bins) / bins, method="inverted_cdf")
    place = np.searchsorted(edges, scores, side="left")
    return float(np.abs(np.bincount(place, scores - truth.astype(np.float64), bins)).sum() / truth.size)
