"""The load of a lane, for what decides how many executors its model has."""

from __future__ import annotations


class Load:
    """Counts since the lane began.

    Attributes:
        asked: Requests that were to be queued.
        lost: Those refused as too late or for want of room.
        taken, waited_us: Those that a batch took, and how long all of them had waited.
    """

    __slots__ = ("_state", "asked", "lost", "taken", "waited_us")

    def __init__(self) -> None:
        self.asked = self.lost = self.taken = self.waited_us = 0
        self._state = (0.0, 0.0, 0)  # time of executors until the call that runs, its begin and its executors

    def begin(self, now_us: float, executors: int) -> None:
        """Count the time of a call, which keeps so many executors busy."""
        self._state = (self._state[0], now_us, executors)

    def end(self, now_us: float) -> None:
        """End the call that runs."""
        self._state = (self.busy_us(now_us), 0.0, 0)

    def busy_us(self, now_us: float) -> float:
        """Return for how long executors were busy, all of them together."""
        done, begun, executors = self._state
        return done + executors * max(0.0, now_us - begun)
