"""Failures of trainings so far, and the hours in which they happened, as their runs record them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mainspring.registry.model import RunRecord
from mainspring.registry.runs import DIED, PARENT, PREEMPTED, PURPOSE, REPLACED

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Failures:
    """Processes that were lost, machines that were taken back, and the hours that machines trained."""

    count: int = 0
    hours: float = 0.0

    def every_h(self, usual_h: float) -> float:
        """Return the expected hours between two failures of a machine.

        The mean of a Gamma distribution of rates, which begins with one failure in `usual_h` hours.
        """
        return (usual_h + self.hours) / (1 + self.count)


def failures_of(runs: Iterable[RunRecord]) -> Failures:
    """Return the failures of trainings, those that still run included.

    Of a training whose process died the hours are not known, and count none.
    """
    count, hours = 0, 0.0
    for run in runs:
        if PURPOSE in run.tags or PARENT in run.tags:
            continue
        count += int(run.tags.get(REPLACED, "0")) + (PREEMPTED in run.tags) + (DIED in run.tags)
        if run.ended_at is not None and DIED not in run.tags:
            hours += (run.ended_at - run.started_at) / _HOUR_US
    return Failures(count, hours)
