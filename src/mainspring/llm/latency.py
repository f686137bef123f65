"""How long the first tokens of upstreams take. Instants are microseconds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil

_SAMPLES, _ENOUGH = 256, 20  # latencies that are kept, and from which on their quantiles mean something
_TAIL = 0.95
_SMOOTH = 0.2  # weight of the newest latency in the usual one


class Latency:
    """Recent times to the first token of one upstream.

    Attributes:
        usual_us: Their mean, the newest weighing most; `None` before the first.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._sorted: list[int] = []
        self.usual_us: float | None = None

    def observe(self, us: int) -> None:
        """Learn from a call."""
        self.usual_us = us if self.usual_us is None else self.usual_us + _SMOOTH * (us - self.usual_us)
        self._order.append(us)
        insort(self._sorted, us)
        if len(self._order) > _SAMPLES:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    @property
    def tail_us(self) -> int | None:
        """Their 95th percentile; `None` while there are too few."""
        count = len(self._sorted)
        return None if count < _ENOUGH else self._sorted[ceil(_TAIL * count) - 1]
