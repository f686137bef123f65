"""Refusal of a share of an endpoint's requests, or of those of a group, on purpose: the lowest priority first.

The share is of all these requests: with half of them to refuse, and half of them without a priority, just those
without are refused. Which priorities have what share is known from the last requests alone, so the first few are
refused by chance.
A request is drawn by a hash of its id: a retry of a refused request is refused too.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right, insort
from collections import deque
from hashlib import blake2b

from mainspring.core.errors import Shed as Refused
from mainspring.core.time import Clock
from mainspring.security.model import Principal
from mainspring.serving.model import Shed

_RECENT = 512  # requests by whose priorities the next one is judged
_RETRY_MS = 60_000  # the longest time after which a caller is asked to try again
_RANDOM_BYTES = 16


class Shedder:
    """Refuses requests of one endpoint while a shed is on.

    Args:
        clock: The machine's.
    """

    __slots__ = ("_clock", "_order", "_person", "_recent", "shed")

    def __init__(self, shed: Shed, clock: Clock) -> None:
        self.shed = shed
        self._clock = clock
        self._person = blake2b(shed.salt.encode(), digest_size=16).digest()
        self._recent: deque[int] = deque()
        self._order: list[int] = []  # the same, sorted

    @property
    def share(self) -> float:
        """The share of requests that is refused now; 0 after the end."""
        return self.shed.share if self._clock.now() < self.shed.until else 0.0

    def concerns(self, caller: Principal | None) -> bool:
        """Return whether a caller's requests are counted."""
        return not self.shed.team or (caller is not None and self.shed.team in caller.groups)

    def check(self, priority: int, unit: str) -> None:
        """Raise if a request is refused.

        Args:
            priority: 1 is the most important.
            unit: The caller's id of the request; empty without one.

        Raises:
            Refused: It is.
        """
        left_us = self.shed.until - self._clock.now()
        if left_us > 0 and self._draw(unit) < self._chance(priority):
            whose = f"the requests of the group {self.shed.team!r}" if self.shed.team else "its requests"
            raise Refused(
                f"This endpoint is refusing a part of {whose} on purpose, to shed load.",
                retry_after_ms=min(_RETRY_MS, -(-left_us // 1000)),
            )

    def _chance(self, priority: int) -> float:
        """Return the share of the requests of a priority that has to be refused, this one counted."""
        insort(self._order, priority)
        self._recent.append(priority)
        if len(self._recent) > _RECENT:
            del self._order[bisect_left(self._order, self._recent.popleft())]
        first, behind = bisect_left(self._order, priority), bisect_right(self._order, priority)
        wanted = self.shed.share * len(self._order)
        return (wanted - (len(self._order) - behind)) / (behind - first)

    def _draw(self, unit: str) -> float:
        content = unit.encode() if unit else os.urandom(_RANDOM_BYTES)
        return int.from_bytes(blake2b(content, digest_size=7, person=self._person).digest(), "big") / 2.0**56
