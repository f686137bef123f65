"""Overload, where it is felt first: how long requests lay unread, and how much time refusals may take.

Why: docs/adr/0025-overload.md. An event loop that is behind reads a request some time after it came, and the caller's
clock runs meanwhile. And a refusal costs a tenth of an answer or more, so at ten times the capacity a server that
refuses everybody does nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from mainspring.serving.plane.lane import monotonic_us

SHARE = 0.05  # of the time: what refusals may take, as far as it is seen here; the kernel's part comes to as much again
_SAVED_US = 5_000.0  # the most that is saved up for a burst of refusals
_EVERY_S = 0.005
_SHORT_US = 200
_MOST = 64
_LONG_US = 2_000


class Holdable(Protocol):
    """A connection that can be left unread for a while."""

    def hold(self) -> None: ...
    def release(self) -> None: ...


class Loop(Protocol):
    """The part of an event loop that is used here."""

    def call_soon(self, callback: Callable[[], object], /) -> object: ...
    def call_later(self, _delay: float, callback: Callable[[], object], /) -> Any: ...


class Pressure:
    """Belongs to one event loop.

    While refusals take more than `SHARE` of the time, a connection that was refused is held: what it sends next lies
    unread. Its place is with the callers that are being answered, whose next requests are new when they are read. Held
    connections are released in their order, as many as may be refused again.
    """

    def __init__(self, loop: Loop, now: Callable[[], int] = monotonic_us) -> None:
        self._loop = loop
        self._now = now
        self._turning = False  # whether `_turn` runs first in the next turn of the loop
        self._busy = False  # whether anything was read since it ran
        self._before = self._began = 0  # when the turn before this one began, and when this one did, monotonic, µs
        self._allowance = _SAVED_US
        self._charged = 0  # until when refusals were charged with the time
        self._counted = now()  # until when the allowance has grown
        self._evicted = False  # whether anybody was held since the last release
        self._releases = 1  # how many were released then
        self._held: deque[Holdable] = deque()
        self._timer: Any = None

    def arrived(self) -> int:
        """Return the earliest instant, monotonic, µs, at which what is read now can have come.

        What came before the last turn of the loop was read in it. So it is when that turn began, or now where the loop
        waited for something to come.
        """
        self._busy = True
        if not self._turning:
            self.stir()
        return self._before

    def stir(self) -> None:
        """Note that this turn of the loop takes time."""
        if not self._turning:
            self._turning = True
            self._before = self._began = self._now()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Note that a turn begins: what was called for soon runs before what is read."""
        self._before, self._began = self._began, self._now()
        # After a short turn without anything to read it is not worth knowing.
        self._turning = self._busy or self._began - self._before > _SHORT_US
        self._busy = False
        if self._turning:
            self._loop.call_soon(self._turn)

    def refused(self, connection: Holdable, took_us: int, *, hold: bool) -> None:
        """Count a refusal; if `hold`, hold the connection where refusals have taken too much time.

        Args:
            took_us: Since the request was read. Of that counts at most what this turn of the loop took and no other
                refusal was charged with: the rest it waited in a queue, and others were answered meanwhile.
        """
        now = self._now()
        took_us = min(took_us, now - max(self._began, self._charged))
        self._charged = now
        self._allowance = min(_SAVED_US, self._allowance + SHARE * (now - self._counted))
        self._counted = now
        if self._allowance > 0:
            self._allowance -= took_us
        elif hold:
            self._evicted = True
            connection.hold()
            self._held.append(connection)
            if self._timer is None:
                self._timer = self._loop.call_later(_EVERY_S, self._release)

    @property
    def holding(self) -> int:
        """Number of held connections."""
        return len(self._held)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _release(self) -> None:
        """Release the next ones: more each time until somebody is held again."""
        behind = self._evicted or self._began - self._before > _LONG_US
        self._releases = max(1, self._releases // 2) if behind else min(_MOST, 2 * self._releases)
        self._evicted = False
        for _ in range(min(len(self._held), self._releases)):
            self._held.popleft().release()
        self._timer = self._loop.call_later(_EVERY_S, self._release) if self._held else None
