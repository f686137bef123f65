"""Times from the start of a spot machine to its interruption, from a recorded trace or by a rate."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Iterable
from math import isfinite, log, log1p

from mainspring.core.errors import Invalid

_HOUR_S = 3600.0
_COLUMNS = ("hours", "interrupted")


class Lives:
    """Lengths of lives, drawn by chance: the estimate of Kaplan and Meier (1958), which takes machines that were given
    back before they were interrupted for what they are. Beyond the longest, and without a trace, lives are exponential.

    Args:
        seen: Hours of each machine, and whether it was interrupted at their end.

    Raises:
        Invalid: There is none, or a time is not above 0.
    """

    def __init__(self, seen: Iterable[tuple[float, bool]]) -> None:
        ends = sorted(seen)
        if not ends or not all(isfinite(hours) and hours > 0 for hours, _ in ends):
            raise Invalid("A trace of interruptions has hours above 0.", fix="write a line for each machine: 5.25,1.")
        self.an_hour = sum(lost for _, lost in ends) / sum(hours for hours, _ in ends)
        self._hours: list[float] = []
        self._gone: list[float] = []  # share interrupted by then
        left = 1.0
        for place, (hours, lost) in enumerate(ends):
            if lost:
                left *= 1 - 1 / (len(ends) - place)
                self._hours.append(hours)
                self._gone.append(1 - left)
        self._last = ends[-1][0]

    @classmethod
    def at(cls, an_hour: float) -> Lives:
        """Return lives of a rate: so many losses of one machine in an hour."""
        found = cls([(1e-9, False)])
        found.an_hour = an_hour
        return found

    def draw_s(self, chance: float) -> float:
        """Return the length of a life, seconds; infinite where there are no interruptions.

        Args:
            chance: Of a uniform distribution over `[0, 1)`.
        """
        place = bisect_left(self._gone, chance)
        if place < len(self._gone):
            return self._hours[place] * _HOUR_S
        if not self.an_hour:
            return float("inf")
        known = self._gone[-1] if self._gone else 0.0
        return (self._last + (log1p(-known) - log(1 - chance)) / self.an_hour) * _HOUR_S


def read_lives(text: str) -> Lives:
    """Return the lives of a CSV trace with the columns `hours` and `interrupted` (1; 0 if it was given back before).

    Raises:
        Invalid: A line cannot be read.
    """
    reader = csv.DictReader(text.splitlines())
    if not set(_COLUMNS) <= set(reader.fieldnames or ()):
        raise Invalid(
            f"The trace of interruptions has the columns {list(reader.fieldnames or ())}.",
            fix=f"it needs {' and '.join(_COLUMNS)}.",
        )
    seen = []
    for row in reader:
        try:
            seen.append((float(row["hours"]), bool(("0", "1").index(row["interrupted"].strip()))))
        except (TypeError, ValueError, AttributeError):
            raise Invalid(
                f"Line {reader.line_num} of the trace of interruptions cannot be read.", fix="write hours,0 or hours,1."
            ) from None
    return Lives(seen)
