"""Models are let go of when nobody can ask them any more.

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
from concurrent.futures import ThreadPoolExecutor

from mainspring.serving.ports import Executor

_GARBAGE_S = 2.0

_log = logging.getLogger(__name__)


class Leases:
    """Which lanes use which executors. Threads may share it: the last to hold a lane may be one that ran its model."""

    def __init__(self) -> None:
        self._changing = threading.RLock()  # a lane may be collected while it is held, and says so on the same thread
        self._lanes: dict[int, int] = {}  # id of an executor -> how many lanes it has
        self._dropped: dict[int, Executor] = {}  # no longer served, and in use
        self._collect_at: float | None = None  # monotonic, s
        self._closing = ThreadPoolExecutor(1, thread_name_prefix="close")

    def lend(self, executor: Executor, lane: object) -> None:
        """Keep `executor` open for as long as `lane` exists."""
        with self._changing:
            self._lanes[id(executor)] = self._lanes.get(id(executor), 0) + 1
        weakref.finalize(lane, self._give_back, executor)

    def drop(self, executor: Executor) -> None:
        """Say that no lane will be made of `executor` any more: it is closed as soon as it has none."""
        with self._changing:
            self._dropped[id(executor)] = executor
            self._close_if_unused(executor)
            if self._dropped:
                self._collect_at = time.monotonic() + _GARBAGE_S

    def collect(self) -> None:
        """Collect garbage, once, if what was dropped is still in use after a while. Cheap otherwise; ask often."""
        with self._changing:
            due = self._collect_at is not None and time.monotonic() >= self._collect_at
            if due:
                self._collect_at = None
        if due and self._dropped:
            gc.collect()  # tens of milliseconds, as long as the load that came before it held everything up

    async def stop(self) -> None:
        """Wait until what has been dropped and is not in use is closed."""
        await asyncio.get_running_loop().run_in_executor(None, self._closing.shutdown)

    def _give_back(self, executor: Executor) -> None:
        with self._changing:
            self._lanes[id(executor)] -= 1
            self._close_if_unused(executor)

    def _close_if_unused(self, executor: Executor) -> None:
        if self._lanes.get(id(executor)) or self._dropped.pop(id(executor), None) is None:
            return
        self._lanes.pop(id(executor), None)
        try:
            self._closing.submit(_close, executor)  # it may take a while, and nobody waits for it
        except RuntimeError:  # stopped, with a request in flight
            _close(executor)


def _close(executor: Executor) -> None:
    try:
        executor.close()
    except Exception:
        _log.exception("A model that is no longer served could not be closed.")
