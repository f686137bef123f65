"""Replies to the requests of a lane: predictions are logged, then told; errors are told and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future as Pending

from mainspring.core.errors import MainspringError
from mainspring.core.ids import PredictionIds
from mainspring.ledger.recording import Recorder
from mainspring.serving.batching.batcher import Job
from mainspring.serving.caching.responses import Responses
from mainspring.serving.plane.batch_run import Ask, Work, monotonic_us
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.flights import Flights
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.plane.screening import Screen
from mainspring.serving.plane.statistics import Statistics

_log = logging.getLogger(__name__)


class Replies:
    """Called on the event loop.

    Args:
        flights: Requests that wait for the answers of equal ones.

    Attributes:
        assigned: Whether a rollout ever assigned a request to the lane.
        responses: Counts the requests that earlier answers could have answered; `None` without a cache.
    """

    def __init__(
        self, endpoint: str, recorder: Recorder, statistics: Statistics, metrics: EndpointMetrics, flights: Flights
    ) -> None:
        self.assigned = False
        self.responses: Responses | None = None
        self.ids = PredictionIds()
        self._endpoint = endpoint
        self._recorder = recorder
        self._statistics = statistics
        self._metrics = metrics
        self._flights = flights
        self._loop = asyncio.get_running_loop()

    def answer_again(self, work: Work) -> None:
        """Answer requests whose answers were computed for others."""
        try:
            if work.screen is not None:
                self.count_screened(work.screen, work.unusual, work.rows)
            self.settle(work)
        except Exception as error:
            self.refuse(work, error)

    def count_screened(self, screen: Screen, found: Mapping[int, str] | None, rows: int) -> None:
        """Count the unusual ones of so many rows; `None` if they could not be checked."""
        counted = self._metrics.screened
        if not screen.checks:
            counted["unchecked"] += rows
        elif found is not None:
            counted["refused" if screen.refuses else "fallback" if screen.answer else "flagged"] += len(found)

    def settle(self, work: Work) -> None:
        """Log and answer requests, and those that waited for their answers."""
        followers = []
        for job, start, end in work.parts():
            if waited := self._flights.land(job):
                followers.append(work.again(waited, start, end))
        try:
            self._conclude(work)
        except Exception as error:
            for each in followers:
                self.refuse(each, error)
            raise
        for each in followers:
            try:
                self._conclude(each)
            except Exception as error:
                self.refuse(each, error)

    def _conclude(self, work: Work) -> None:
        work.fall_back()
        work.ids = self.ids.take(work.rows)
        waiting = work.record(self._recorder, monotonic_us(), assigned=self.assigned)
        work.unlogged = len(waiting)
        if not waiting:
            self._answer(work)
        for pending in waiting:
            pending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._logged, work, waiting))

    def _logged(self, work: Work, waiting: Sequence[Pending[None]]) -> None:
        work.unlogged -= 1
        if work.unlogged:
            return
        error = next((found for pending in waiting if (found := pending.exception()) is not None), None)
        if error is None:
            self._answer(work)
        else:
            self.refuse(work, error)

    def _answer(self, work: Work) -> None:
        self._metrics.rows += work.rows
        if self.responses is not None:
            self.responses.count(job.payload.reuse for job in work.jobs)
        work.answer(self._statistics, monotonic_us())

    def refuse(self, work: Work, error: BaseException) -> None:
        """Tell requests an error."""
        if not isinstance(error, MainspringError):
            _log.error("A batch of endpoint %s failed.", self._endpoint, exc_info=error)
            error = ModelFailed("The model failed.")
        for job in work.jobs:
            self.fail(job, error)

    def fail(self, job: Job[Ask], error: Exception) -> None:
        """Tell a request its error, and those that wait for its answer."""
        self.fail_alone(job, error)
        self._flights.fall(job, error)

    def fail_alone(self, job: Job[Ask], error: Exception) -> None:
        """Tell a request its error, and those that wait for it nothing."""
        self._statistics.failed(monotonic_us() - job.payload.received)
        if not job.payload.waiter.done():
            job.payload.waiter.set_exception(error)
