"""Number of replicas: fixed, by their utilisation, or by the time of day. Pure rules, looked at from time to time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol


class FleetRule(Protocol):
    """How many replicas there should be."""

    @property
    def first(self) -> int:
        """How many there are at the beginning."""
        ...

    @property
    def every_s(self) -> float:
        """Seconds between two looks."""
        ...

    def wanted(self, at_s: float, replicas: int, utilisation: float) -> int:
        """Return how many there should be.

        Args:
            replicas: Those that are there or start.
            utilisation: Mean share of their time in which executors computed since the last look, 0 to 1.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same number."""

    first: int
    every_s: float = 60.0

    def wanted(self, at_s: float, replicas: int, utilisation: float) -> int:  # noqa: ARG002
        return self.first


@dataclass(slots=True)
class ByUtilisation:
    """Kubernetes' horizontal autoscaler: ceil(replicas * utilisation / target), within a tolerance of a tenth; fewer
    only after a window in which fewer were always enough.

    Source: kubernetes.io, Horizontal Pod Autoscaling, "Algorithm details" and "Stabilization window".
    """

    least: int
    most: int
    target: float = 0.6
    every_s: float = 15.0
    settle_s: float = 300.0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def first(self) -> int:
        return self.least

    def wanted(self, at_s: float, replicas: int, utilisation: float) -> int:
        ratio = utilisation / self.target
        need = replicas if abs(ratio - 1) <= 0.1 else ceil(replicas * ratio)
        need = min(max(need, self.least), self.most)
        self._recent.append((at_s, need))
        while self._recent[0][0] < at_s - self.settle_s:
            self._recent.popleft()
        return need if need >= replicas else max(each for _, each in self._recent)


@dataclass(frozen=True, slots=True)
class ByTime:
    """Steps: from a second on, so many. Kubernetes' cron scaler of KEDA, seen from the beginning of the load."""

    steps: tuple[tuple[float, int], ...]
    every_s: float = 15.0

    @property
    def first(self) -> int:
        return self.steps[0][1]

    def wanted(self, at_s: float, replicas: int, utilisation: float) -> int:  # noqa: ARG002
        return [number for begin, number in self.steps if begin <= at_s][-1]
