"""An event loop whose time goes on only when nothing is left to do: a day of timers takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Instant(selectors.DefaultSelector):
    """Waits for nothing: the time that it should wait is over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("Every task waits, and nothing will ever happen.")
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now

    def now(self) -> int:
        """Return the time in microseconds."""
        return round(self._instant.now * 1e6)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> int:
    """Return the time of the running loop in microseconds."""
    return round(asyncio.get_running_loop().time() * 1e6)
