"""Thresholds that keep to a budget of alarms, whatever the scores' distribution is and however it drifts.

Adaptive conformal inference (Gibbs and Candes, arXiv 2106.00170): the threshold is a quantile of the past scores. Its
level falls after each alarm and rises otherwise, so that the share of alarms tends to the budget. A score that is
larger than all before is an alarm even where the budget is spent: false alarms would hide the fault after them.
"""

from __future__ import annotations

import numpy as np

from mainspring.monitoring.channels.windows import Bools, Floats

FEWEST_SCORES = 14
STEP = 0.35  # by which the level moves after an alarm, in units of the budget
LEAST = 1.0  # threshold of scores that never varied


def thresholds(scores: Floats, usual: Bools, share: float, *, step: float = STEP) -> Floats:
    """Return the threshold of each window, shape (windows,), each by the scores before it; infinite with too few.

    Args:
        scores: Shape (windows,); NaN where a window was not judged.
        usual: Windows that serve as history: the scores and alarms of others move nothing.
        share: Share of usual windows that may raise an alarm.
    """
    found = np.full(len(scores), np.inf)
    level = share
    past: list[float] = []
    for window, score in enumerate(scores.tolist()):
        judged = usual[window] and not np.isnan(score)
        if len(past) >= FEWEST_SCORES:
            found[window] = max(np.quantile(past, 1.0 - max(level, 0.0)), LEAST)
            if judged:
                level = min(max(level + step * share * (share - (score > found[window])), -share), 1.0)
        if judged:
            past.append(score)
    return found
