"""Requests that wait for the answer of an equal one, so that many at once cost one prediction.

The first of them, the leader, is queued as any request. The others wait outside the queue, each until its own deadline.
A leader that leaves or is too late is succeeded by the next; after an error each is queued on its own, as if it had
waited for nobody.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from mainspring.core.errors import DeadlineExceeded
from mainspring.serving.batching.batcher import Job
from mainspring.serving.caching.responses import JOINED, MISS
from mainspring.serving.plane.batch_run import Ask, monotonic_us


class Queue(Protocol):
    """A queue of requests, for those that wait for no other any more."""

    def offer(self, job: Job[Ask]) -> None:
        """Queue a request, or raise."""
        ...

    def fail_alone(self, job: Job[Ask], error: Exception) -> None:
        """Tell a request its error."""
        ...


class Flight:
    """Equal requests.

    Attributes:
        queue: Of their lane, which refers to a flight only while somebody can join it.
        leader: The one that is queued.
        followers: The others, each with the timer of its deadline.
    """

    __slots__ = ("followers", "key", "leader", "queue")

    def __init__(self, key: bytes, leader: Job[Ask], queue: Queue) -> None:
        self.key = key
        self.queue = queue
        self.leader = leader
        self.followers: dict[Job[Ask], asyncio.TimerHandle] = {}


class Flights:
    """Flights of one lane, by the digests of their inputs. Every request here has a `reuse`."""

    def __init__(self) -> None:
        self._open: dict[bytes, Flight] = {}
        self.waiting_rows = 0

    def join(self, key: bytes, job: Job[Ask], most_rows: int) -> bool:
        """Let a request wait for an equal one, and return whether there is one that it can wait for.

        A more urgent one does not wait for a less urgent one, nor does any where `most_rows` wait already.
        """
        flight = self._open.get(key)
        if flight is None or job.priority < flight.leader.priority or self.waiting_rows + job.rows > most_rows:
            return False
        job.arrived = monotonic_us()
        left_s = max(0, job.deadline - job.arrived) / 1e6
        flight.followers[job] = asyncio.get_running_loop().call_later(left_s, self._expire, flight, job)
        self.waiting_rows += job.rows
        _put(job, flight, JOINED)
        return True

    def lead(self, key: bytes, job: Job[Ask], queue: Queue) -> None:
        """Let others wait for a request, unless there is one already that they wait for."""
        if key not in self._open:
            self._open[key] = flight = Flight(key, job, queue)
            _put(job, flight)

    def close(self, job: Job[Ask]) -> None:
        """Let nobody else wait for a request."""
        flight = _of(job)
        if flight is not None and self._open.get(flight.key) is flight:
            del self._open[flight.key]

    def land(self, job: Job[Ask]) -> list[Job[Ask]]:
        """End the flight of a request that has its answer, and return those that waited for it."""
        flight = _of(job)
        if flight is None or flight.leader is not job:
            return []
        self.close(job)
        _put(job, None)
        return [self._released(flight, each) for each in tuple(flight.followers)]

    def leave(self, job: Job[Ask]) -> bool:
        """Drop a request whose caller is gone, and return whether it waited for another."""
        flight = _of(job)
        if flight is None or job not in flight.followers:
            return False
        self._released(flight, job)
        return True

    def fall(self, job: Job[Ask], error: Exception | None = None) -> None:
        """Go on without a leader that failed, or whose caller is gone."""
        flight = _of(job)
        if flight is None or flight.leader is not job:
            return
        _put(job, None)
        if error is None or isinstance(error, DeadlineExceeded):
            while flight.followers:
                successor = next(iter(flight.followers))
                if _tried(flight, self._released(flight, successor)):
                    flight.leader = successor
                    _put(successor, flight)
                    return
        if self._open.get(flight.key) is flight:
            del self._open[flight.key]
        for each in tuple(flight.followers):
            _tried(flight, self._released(flight, each))

    def _expire(self, flight: Flight, job: Job[Ask]) -> None:
        self.leave(job)
        job.payload.refused = True
        late = DeadlineExceeded("The deadline passed while an equal request was being answered.")
        flight.queue.fail_alone(job, late)

    def _released(self, flight: Flight, job: Job[Ask]) -> Job[Ask]:
        flight.followers.pop(job).cancel()
        self.waiting_rows -= job.rows
        _put(job, None)
        return job


def _tried(flight: Flight, job: Job[Ask]) -> bool:
    """Queue a request that waited, and return whether that could be done; else it has failed."""
    _put(job, None, MISS)
    try:
        flight.queue.offer(job)
    except Exception as error:
        flight.queue.fail_alone(job, error)
        return False
    return True


def _put(job: Job[Ask], flight: Flight | None, outcome: str = "") -> None:
    if (reuse := job.payload.reuse) is not None:
        reuse.flight, reuse.outcome = flight, outcome or reuse.outcome


def _of(job: Job[Ask]) -> Flight | None:
    reuse = job.payload.reuse
    return None if reuse is None else reuse.flight
