"""Circuit breaker for a store that does not respond: a few tries within a budget, then immediate rejections."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from mainspring.core.errors import Unavailable

T = TypeVar("T")

READ_BUDGET_S = 0.1  # a prediction waits
WRITE_BUDGET_S = 5.0  # a materialisation waits; a restarted server is back by then
REST_S = 0.5  # after a spent budget, reads are rejected immediately for this long
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.5


class Patience:
    """Retries of transient failures with exponential back-off and jitter; then `Unavailable`.

    The budget limits the pauses and the start of the last try; a try takes at most the driver's own time-out.

    Args:
        name: Name of the store for messages, without a password.
        passing: Returns whether this error of the driver is transient.
        clock: Monotonic seconds.
        sleep: Waits for a number of seconds.
        chance: Returns a random number in [0, 1), so that waiting callers do not return together.
    """

    def __init__(
        self,
        name: str,
        passing: Callable[[Exception], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._passing = passing
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._rests_until = float("-inf")

    def read(self, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt`. Shortly after a spent budget, reject without a try.

        Raises:
            Unavailable: No try succeeded within `READ_BUDGET_S`.
        """
        if self._clock() < self._rests_until:
            raise Unavailable(f"{self._name} did not respond a moment ago.")
        return self._insist(attempt, READ_BUDGET_S)

    def write(self, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt`, which may run twice.

        Raises:
            Unavailable: No try succeeded within `WRITE_BUDGET_S`.
        """
        return self._insist(attempt, WRITE_BUDGET_S)

    def once(self, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt` without a retry: after an error it is unknown whether the call took effect.

        Raises:
            Unavailable: It failed, perhaps after it took effect.
        """
        return self._insist(attempt, 0.0)

    def _insist(self, attempt: Callable[[], T], budget_s: float) -> T:
        end = self._clock() + budget_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                answer = attempt()
            except Exception as error:
                if not self._passing(error):
                    raise
                wait = pause * (0.5 + 0.5 * self._chance())
                if self._clock() + wait >= end:
                    self._rests_until = self._clock() + REST_S
                    raise Unavailable(f"{self._name} did not respond: {_said(error)}.") from error
                self._sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self._rests_until = float("-inf")
                return answer


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
