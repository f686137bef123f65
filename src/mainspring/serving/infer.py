"""One `infer`: from a body to a reply."""

from __future__ import annotations

import asyncio
from typing import Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.serving.batcher import Job
from mainspring.serving.codec import (
    InferRequest,
    InferResponse,
    OutputTensor,
    Parameters,
    decode_infer,
    encode,
)
from mainspring.serving.lane import Answer, Ask, Lane
from mainspring.serving.live import Served
from mainspring.serving.message import Gone, Reply, Request
from mainspring.serving.schema import Rows

_DEFAULTS = Parameters()
_LAST = 2**32 + 1


async def infer(request: Request, body: bytes, served: Served) -> Reply:
    """Return the reply to an `infer`.

    Raises:
        Invalid: The body does not follow the protocol or the model's schema.
        NotFound: The path names a version that is not served.
        Overloaded, DeadlineExceeded: There is no room, or no time.
        Gone: The caller hung up meanwhile.
    """
    asked = decode_infer(body)
    lane = lane_of(served, request.version)
    rows = lane.runtime.schema.read(asked)
    if not request.version and len(served.lanes) > 1:
        lane = served.lanes[served.router.pick(_key(asked, rows, lane)).version]
        rows = lane.runtime.schema.read(asked)  # versions may differ in what they take
    wanted = _wanted(asked, lane)
    parameters = asked.parameters or _DEFAULTS
    allowed_us = served.route.deadline_us
    if parameters.timeout:
        allowed_us = min(allowed_us, parameters.timeout)
    job = lane.submit(
        rows,
        received=request.received,
        deadline=request.received + allowed_us,
        priority=parameters.priority or _LAST,
        principal=request.principal.id if request.principal else "",
    )
    # What runs in the next turn of the loop cannot be cancelled; watching the connection costs a task.
    answer = await (job.payload.future if lane.batcher.idle else _unless_gone(job, request.protocol))
    return Reply(200, encode(_response(request.model, lane, asked, answer, wanted, parameters)))


def lane_of(served: Served, version: str) -> Lane:
    """Return the lane that the path names; without a version, that of the heaviest arm.

    Raises:
        NotFound: The version is not served.
    """
    if not version:
        return served.lanes[served.heaviest]
    try:
        return served.lanes[version]
    except KeyError:
        raise NotFound(f"Version {version[:100]!r} of {served.route.endpoint!r} is not served.") from None


def _key(asked: InferRequest, rows: Rows, lane: Lane) -> bytes:
    """Return what a request sticks to its version by: its first row's entity keys, else its id, else its first row."""
    if rows.keyed:
        return repr([rows.columns[name][0] for name in lane.runtime.key_names]).encode()
    if asked.id:
        return asked.id.encode()
    return repr([rows.columns[name][0] for name in lane.runtime.schema.features]).encode()


def _wanted(asked: InferRequest, lane: Lane) -> tuple[str, ...]:
    outputs = lane.runtime.manifest.outputs
    if not asked.outputs:
        return outputs
    names = tuple(output.name for output in asked.outputs)
    for name in names:
        if name not in outputs:
            raise Invalid(f"There is no output {name[:100]!r}.", fix=f"the outputs are {', '.join(outputs)}.")
    return names


async def _unless_gone(job: Job[Ask], protocol: Any) -> Answer:
    """Wait for the answer, and drop the job if the caller hangs up first."""
    future = job.payload.future
    gone = asyncio.ensure_future(protocol.client_disconnect())
    try:
        await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            job.cancelled = True
            raise Gone
        return future.result()
    finally:
        gone.cancel()


def _response(
    model: str, lane: Lane, asked: InferRequest, answer: Answer, wanted: tuple[str, ...], parameters: Parameters
) -> InferResponse:
    shape = [len(answer.ids)]
    said: dict[str, Any] = {"prediction_ids": answer.ids}
    if parameters.feature_statuses:
        said["feature_statuses"] = answer.statuses
    return InferResponse(
        model_name=model,
        model_version=lane.version,
        outputs=[OutputTensor(name, lane.runtime.datatypes[name], shape, answer.outputs[name]) for name in wanted],
        parameters=said,
        id=asked.id,
    )
