"""Thresholds that keep to a budget of alarms, whatever the scores' distribution is and however it drifts.

Adaptive conformal inference (Gibbs and Candes, arXiv 2106.00170): the threshold is a quantile of the past scores. Its
level falls after each alarm and rises otherwise, so that the share of alarms tends to the budget. A score that is
larger than all before is an alarm even where the budget is spent: false alarms would hide the fault after them. The
alarms of the last windows are no such record: a fault that lasts is as large on its second day as on its first.

The budget of an endpoint, `ms.Monitor(alarms_per_week=)`, is shared: `WHOLE` goes to the days of the whole traffic
(surprise and joint together), `SEGMENTS` to segments, `WEEKLY` to the classifier of a week's rows, and `ATTRIBUTIONS`
to the channel of that name. Where there are both declared and found segments, each kind has half of their part, and
declared ones divide theirs evenly. On a day on which the whole traffic alarms, segments are judged by its threshold,
since such a day costs no further alarm. Each version has the part of the budget that it has of a day's traffic.
Contract and harm have budgets of their own.
"""

from __future__ import annotations

import numpy as np

from mainspring.monitoring.channels.windows import Bools, Floats

WHOLE, SEGMENTS, WEEKLY, ATTRIBUTIONS = 0.7, 0.2, 0.05, 0.05  # shares of an endpoint's budget
FEWEST_SCORES = 14
STEP = 0.35  # by which the level moves after an alarm, in units of the budget
LEAST = 1.0  # threshold of scores that never varied
_LASTING = 7  # windows in which alarms are no record


def thresholds(scores: Floats, usual: Bools, share: float | Floats, *, step: float = STEP) -> Floats:
    """Return the threshold of each window, shape (windows,), each by the scores before it; infinite with too few.

    Args:
        scores: Shape (windows,); NaN where a window was not judged.
        usual: Windows that serve as history: the scores and alarms of others move nothing.
        share: Share of usual windows that may raise an alarm; one for all windows, or of shape (windows,).
    """
    found = np.full(len(scores), np.inf)
    shares = np.broadcast_to(np.asarray(share, np.float64), len(scores)).tolist()
    factor, most = 1.0, 1.0 / max(*shares, 1e-9, 0.0)  # of the share
    past: list[float] = []
    alarms: dict[int, int] = {}  # place in the past -> window, of the last alarms
    for window, score in enumerate(scores.tolist()):
        judged = usual[window] and not np.isnan(score)
        if len(past) >= FEWEST_SCORES:
            level = min(max(factor * shares[window], 0.0), 1.0)
            found[window] = max(np.quantile(past, 1.0 - level), LEAST)
            alarms = {place: at for place, at in alarms.items() if at >= window - _LASTING}
            if alarms:
                record = max((each for place, each in enumerate(past) if place not in alarms), default=LEAST)
                found[window] = max(min(found[window], record), LEAST)
            if judged:
                alarm = score > found[window]
                factor = min(max(factor + step * (shares[window] - alarm), -1.0), most)
                if alarm:
                    alarms[len(past)] = window
        if judged:
            past.append(score)
    return found
