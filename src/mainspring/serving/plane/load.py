"""The load of a lane, for what decides how many executors its model has."""

from __future__ import annotations

import threading


class Load:
    """Counts since the lane began.

    Attributes:
        asked: Requests that were to be queued.
        lost: Those refused as too late or for want of room.
        taken, waited_us: Those that a batch took, and how long all of them had waited.
    """

    __slots__ = ("_busy", "_changing", "_done_us", "_since_us", "asked", "lost", "taken", "waited_us")

    def __init__(self) -> None:
        self.asked = self.lost = self.taken = self.waited_us = 0
        self._changing = threading.Lock()
        self._done_us, self._since_us, self._busy = 0.0, 0.0, 0  # time of executors until an instant, and busy ones

    def begin(self, now_us: float, executors: int) -> None:
        """Count the time of a call, which keeps so many executors busy. Called in the call's thread."""
        self._change(now_us, executors)

    def end(self, now_us: float, executors: int) -> None:
        """End a call."""
        self._change(now_us, -executors)

    def _change(self, now_us: float, more: int) -> None:
        with self._changing:
            now_us = max(now_us, self._since_us)  # threads come in another order than they looked at the clock
            self._done_us += self._busy * (now_us - self._since_us)
            self._since_us = now_us
            self._busy += more

    def busy_us(self, now_us: float) -> float:
        """Return for how long executors were busy, all of them together."""
        with self._changing:
            return self._done_us + self._busy * max(0.0, now_us - self._since_us)
