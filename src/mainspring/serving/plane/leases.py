"""Lifetime of executors: close an executor once no route and no lane holds it.

A request keeps the lane that it was given, also where another has taken its place meanwhile, and may have yet to ask
it. So an executor is closed when it is no longer served and the last of its lanes is gone: not idle, but gone. What an
error's traceback still leads to is no use of it, but garbage, and is collected after a while.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from mainspring.serving.ports import Executor

_GARBAGE_S = 2.0
_MOMENTS, _MOMENT_S = 20, 0.05

_log = logging.getLogger(__name__)


class Leases:
    """Leases of executors by lanes. Thread-safe."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        # Executors whose lane is gone. A lane can be garbage-collected in any thread, even one that holds this lock or
        # one of the standard library: so its finalizer only appends to this queue.
        self._returned: deque[Executor] = deque()
        self._lanes: dict[int, int] = {}  # id of an executor -> how many lanes it has
        self._dropped: dict[int, Executor] = {}  # no longer served, and in use
        self._collect_at: float | None = None  # monotonic, s
        self._closing = ThreadPoolExecutor(1, thread_name_prefix="close")

    def lend(self, executor: Executor, lane: object) -> None:
        """Keep `executor` open for as long as `lane` exists."""
        with self._changing:
            self._lanes[id(executor)] = self._lanes.get(id(executor), 0) + 1
        weakref.finalize(lane, self._returned.append, executor)

    def drop(self, executor: Executor) -> None:
        """Retire `executor`: no new lane will use it, and it is closed as soon as it has none."""
        with self._changing:
            self._dropped[id(executor)] = executor
            self._settle()
            self._close_if_unused(executor)
            if self._dropped:
                self._collect_at = time.monotonic() + _GARBAGE_S

    def collect(self) -> None:
        """Close retired executors without lanes; collect garbage, once, if a retired one is still in use after a while.

        Cheap otherwise; call it often.
        """
        with self._changing:
            self._settle()
            due = self._collect_at is not None and time.monotonic() >= self._collect_at
            if due:
                self._collect_at = None
        if due and self._dropped:
            gc.collect()  # tens of milliseconds, as long as the load that came before it held everything up
            with self._changing:
                self._settle()

    async def stop(self) -> None:
        """Wait until retired executors are closed; one that is in use for longer than a moment stays open."""
        for moment in range(_MOMENTS):
            with self._changing:
                self._settle()
            if not self._dropped:
                break
            if moment & (moment + 1) == 0:  # ever less often: in a large process one takes half a second
                gc.collect()
            await asyncio.sleep(_MOMENT_S)
        with self._changing:
            self._settle()
        await asyncio.get_running_loop().run_in_executor(None, self._closing.shutdown)

    def _settle(self) -> None:
        while self._returned:
            executor = self._returned.popleft()
            self._lanes[id(executor)] -= 1
            self._close_if_unused(executor)

    def _close_if_unused(self, executor: Executor) -> None:
        if self._lanes.get(id(executor)) or self._dropped.pop(id(executor), None) is None:
            return
        self._lanes.pop(id(executor), None)
        self._closing.submit(_close, executor)  # it may take a while, and nobody waits for it


def _close(executor: Executor) -> None:
    try:
        executor.close()
    except Exception:
        _log.exception("A model that is no longer served could not be closed.")
