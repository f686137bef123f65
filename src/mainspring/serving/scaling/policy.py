"""The number of executors that a model should have. It has no clock and no thread of its own.

More executors come at once, and fewer after a while in which fewer were always enough: a burst costs one rise, and
not one for each of its waves. That is the stabilisation window of Kubernetes' horizontal autoscaler.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, exp

BUSY = 0.75  # of the time an executor should compute at most: the rest is for what comes in bursts
PATIENCE = 0.25  # of the deadline a request may wait in the queue
SETTLE_S = 30.0
SLOW_S = 1.0  # requests wait too long for so long before that counts: by chance some always do
SMOOTH_S = 5.0  # chance makes executors busy for less


@dataclass(frozen=True, slots=True)
class Observed:
    """A model's load since the last observation.

    Attributes:
        at: By a monotonic clock, seconds.
        executors: How many it has.
        busy: Mean share of the time in which each of them computed, 0 to 1.
        delay_s: How long its requests waited in the queue, on average.
        lost: How many of them were refused as too late, or for want of room.
        asked: How many came.
    """

    at: float
    executors: int
    busy: float
    delay_s: float
    lost: int
    asked: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many executors there should be, and why."""

    executors: int
    why: str


class Policy:
    """Follows one model.

    Args:
        least, most: Limits of its executors; the least may be 0.
        deadline_s: Of its requests.
        idle_s: Time without requests after which it has none, if `least` is 0.
    """

    def __init__(self, least: int, most: int, *, deadline_s: float, idle_s: float) -> None:
        self.least, self.most = least, most
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._recent: deque[tuple[float, int]] = deque()  # how many were needed, in the last `SETTLE_S`
        self._since: float | None = None  # when it was first observed
        self._asked_at: float | None = None
        self._last: float | None = None
        self._slow_since: float | None = None
        self._work = 0.0  # executors that the load keeps busy, smoothed

    def decide(self, now: Observed) -> Wanted:
        """Return how many executors there should be."""
        if now.asked or self._asked_at is None:
            self._asked_at = now.at
        if not self.least and now.at - self._asked_at >= self._idle_s:
            self._recent.clear()
            return Wanted(0, f"no request for {self._idle_s:g} s")
        if not now.executors:
            return Wanted(0, "no request")  # the first one brings the model back, with one
        need, why = self._need(now)
        self._recent.append((now.at, need))
        while self._recent[0][0] < now.at - SETTLE_S:
            self._recent.popleft()
        if need > now.executors:
            self._since = now.at
            return Wanted(need, why)
        self._since = now.at if self._since is None else self._since
        lately = max(each for _, each in self._recent)
        if lately < now.executors and now.at - self._since >= SETTLE_S:
            self._since = now.at
            return Wanted(lately, f"{lately} {'was' if lately == 1 else 'were'} enough for {SETTLE_S:g} s")
        return Wanted(now.executors, "as it is")

    def _need(self, now: Observed) -> tuple[int, str]:
        passed = SMOOTH_S if self._last is None else now.at - self._last
        self._last = now.at
        self._work += (1 - exp(-passed / SMOOTH_S)) * (now.busy * now.executors - self._work)
        need, why = ceil(self._work / BUSY), f"the load keeps {self._work:.1f} busy"
        if not now.lost and now.delay_s <= PATIENCE * self._deadline_s:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = now.at
        if self._slow_since is not None and now.at - self._slow_since >= SLOW_S:
            more = now.executors + max(1, now.executors // 2)
            if more > need:
                need = more
                why = f"requests waited {1000 * now.delay_s:.0f} ms, and {now.lost} were refused"
        return min(max(need, self.least, 1), self.most), why
