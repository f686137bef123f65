"""Requests of a lane whose model is out of memory: they wait in the queue until it is back, or their deadline passes.

The time of a load is no time of the model: the batcher learns nothing from it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import ref

from mainspring.core.errors import DeadlineExceeded, MainspringError, Unavailable
from mainspring.serving.plane.batch_run import monotonic_us
from mainspring.serving.residency.residency import Residency
from mainspring.serving.residency.resident import ResidentExecutor

if TYPE_CHECKING:
    from mainspring.serving.plane.lane import Lane
    from mainspring.serving.plane.runtime import Runtime

_EVERYONE = 1 << 62  # a deadline beyond all


class Absence:
    """The absence of one lane's model. Called on the event loop, with the lane: it keeps none, so that a lane nobody
    uses is gone at once.
    """

    def __init__(self, residency: Residency, executor: ResidentExecutor) -> None:
        self._residency = residency
        self.executor = executor
        self._loop = asyncio.get_running_loop()
        self._load: Future[None] | None = None  # which wakes the lane
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, runtime: Runtime) -> Absence | None:
        """Return the absence of a model; `None` where it never leaves the memory."""
        residency, executor = runtime.residency, runtime.executor
        return cls(residency, executor) if residency and isinstance(executor, ResidentExecutor) else None

    @property
    def over(self) -> bool:
        """Whether the model is in memory."""
        return self.executor.here

    @property
    def executors(self) -> int:
        """How many executors the model has; 1 where it has none yet."""
        return max(1, self.executor.size)

    def check(self, lane: Lane, deadline: int) -> None:
        """Have the model loaded if it is out, and refuse a request for which that takes too long.

        Raises:
            DeadlineExceeded: The model will be back after the deadline.
        """
        if self.executor.ask():
            return
        self._fetch(lane)
        left_us = self._residency.expected_s(self.executor) * 1e6
        if monotonic_us() + left_us > deadline:
            raise DeadlineExceeded(
                "The model is being loaded, and will not be ready before the deadline.",
                retry_after_ms=max(1, int(left_us / 1000)),
            )

    def holds(self, lane: Lane) -> bool:
        """Return whether the queue has to wait for the model."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.executor.ask():
            return False
        if lane.batcher.waiting_rows:
            self._fetch(lane)
            until_us = lane.batcher.first_deadline - monotonic_us()
            self._timer = self._loop.call_later(max(0, until_us) / 1e6, self._overdue, lane)
        return True

    def _overdue(self, lane: Lane) -> None:
        self._timer = None
        lane.expire(lane.batcher.expired())
        lane.wake()

    def _fetch(self, lane: Lane) -> None:
        load = self.executor.fetch()
        if load is not self._load:
            self._load = load
            kept = ref(lane)  # those who wait keep their lane; the load, which is remembered, does not
            load.add_done_callback(lambda load: self._loaded(kept, load))

    def _loaded(self, lane: ref[Lane], load: Future[None]) -> None:
        """Called in the thread that loaded."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._go_on, lane, load)

    def _go_on(self, kept: ref[Lane], load: Future[None]) -> None:
        lane = kept()
        if lane is None:
            return
        error = CancelledError() if load.cancelled() else load.exception()
        if error is None:
            lane.wake()
            return
        if not isinstance(error, MainspringError):
            error = Unavailable("The model cannot be loaded.")
        for job in lane.batcher.expired(by=_EVERYONE):
            job.payload.refused = True
            lane.replies.fail(job, error)
