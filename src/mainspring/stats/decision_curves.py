"""Curves of a binary model's decisions: ROC, precision and recall, calibration, and the confusion at a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import InvalidData
from mainspring.stats.ranking import pair

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_EVEN = 1001  # thresholds at equal distances, 0.001 apart
_Z = 1.959964  # two-sided 95 %
_QUANTILES = 400  # further ones at quantiles of the scores, so that the curves have no gaps where scores crowd


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows by decision and truth; a row is flagged if its score is at least the threshold."""

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        """Share of positives among the flagged rows; NaN if none is flagged."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the positives that are flagged; NaN without a positive."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the negatives that are not flagged; NaN without a negative."""
        return _share(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def flagged(self) -> float:
        """Share of all rows that is flagged; NaN without rows."""
        flagged = self.true_positives + self.false_positives
        return _share(flagged, flagged + self.false_negatives + self.true_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where undefined."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoints:
    """Exact counts of flagged rows at up to 1,403 thresholds.

    Attributes:
        thresholds: Shape (points,), ascending.
        positives: Shape (points,): positive rows with a score of at least the threshold.
        negatives: Shape (points,): negative rows of that kind.
        of_positives: Number of all positive rows.
        of_negatives: Number of all negative rows.
    """

    thresholds: Floats
    positives: Ints
    negatives: Ints
    of_positives: int
    of_negatives: int

    @property
    def roc(self) -> tuple[Floats, Floats]:
        """Shares of flagged negatives and of flagged positives, from (0, 0) to (1, 1)."""
        flagged = (self.negatives / max(1, self.of_negatives), self.positives / max(1, self.of_positives))
        x, y = (np.r_[0.0, share[::-1], 1.0] for share in flagged)
        return x, y

    @property
    def precision_recall(self) -> tuple[Floats, Floats]:
        """Recall and precision at the thresholds that flag a row, by growing recall."""
        some = (self.positives + self.negatives) > 0
        positives, negatives = self.positives[some][::-1], self.negatives[some][::-1]
        return positives / max(1, self.of_positives), positives / (positives + negatives)

    def at(self, threshold: float) -> Confusion:
        """Return the confusion at the nearest of `thresholds`, which it names."""
        place = int(np.abs(self.thresholds - threshold).argmin())
        hits, wrong = int(self.positives[place]), int(self.negatives[place])
        return Confusion(
            float(self.thresholds[place]), hits, wrong, self.of_positives - hits, self.of_negatives - wrong
        )


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows of about one score: their mean score, and the share of positives with its 95 % interval."""

    score: float
    rate: float
    low: float
    high: float
    rows: int


def operating_points(y: npt.ArrayLike, score: npt.ArrayLike, *, also: float = 0.5) -> OperatingPoints:
    """Return the counts of decisions at thresholds 0.001 apart, at quantiles of the scores, and at `also`.

    Args:
        y: Shape (rows,), 0 and 1.
        score: Shape (rows,), probabilities of 1.

    Raises:
        InvalidData: There is no row, or a score is NaN.
    """
    truth, scores = pair(y, score)
    if not scores.size or np.isnan(scores).any():
        raise InvalidData(f"{scores.size:,} scores, {int(np.isnan(scores).sum()):,} of them NaN, have no curve.")
    positive = truth.astype(np.bool_)
    quantiles = np.quantile(scores, np.linspace(0, 1, _QUANTILES), method="inverted_cdf")
    thresholds = np.unique(np.r_[np.linspace(0.0, 1.0, _EVEN), quantiles, also])
    of_class = [np.sort(scores[positive]), np.sort(scores[~positive])]
    positives, negatives = (ranked.size - np.searchsorted(ranked, thresholds, side="left") for ranked in of_class)
    return OperatingPoints(thresholds, positives, negatives, of_class[0].size, of_class[1].size)


def calibration_bins(y: npt.ArrayLike, score: npt.ArrayLike, *, bins: int = 15) -> tuple[CalibrationBin, ...]:
    """Return the calibration curve over bins of about equal rows, by growing score; none without rows.

    Rows of equal scores are never parted. The interval is Wilson's (J. Am. Stat. Assoc. 22, 1927).
    """
    truth, scores = pair(y, score)
    known = ~np.isnan(scores)
    truth, scores = truth[known].astype(np.float64), scores[known]
    if not scores.size:
        return ()
    edges = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="inverted_cdf"))
    place = np.searchsorted(edges, scores, side="left")
    rows = np.bincount(place)
    sums, hits = np.bincount(place, scores), np.bincount(place, truth)
    found = []
    for count, total, positives in zip(rows.tolist(), sums.tolist(), hits.tolist(), strict=True):
        if count:
            low, high = _wilson(positives, count)
            found.append(CalibrationBin(total / count, positives / count, low, high, count))
    return tuple(found)


def _wilson(positives: float, rows: int) -> tuple[float, float]:
    z = _Z
    share, spread = positives / rows, z * z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
