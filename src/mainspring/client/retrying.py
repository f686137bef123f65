"""Retry policy with exponential back-off.

A request is retried only where that cannot make two predictions of one: the server was never reached, or its response
(429 or 503 with `Retry-After`) means that it did nothing. A request that changes nothing is also retried when its
connection broke.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mainspring.client.failures import lost, refusal, retry_after_s
from mainspring.client.talk import Answer, Loss, Lost, Pause, Send, Talk
from mainspring.core.errors import DeadlineExceeded, MainspringError

_AGAIN = (429, 503)


@dataclass(frozen=True, slots=True)
class Retries:
    """Retry policy of a client.

    Args:
        most: Largest number of retries of a request.
        first_s: The first wait is up to this, every later one up to twice the one before; at random, so that clients
            who were refused together do not come back together. `Retry-After` is waited for in any case.
        longest_s: No wait is longer, but for `Retry-After`.
        chance: Gives a number between 0 and 1.
        monotonic: Seconds.
    """

    most: int = 4
    first_s: float = 0.05
    longest_s: float = 2.0
    chance: Callable[[], float] = field(default=random.random, repr=False)
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)

    def wait_s(self, attempt: int, answer: Answer | None) -> float:
        """Return the seconds before the next attempt; `attempt` counts from 0."""
        spread = self.chance() * min(self.longest_s, self.first_s * float(2**attempt))
        return spread + (retry_after_s(answer) or 0.0 if answer is not None else 0.0)


def exchange(
    make: Callable[[float], Send], retries: Retries, *, timeout_s: float, url: str, harmless: bool = False
) -> Talk[Answer]:
    """Talk until there is an answer of status 200.

    Args:
        make: Gives the request, by the seconds that are left for its answer.
        timeout_s: For all attempts and the waits between them.
        url: The server, for messages.
        harmless: Whether two of this request are as good as one.

    Raises:
        MainspringError: It was refused, or lost, or there is no time to try again. What was the last trouble is said.
    """
    until = retries.monotonic() + timeout_s
    attempt = 0
    while True:
        heard = yield make(max(0.001, until - retries.monotonic()))
        if isinstance(heard, Answer) and heard.status == 200:
            return heard
        again, error = _judged(heard, url, harmless=harmless)
        if not again or attempt >= retries.most:
            raise error
        wait_s = retries.wait_s(attempt, heard if isinstance(heard, Answer) else None)
        if retries.monotonic() + wait_s >= until:
            raise error
        yield Pause(wait_s)
        attempt += 1


def _judged(heard: Answer | Lost | None, url: str, *, harmless: bool) -> tuple[bool, MainspringError]:
    """Return whether to try again, and the error if not."""
    if isinstance(heard, Answer):
        return heard.status in _AGAIN and retry_after_s(heard) is not None, refusal(heard)
    if heard is None:
        return False, DeadlineExceeded(f"{url} was not called.")
    again = heard.loss is Loss.UNSENT or (heard.loss is Loss.BROKEN and harmless)
    return again, lost(heard, url, sent_twice=harmless)
