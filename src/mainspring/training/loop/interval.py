"""Interval of checkpoints: what they cost against what a failure costs.

Sources: J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17(9), 1974; J. T. Daly, A
higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22(3), 2006, equation 37.
"""

from __future__ import annotations

import math

from mainspring.core.errors import Invalid
from mainspring.training.runs.failures import Failures

FAILURE_EVERY_H = 24.0  # of one machine, where nothing else is known
FIRST_S = 30.0  # until the first checkpoint, whose cost is not known yet
COST_SHARE = 50  # minimum interval, in multiples of a checkpoint's cost: they cost at most 2 % of the time


def best_interval_s(cost_s: float, failure_every_s: float) -> float:
    """Return the seconds of work between checkpoints with which a training is expected to end first (Daly).

    Args:
        cost_s: Seconds by which a checkpoint delays the training.
        failure_every_s: Mean time between failures.
    """
    if cost_s >= 2 * failure_every_s:
        return failure_every_s
    ratio = math.sqrt(cost_s / (2 * failure_every_s))
    return math.sqrt(2 * cost_s * failure_every_s) * (1 + ratio / 3 + ratio**2 / 9) - cost_s


class Interval:
    """Seconds between checkpoints: as given, or from their measured cost and the failures.

    Args:
        every_s: Seconds between checkpoints, at least; by default they follow.
        failure_every_h: Hours between two failures of the training, on average; by default 24 for each machine.
        machines: Machines of the training.
        seen: Failures of trainings so far, by which the 24 hours are corrected.

    Raises:
        Invalid: `failure_every_h` is not positive.
    """

    def __init__(
        self,
        every_s: float | None = None,
        failure_every_h: float | None = None,
        *,
        machines: int = 1,
        seen: Failures | None = None,
    ) -> None:
        seen = seen or Failures()
        hours = seen.every_h(FAILURE_EVERY_H) / machines if failure_every_h is None else failure_every_h
        if not 0 < hours < math.inf:
            raise Invalid(
                f"failure_every_h={hours!r} is not a number of hours.", fix="give the hours between two failures."
            )
        self._every_s, self._failure_every_s = every_s, hours * 3600
        self._seen = f" ({seen.count} in {seen.hours:.3g} h so far)" if seen.count and failure_every_h is None else ""

    def seconds(self, cost_s: float | None) -> float:
        """Return the seconds after the last checkpoint at which the next is due, by its cost if one was written."""
        if cost_s is None:
            return FIRST_S if self._every_s is None else self._every_s
        wanted = best_interval_s(cost_s, self._failure_every_s) if self._every_s is None else self._every_s
        return max(wanted, COST_SHARE * cost_s)

    def explained(self, cost_s: float) -> str:
        """Return the interval and the numbers that it follows from."""
        text = f"every {_shown(self.seconds(cost_s))}: a checkpoint costs {_shown(cost_s)}"
        if self.seconds(cost_s) == COST_SHARE * cost_s:
            return f"{text}, and at most 2 % of the time"
        if self._every_s is not None:
            return text
        return f"{text}, a failure every {self._failure_every_s / 3600:.3g} h{self._seen}"


def _shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
