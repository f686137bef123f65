"""Delays of a stream in the last minutes: how old events were when they became readable, and messages a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mainspring.core.time import SECOND

KEPT_S = 300.0
_RATE_S = 60.0
_SAMPLED = 512  # events of a batch that are kept


class _Batch(NamedTuple):
    at_s: float
    messages: int
    ages: np.ndarray
    delays: np.ndarray


class Recent:
    """Batches of the last five minutes. One thread adds; others may read."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._began_s = time.monotonic()

    def add(self, events: np.ndarray, accepted: np.ndarray, now: int) -> None:
        """Add a batch that is readable now.

        Args:
            events: Event times, UTC epoch microseconds.
            accepted: Times at which the log accepted its messages.
            now: Time by the machine's clock.
        """
        at_s = time.monotonic()
        self._batches.append(_Batch(at_s, len(accepted), now - _some(events), now - _some(accepted)))
        while self._batches[0].at_s < at_s - KEPT_S:
            self._batches.popleft()

    def freshness(self) -> tuple[float | None, float | None]:
        """Return median and 99th percentile of the time from an event to its being readable, seconds."""
        return _quantiles([each.ages for each in self._since(KEPT_S)])

    def delay(self) -> tuple[float | None, float | None]:
        """Return the same of the time from the log's acceptance of a message."""
        return _quantiles([each.delays for each in self._since(KEPT_S)])

    def rate(self) -> float:
        """Return the messages a second of the last minute."""
        watched_s = min(_RATE_S, max(1.0, time.monotonic() - self._began_s))
        return round(sum(each.messages for each in self._since(_RATE_S)) / watched_s, 3)

    def _since(self, seconds: float) -> list[_Batch]:
        first = time.monotonic() - seconds
        return [each for each in tuple(self._batches) if each.at_s >= first]


def _some(times: np.ndarray) -> np.ndarray:
    return times[:: -(-len(times) // _SAMPLED) or 1]


def _quantiles(ages: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Return median and 99th percentile of ages in microseconds, as seconds."""
    every = np.concatenate(ages) if ages else np.zeros(0)
    if not len(every):
        return None, None
    middle, high = np.quantile(every, (0.5, 0.99)) / SECOND
    return round(float(middle), 3), round(float(high), 3)
