"""Decision thresholds: the threshold of lowest cost, and the metrics of its decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid, InvalidData
from mainspring.stats.metrics import DECIDED, Metric
from mainspring.stats.ranking import pair

THRESHOLD = "threshold"  # key in a manifest's `extra`


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Costs of wrong decisions, in a unit of the project's choice. A correct decision costs nothing.

    Raises:
        Invalid: A cost is not a positive finite number.
    """

    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        for name in ("false_positive", "false_negative"):
            value = getattr(self, name)
            fine = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not fine or not math.isfinite(value) or value <= 0:
                raise Invalid(f"A {name.replace('_', ' ')} costs {value!r}.", fix="use a positive number.")

    def choose(self, y: npt.ArrayLike, score: npt.ArrayLike) -> float:
        """Return the threshold of lowest cost on these rows; the highest one among equals.

        It lies half way between two scores, so that rounding does not move a score across it.

        Args:
            y: Shape (rows,), 0 and 1.
            score: Shape (rows,), probabilities of 1.

        Raises:
            InvalidData: The rows have only one class, or a score is NaN.
        """
        truth, scores = pair(y, score)
        positive = truth.astype(np.bool_)
        if positive.all() or not positive.any() or np.isnan(scores).any():
            raise InvalidData(
                f"No threshold can be chosen on {positive.size:,} rows with {int(positive.sum()):,} positives.",
                fix="choose a longer time range, so that the validation rows have both classes.",
            )
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
        # number of flagged rows at each possible threshold, from none to all
        flagged = np.r_[0, last + 1]
        hits = np.r_[0, np.cumsum(positive[order])[last]]
        costs = self.false_positive * (flagged - hits) + self.false_negative * (hits[-1] - hits)
        at = int(np.argmin(costs))
        above = ranked[flagged[at] - 1] if at else max(1.0, np.nextafter(ranked[0], np.inf))
        below = ranked[flagged[at]] if flagged[at] < ranked.size else min(0.0, ranked[-1])
        middle = float((above + below) / 2)
        return middle if middle > below else float(above)

    def metrics(self, threshold: float) -> tuple[Metric, ...]:
        """Return the metrics of decisions by a threshold: mean cost per row, precision and recall.

        A row is flagged if its score is at least the threshold. Precision is NaN if no row is flagged, recall if no row
        is positive, and all are NaN if a score is.
        """

        def counted(y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[int, int, int, int]:
            truth, scores = pair(y, score)
            if np.isnan(scores).any():
                return 0, 0, 0, 0
            positive, flagged = truth.astype(np.bool_), scores >= threshold
            hits = int((positive & flagged).sum())
            return hits, int(flagged.sum()) - hits, int(positive.sum()) - hits, positive.size

        def cost(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
            _, wrong, missed, rows = counted(y, score)
            return (self.false_positive * wrong + self.false_negative * missed) / rows if rows else math.nan

        def precision(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
            hits, wrong, _, _ = counted(y, score)
            return hits / (hits + wrong) if hits + wrong else math.nan

        def recall(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
            hits, _, missed, _ = counted(y, score)
            return hits / (hits + missed) if hits + missed else math.nan

        functions = {"cost": cost, "precision": precision, "recall": recall}
        return tuple(Metric(name, functions[name], higher) for name, higher in DECIDED.items())

    def recorded(self, threshold: float) -> dict[str, float]:
        """Return the record of a threshold in a manifest, stored under `THRESHOLD`."""
        return {"value": threshold, "false_positive": self.false_positive, "false_negative": self.false_negative}


def decided(extra: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return the decision metrics of the threshold recorded in a manifest's `extra`; none if there is no threshold."""
    kept = extra.get(THRESHOLD)
    return () if kept is None else _of(kept).metrics(kept["value"])


def _of(kept: Mapping[str, float]) -> Costs:
    return Costs(false_positive=kept["false_positive"], false_negative=kept["false_negative"])
