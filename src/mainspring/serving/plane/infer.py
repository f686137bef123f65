"""One `infer`, whichever the protocol: from what is asked to what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.serving.batching.batcher import Job
from mainspring.serving.plane.lane import Answer, Ask, Lane
from mainspring.serving.plane.live import Served
from mainspring.serving.protocol.asked import Answered, Asked, Gone
from mainspring.serving.protocol.schema import Rows
from mainspring.serving.protocol.tensor import Tensor

__all__ = ["Answered", "Asked", "Gone", "infer", "lane_of"]

_LAST = 2**32 + 1


async def infer(
    asked: Asked,
    served: Served,
    *,
    version: str,
    principal: str,
    received_us: int,
    gone: Callable[[], Awaitable[Any]] | None = None,
) -> Answered:
    """Return the reply to an `infer`.

    Args:
        version: The version that is asked for by its number; empty leaves the choice to the router.
        received_us: When the request came, monotonic, µs.
        gone: Returns when the caller has hung up.

    Raises:
        Invalid: The request does not follow the model's schema.
        NotFound: `version` is not served.
        Overloaded, DeadlineExceeded: There is no room, or no time.
        Gone: The caller hung up meanwhile.
    """
    lane = lane_of(served, version)
    rows = lane.runtime.schema.read(asked.inputs)
    if not version and len(served.lanes) > 1:
        lane = served.lanes[served.router.pick(_key(asked, rows, lane)).version]
        rows = lane.runtime.schema.read(asked.inputs)  # versions may differ in what they take
    wanted = _wanted(asked, lane)
    parameters = asked.parameters
    allowed_us = served.route.deadline_us
    if parameters.timeout:
        allowed_us = min(allowed_us, parameters.timeout)
    job = lane.submit(
        rows,
        received=received_us,
        deadline=received_us + allowed_us,
        priority=parameters.priority or _LAST,
        principal=principal,
        request_id=asked.id or "",
    )
    # What runs in the next turn of the loop cannot be cancelled; watching the connection costs a task.
    try:
        answer = await (job.payload.future if gone is None or lane.batcher.idle else _unless_gone(job, lane, gone))
    except asyncio.CancelledError:  # so says gRPC that its caller is gone
        lane.batcher.cancel(job)
        raise
    answered = _answered(served.route.endpoint, lane, asked, answer, wanted)
    answered.ran = (lane, job, answer)
    return answered


def lane_of(served: Served, version: str) -> Lane:
    """Return the lane of a version by its number; without one, that of the heaviest arm.

    Raises:
        NotFound: The version is not served.
    """
    lanes = served.lanes
    if not version:
        return next(iter(lanes.values())) if len(lanes) == 1 else lanes[served.heaviest]
    try:
        return lanes[version]
    except KeyError:
        raise NotFound(f"Version {version[:100]!r} of {served.route.endpoint!r} is not served.") from None


def _key(asked: Asked, rows: Rows, lane: Lane) -> bytes:
    """Return what a request sticks to its version by: its first row's entity keys, else its id, else its first row."""
    if rows.keyed:
        return repr([rows.columns[name][0] for name in lane.runtime.key_names]).encode()
    if asked.id:
        return asked.id.encode()
    first = [rows.columns[spec.name][:1] for spec in lane.runtime.inputs]
    if not lane.runtime.tensors:
        return repr(first).encode()
    return b"".join(repr(row.tolist()).encode() if row.dtype.hasobject else row.tobytes() for row in first)


def _wanted(asked: Asked, lane: Lane) -> Sequence[str]:
    outputs = lane.runtime.outputs
    if not asked.outputs:
        return tuple(outputs)
    for name in asked.outputs:
        if name not in outputs:
            raise Invalid(f"There is no output {name[:100]!r}.", fix=f"the outputs are {', '.join(outputs)}.")
    if len(set(asked.outputs)) < len(asked.outputs):
        raise Invalid(f"An output is asked for twice: {', '.join(sorted(asked.outputs))[:200]}.")
    return asked.outputs


async def _unless_gone(job: Job[Ask], lane: Lane, gone: Callable[[], Awaitable[Any]]) -> Answer:
    """Wait for the answer, and drop the job if the caller hangs up first."""
    future = job.payload.future
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((future, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            lane.batcher.cancel(job)
            raise Gone
        return future.result()
    finally:
        leaving.cancel()


def _answered(endpoint: str, lane: Lane, asked: Asked, answer: Answer, wanted: Sequence[str]) -> Answered:
    specs = lane.runtime.outputs
    outputs = []
    for name in wanted:
        array = answer.output(name)
        outputs.append(Tensor(name, specs[name].datatype, array.shape, array))
    said: dict[str, Any] = {"prediction_ids": answer.ids}
    if asked.parameters.feature_statuses:
        said["feature_statuses"] = answer.statuses
    return Answered(endpoint, lane.version, outputs, said, asked.id)
