"""A free port, and waiting until something has happened: never for a time alone."""

from __future__ import annotations

import asyncio
import http.client
import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

_LONGEST_REST_S = 0.4
_LATER_S = 0.2
_PORTS = 12_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens, another one at each call.

    It is below those that a system gives to outgoing connections, so that none takes it before a server listens.
    """
    while True:
        port = random.SystemRandom().randrange(*_PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def wait_until(happened: Callable[[], Any], what: str, within_s: float = 120.0, every_s: float = 0.02) -> Any:
    """Wait until `happened()` is true and return it; a refused connection counts as not yet.

    It is asked every `every_s`, and less often the longer it takes. Where asking itself takes long, what is waited for
    has most of the time.

    Raises:
        AssertionError: It did not happen within `within_s`, with `what` in its message.
    """
    begun = time.monotonic()
    while (asked := time.monotonic()) < begun + within_s:
        try:
            if found := happened():
                return found
        except (OSError, http.client.HTTPException):
            pass
        now = time.monotonic()
        time.sleep(max(every_s, min(_LONGEST_REST_S, 3 * (now - asked)), min(_LATER_S, (now - begun) / 10)))
    raise AssertionError(f"waited {within_s:g} s for {what}")


async def wait_until_async(happened: Callable[[], Any], what: str = "it", within_s: float = 60.0) -> Any:
    """Wait on the loop until `happened()`, or what it awaits, is true, and return it.

    Raises:
        AssertionError: It did not happen within `within_s`, with `what` in its message.
    """
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = happened()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited {within_s:g} s for {what}")
