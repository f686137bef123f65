"""Delays of a stream in the last minutes: how old events were when they became readable, and messages a second."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from mainspring.core.time import SECOND

KEPT_S = 300.0
_RATE_S = 60.0
_SAMPLED = 512  # events of a batch that are kept
_NONE = np.zeros(0, np.int64)


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Delays of the last five minutes, seconds; None without events.

    Attributes:
        freshness_p50, freshness_p99: From an event to its features being readable, or to its output.
        delay_p50, delay_p99: The same from the log's acceptance of the message.
    """

    freshness_p50: float | None = None
    freshness_p99: float | None = None
    delay_p50: float | None = None
    delay_p99: float | None = None


class _Batch(NamedTuple):
    at_s: float
    messages: int
    ages: np.ndarray
    delays: np.ndarray


class _Held(NamedTuple):
    number: int
    events: np.ndarray
    accepted: np.ndarray


class Recent:
    """Batches of the last five minutes. Thread-safe."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._held: deque[_Held] = deque()
        self._released = -1
        self._lock = threading.Lock()
        self._began_s = time.monotonic()

    def add(self, events: np.ndarray, accepted: np.ndarray, now: int) -> None:
        """Add a batch that is readable now.

        Args:
            events: Event times, UTC epoch microseconds.
            accepted: Times at which the log accepted its messages.
            now: Time by the machine's clock.
        """
        with self._lock:
            self._add(len(accepted), now - _some(events), now - _some(accepted))

    def hold(self, number: int, events: np.ndarray, accepted: np.ndarray, now: int) -> None:
        """Add a batch that is readable once `release` was told its number. Numbers never decrease.

        Its messages count at once; its events are as old as they are by now until then.
        """
        with self._lock:
            self._add(len(accepted), _NONE, _NONE)
            self._held.append(_Held(number, _some(events), _some(accepted)))
        self.release(self._released, now)

    def release(self, number: int, now: int) -> None:
        """Make the batches up to a number readable now."""
        with self._lock:
            self._released = max(self._released, number)
            while self._held and self._held[0].number <= self._released:
                _, events, accepted = self._held.popleft()
                self._add(0, now - events, now - accepted)

    def rate(self) -> float:
        """Return the messages a second of the last minute."""
        watched_s = min(_RATE_S, max(1.0, time.monotonic() - self._began_s))
        with self._lock:
            return round(sum(each.messages for each in self._since(_RATE_S)) / watched_s, 3)

    def ages(self, now: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return times from events, and from the log's acceptance, to their being readable or to now, microseconds."""
        with self._lock:
            read, held = self._since(KEPT_S), tuple(self._held)
        return (
            [*(each.ages for each in read), *(now - each.events for each in held)],
            [*(each.delays for each in read), *(now - each.accepted for each in held)],
        )

    def _add(self, messages: int, ages: np.ndarray, delays: np.ndarray) -> None:
        at_s = time.monotonic()
        self._batches.append(_Batch(at_s, messages, ages, delays))
        while self._batches[0].at_s < at_s - KEPT_S:
            self._batches.popleft()

    def _since(self, seconds: float) -> list[_Batch]:
        first = time.monotonic() - seconds
        return [each for each in self._batches if each.at_s >= first]


def delays(of: Iterable[Recent], now: int) -> Delays:
    """Return the delays of streams or partitions together.

    Args:
        now: Time by the machine's clock, UTC epoch microseconds.
    """
    found = [each.ages(now) for each in of]
    middle, high = _quantiles([age for ages, _ in found for age in ages])
    delay, longest = _quantiles([age for _, ages in found for age in ages])
    return Delays(freshness_p50=middle, freshness_p99=high, delay_p50=delay, delay_p99=longest)


def _some(times: np.ndarray) -> np.ndarray:
    return times[:: -(-len(times) // _SAMPLED) or 1]


def _quantiles(ages: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Return median and 99th percentile of ages in microseconds, as seconds."""
    every = np.concatenate(ages) if ages else _NONE
    if not len(every):
        return None, None
    middle, high = np.quantile(every, (0.5, 0.99)) / SECOND
    return round(float(middle), 3), round(float(high), 3)
