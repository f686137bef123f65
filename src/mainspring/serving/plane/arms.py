"""Arms of a rollout: what becomes of their requests, in metrics and in the log."""

from __future__ import annotations

import asyncio
import time
import weakref

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import DeadlineExceeded, MainspringError
from mainspring.core.time import Clock
from mainspring.ledger.model import Assigned, Failure
from mainspring.ledger.ports import PredictionLog
from mainspring.ledger.recording import Recorder, Tally
from mainspring.serving.plane.batch_run import Waiter
from mainspring.serving.plane.metrics import ArmMetrics

_EVERY_S = 0.05  # between two entries of failures in the log
_ONE_BY_ONE = 64  # failures of an entry, and as many of units that have not failed yet; further ones are summed up
_UNITS = 1 << 17  # hashes of units are told apart by so many values
_ROLLOUTS = 16  # whose failed units are known at once
_LOOK_S = 0.5
HANGS_US = 5_000_000  # after its deadline


class Patience:
    """Gives up on requests of rollouts that a model keeps: a candidate that hangs shall be seen to fail.

    Args:
        longest_us: How long after its deadline a request is given up.
    """

    def __init__(self, longest_us: int = HANGS_US) -> None:
        self._longest_us = longest_us
        self._waiting: list[tuple[int, weakref.ref[Waiter]]] = []  # what is answered holds no tensors for it
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, waiter: Waiter, deadline: int) -> None:
        """Tell `waiter`, if it is not told anything until then, that it is too late."""
        self._waiting.append((deadline + self._longest_us, weakref.ref(waiter)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        now, still = time.monotonic_ns() // 1000, []
        for until, reference in self._waiting:
            waiter = reference()
            if waiter is None or waiter.done():
                continue
            if until <= now:
                waiter.set_exception(DeadlineExceeded("The model did not respond."))
            else:
                still.append((until, reference))
        self._waiting = still
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look) if still else None

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class FailureBuffer:
    """Failures on their way to the log, on the event loop.

    A storm of them costs memory and disk for a bounded number a second; the others are counted by arm, kind and weight,
    which is what evidence about an arm needs of them. Where a unit stays in its arm, its first failure alone counts: so
    there is room for units that have not failed yet, however often others fail.
    """

    def __init__(self, log: PredictionLog, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._log = log
        self._some: list[Failure] = []
        self._fresh: list[Failure] = []
        self._others = Tally()
        self._failed: dict[str, bytearray] = {}  # rollout -> whether units have a failure in the log
        self._timer: asyncio.TimerHandle | None = None

    def add(self, failure: Failure) -> None:
        """Log a failure within 50 ms."""
        failed = self._failed.setdefault(failure.rollout, bytearray(_UNITS))
        unit = failure.unit % _UNITS
        if len(self._some) < _ONE_BY_ONE:
            self._some.append(failure)
            failed[unit] = 1
        elif not failed[unit] and len(self._fresh) < _ONE_BY_ONE:
            self._fresh.append(failure)
            failed[unit] = 1
        else:
            self._others.add(failure)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self.flush)

    def flush(self) -> None:
        """Hand what waits to the log."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        some, self._some, self._fresh = [*self._some, *self._fresh], [], []
        if len(self._failed) > _ROLLOUTS:
            self._failed = {}
        self._log.fail([*some, *self._others.take()])


class ArmOutcomes:
    """Outcomes of the requests that rollouts assigned to one lane.

    Args:
        recorder: Makes the records of the lane's failures.
    """

    __slots__ = ("_buffer", "_clock", "_metrics", "_recorder")

    def __init__(self, recorder: Recorder, metrics: ArmMetrics, buffer: FailureBuffer, clock: Clock) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._buffer = buffer
        self._clock = clock

    def watch(self, waiter: Waiter, deadline: int) -> None:
        """Give a request up that the model keeps for too long after its deadline."""
        self._buffer.patience.watch(waiter, deadline)

    def answered(self, took_us: int) -> None:
        """Count a request that is answered."""
        self._metrics.answered += 1
        self._metrics.seconds.observe(took_us / 1e6)

    def failed(self, error: BaseException, took_us: int, assigned: Assigned, principal: str, request_id: str) -> None:
        """Count and log a request whose reply is an error."""
        kind = type(error).__name__ if isinstance(error, MainspringError) else "InternalError"
        self._metrics.failures[kind] += 1
        self._metrics.seconds.observe(took_us / 1e6)
        found = self._recorder.failure(
            at=self._clock.now(),
            kind=kind,
            status=codes_of(error).http,
            latency_us=took_us,
            assigned=assigned,
            principal=principal,
            request_id=request_id,
        )
        if found is not None:
            self._buffer.add(found)
