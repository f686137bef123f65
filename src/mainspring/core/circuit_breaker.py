"""Circuit breakers: a server that fails is left alone for a while, then probed. Instants are microseconds."""

from __future__ import annotations

from collections import deque

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.time import parse_duration

_PARTS = 10  # of a window


class BreakerRule(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit breaker opens, and for how long.

    Args:
        window: Duration of which calls count.
        least: Calls in the window before it opens.
        share: Share of them that failed, from which on it opens.
        opens: Duration for which no call passes; it doubles with each probe that fails, up to `longest`.
        probes: Calls that have to succeed, one at a time, before it closes.
    """

    window: str | int = "30s"
    least: int = 5
    share: float = 0.5
    opens: str | int = "5s"
    longest: str | int = "5m"
    probes: int = 2

    def __post_init__(self) -> None:
        window, opens, longest = map(parse_duration, (self.window, self.opens, self.longest))
        if not (
            0 < self.share <= 1 and self.least > 0 and self.probes > 0 and 0 < opens <= longest and window >= _PARTS
        ):
            raise Invalid(f"A circuit breaker has the rule {self}.", fix="give a share up to 1, and counts above 0.")


class Breaker:
    """The circuit breaker of one server (Nygard, Release It!, 2nd ed., chapter 5): closed, open, or half-open.

    Each call for which `begin` returned true ends with one of `succeeded`, `failed` or `abandoned`.
    """

    def __init__(self, rule: BreakerRule | None = None) -> None:
        self._rule = rule or BreakerRule()
        self._parts: deque[list[int]] = deque()  # number of a part, calls, failures
        self._opened_at: int | None = None  # half-open once `_open_us` are over
        self._window_us = parse_duration(self._rule.window)
        self._shortest_us, self._longest_us = parse_duration(self._rule.opens), parse_duration(self._rule.longest)
        self._open_us = self._shortest_us
        self._probing = False
        self._passed = 0
        self._rests_until = 0

    def opens_at(self, now: int) -> int:
        """Return when the next call passes; `now` if it does at once. While a probe is under way: soon."""
        at = max(now, self._rests_until)
        if self._opened_at is not None:
            at = max(at, self._opened_at + self._open_us, now + 1 if self._probing else 0)
        return at

    def begin(self, now: int) -> bool:
        """Return whether a call may go."""
        if self.opens_at(now) > now:
            return False
        self._probing = self._opened_at is not None
        return True

    def succeeded(self, now: int) -> None:
        """Count a call that the server answered."""
        if self._opened_at is None:
            self._count(now, 0)
        elif self._probing:
            self._probing = False
            self._passed += 1
            if self._passed >= self._rule.probes:
                self._opened_at, self._open_us, self._passed = None, self._shortest_us, 0
                self._parts.clear()

    def failed(self, now: int) -> None:
        """Count a call that failed by the server's fault."""
        if self._opened_at is None:
            self._count(now, 1)
            calls, failures = (sum(part[place] for part in self._parts) for place in (1, 2))
            if calls >= self._rule.least and failures >= self._rule.share * calls:
                self._open(now)
        elif self._probing:
            self._probing = False
            self._open_us = min(2 * self._open_us, self._longest_us)
            self._open(now)

    def abandoned(self) -> None:
        """End a call of which nobody knows how it would have ended."""
        self._probing = False

    def reset(self) -> None:
        """Close it: the cause of the failures is gone."""
        self._opened_at, self._open_us, self._passed, self._probing = None, self._shortest_us, 0, False
        self._parts.clear()

    def rest(self, until: int) -> None:
        """Let no call pass until an instant, because the server asked for that."""
        self._rests_until = max(self._rests_until, until)

    @property
    def state(self) -> str:
        """ "closed", "open" or "half-open" (of which the next probe may still have to wait)."""
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._probing or self._passed else "open"

    def _open(self, now: int) -> None:
        self._opened_at, self._passed = now, 0
        self._parts.clear()

    def _count(self, now: int, failures: int) -> None:
        number = now * _PARTS // self._window_us
        while self._parts and self._parts[0][0] <= number - _PARTS:
            self._parts.popleft()
        if not self._parts or self._parts[-1][0] != number:
            self._parts.append([number, 0, 0])
        self._parts[-1][1] += 1
        self._parts[-1][2] += failures
