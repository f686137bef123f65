"""Results that requests share: costly ones, computed in a thread of their own, and one that is read anew each second.

A request waits briefly for a missing costly result. Then it reports that the computation is still running, and a later
request finds the result. So a page never waits for long.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

from mainspring.core.errors import Overloaded

_T = TypeVar("_T")
_KEPT = 128
_WAITING = 16  # maximum; more are rejected


class Looking:
    """Results by key. A failure is raised in the waiting request and not cached.

    Args:
        wait_s: Seconds that a request waits for a result.
        kept: Maximum number of cached results; the least recently used are dropped.
        waiting: Maximum number of pending computations.
    """

    def __init__(self, wait_s: float = 4.0, *, kept: int = _KEPT, waiting: int = _WAITING) -> None:
        self.wait_s = wait_s
        self._answers: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._kept = kept
        self._most = waiting
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="looking")

    def at(self, key: Hashable, make: Callable[[], _T], wait_s: float | None = None) -> tuple[bool, _T | None]:
        """Return (True, the result of `make`) as cached under `key`, or (False, None) if it is not ready in time.

        Raises:
            Overloaded: Too many other computations are pending.
            MainspringError: `make` failed.
        """
        future = self._future(key, make)
        try:
            return True, cast(_T, future.result(self.wait_s if wait_s is None else wait_s))
        except TimeoutError:
            if future.done():  # `make` itself raised a timeout
                raise
            return False, None

    def _future(self, key: Hashable, make: Callable[[], Any]) -> Future[Any]:
        with self._lock:
            future = self._answers.get(key)
            if future is not None and (not future.done() or future.exception() is None):
                self._answers.move_to_end(key)
                return future
            if sum(not each.done() for each in self._answers.values()) >= self._most:
                raise Overloaded("The console is busy: too many reports are being computed.", retry_after_ms=2_000)
            future = self._answers[key] = self._thread.submit(make)
            self._answers.move_to_end(key)
            for old in [each for each, one in self._answers.items() if one.done()][: len(self._answers) - self._kept]:
                del self._answers[old]
            return future

    def close(self) -> None:
        """Drop computations that have not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Shared(Generic[_T]):
    """A value that all requests share, such as the number of open incidents in the head of every page.

    Args:
        read: Reads the value; called by one thread at a time.
        keep_s: Seconds for which a value that was read is kept.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self, read: Callable[[], _T], *, keep_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._value: tuple[float, _T] | None = None  # with the time at which it was read

    def get(self) -> _T:
        """Return the value as it was read at most `keep_s` ago.

        Raises:
            MainspringError: It cannot be read.
        """
        with self._lock:
            now = self._clock()
            if self._value is None or now - self._value[0] >= self._keep_s:
                self._value = (now, self._read())
            return self._value[1]
