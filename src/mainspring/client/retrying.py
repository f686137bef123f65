"""Retry policy with exponential back-off.

A request is retried only if a retry cannot make a second prediction: the server was never reached, or its response (429
or 503 with `Retry-After`) means that it did nothing. A request without side effects is also retried when its connection
broke.
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
        most: Maximum number of retries of a request.
        first_s: Upper bound of the first wait; it doubles with each retry. Waits are random, so that clients rejected
            together do not return together. `Retry-After` is always respected.
        longest_s: Maximum wait, except for `Retry-After`.
        chance: Returns a random number between 0 and 1.
        monotonic: Returns the monotonic time in seconds.
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
    """Send, retrying with back-off, until the response has status 200.

    Args:
        make: Returns the request, given the seconds that are left for its response.
        timeout_s: For all attempts and the waits between them.
        url: The server, for messages.
        harmless: Whether the request is idempotent.

    Raises:
        MainspringError: The request was rejected or lost, or no time is left for a retry; the message names the last
            error.
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
