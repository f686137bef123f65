"""Answers in parts: of a model that yields, each part is computed when its reader has room for it.

Between two parts a stream holds a generator and no thread, so slow readers keep nobody waiting. It ends by itself, at
its deadline, when its caller leaves or when the server stops; in any case it is logged, with how far it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from mainspring.core.errors import DeadlineExceeded, Invalid, MainspringError, Overloaded
from mainspring.ledger.model import STREAMED
from mainspring.ledger.model import Asked as Logged
from mainspring.serving.plane.batch_run import Answer, Work, monotonic_us, stack
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.inference import Inference
from mainspring.serving.protocol.asked import Answered

if TYPE_CHECKING:
    from mainspring.serving.ports import Yielding

MOST_STREAMS = 128  # of a lane at once
MOST_BYTES = 8 << 20  # of a part
_LOGGED_BYTES = 64 << 10  # of all parts
_RETRY_MS = 1_000
WHOLE, LEFT, LATE, FAILED = "whole", "left", "late", "failed"


class _Waiter:
    """Nobody: a stream is told its parts as they come."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Answer, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...


def check_streams(inference: Inference) -> None:
    """Raise if a request cannot be answered in parts.

    Raises:
        Invalid: The model does not yield, its endpoint logs before it answers, or the request has several rows.
        Overloaded: Too many streams are under way.
    """
    lane = inference.lane
    if not getattr(lane.runtime.executor, "yields", False):
        raise Invalid(
            f"Model {lane.runtime.manifest.model!r} gives its answer at once.",
            fix="ask with POST /v2/models/NAME/infer, without Accept: text/event-stream.",
        )
    if lane.recorder.policy.sync:
        raise Invalid("This endpoint answers only what is in its log, so it streams nothing.", fix="ask for infer.")
    if inference.rows > 1:
        raise Invalid(f"The request has {inference.rows} rows; a stream answers one.", fix="ask for each row.")
    if lane.streams >= MOST_STREAMS:
        raise Overloaded(f"{lane.streams} streams are under way.", retry_after_ms=_RETRY_MS)


async def events(inference: Inference, deadline_us: float) -> AsyncGenerator[Answered, None]:
    """Yield the parts of an answer, all with the ids of one prediction.

    Raises:
        DeadlineExceeded: It is not whole at the deadline.
        ModelFailed: The model failed, or a part is too large.
        As of `check_streams`.
    """
    try:
        check_streams(inference)
    except Exception as error:
        inference.failed(error)
        raise
    lane = inference.lane
    job = inference.begin(_Waiter(), deadline_us)
    work = Work([job], monotonic_us(), monotonic_us())
    work.gathered, work.at, work.ids = stack([job.payload.rows]), lane.now(), lane.take_ids(1)
    told = _Told()
    lane.streams += 1
    executor: Yielding = cast("Yielding", lane.runtime.executor)  # `check_streams` has seen that
    source = executor.events(work.gathered.features, 1)
    try:
        while (part := await _next(inference, source, deadline_us)) is not None:
            told.add(part)
            work.outputs = part
            yield inference.answered(Answer(work, 0, 1, False))
        told.ended = WHOLE
        inference.replied()
    except Exception as error:
        told.ended = LATE if isinstance(error, DeadlineExceeded) else FAILED
        inference.failed(error)
        raise
    finally:
        lane.streams -= 1
        lane.close_later(source)
        _record(inference, work, told)


async def _next(
    inference: Inference, source: Generator[dict[str, Any], None, None], deadline_us: float
) -> dict[str, Any] | None:
    """Return the next part, `None` behind the last."""
    left_s = (deadline_us - monotonic_us()) / 1e6
    computing = inference.lane.in_thread(lambda: next(source, None))
    computing.add_done_callback(_heard)
    try:
        async with asyncio.timeout(max(0.0, left_s)):  # `wait_for` may lose that the caller left
            part = await asyncio.shield(computing)
    except TimeoutError:
        raise DeadlineExceeded("The answer was not whole at the deadline.") from None
    except MainspringError:
        raise
    except Exception as error:
        raise ModelFailed("The model failed.") from error
    if part is not None and (size := sum(map(_size, part.values()))) > MOST_BYTES:
        raise ModelFailed(f"The model yielded {size:,} bytes at once; the most are {MOST_BYTES:,}.")
    return part


def _heard(computing: asyncio.Future[Any]) -> None:
    if not computing.cancelled():
        computing.exception()  # nobody may wait for it any more


class _Told:
    """The parts of an answer, as the log has them."""

    def __init__(self) -> None:
        self.events = 0
        self.ended = LEFT
        self.last: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []
        self._room = _LOGGED_BYTES

    def add(self, part: dict[str, Any]) -> None:
        self.events, self.last = self.events + 1, part
        self._room -= sum(_size(array) for array in part.values())
        if self._room >= 0:
            self._parts.append({name: array[:1].tolist()[0] for name, array in part.items()})

    @property
    def outputs(self) -> dict[str, Any]:
        cut = {"cut": True} if self._room < 0 else {}
        document = {"ended": self.ended, "events": self.events, **cut, "parts": self._parts}
        return {**self.last, STREAMED: [msgspec.json.encode(document).decode()]}


def _size(array: np.ndarray[Any, Any]) -> int:
    return sum(len(str(each)) for each in array.flat) if array.dtype.hasobject else array.nbytes


def _record(inference: Inference, work: Work, told: _Told) -> None:
    lane, ask = inference.lane, work.jobs[0].payload
    asked = Logged(ask.principal, monotonic_us() - ask.received, 1, ask.request_id)
    lane.recorder.record(
        at=work.at,
        ids=work.ids,
        asked=[asked],
        features=work.gathered.features,
        outputs=told.outputs,
        assigned=[inference.assigned] if inference.assigned is not None else (),
    )
