"""One `infer` over any protocol, from request to response."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.serving.batching.batcher import Job
from mainspring.serving.plane.batch_run import Waiter
from mainspring.serving.plane.lane import LAST, Answer, Ask, Lane
from mainspring.serving.plane.live import Served
from mainspring.serving.protocol.asked import Answered, Asked
from mainspring.serving.protocol.schema import Rows
from mainspring.serving.protocol.tensor import Tensor

__all__ = ["Answered", "Asked", "Inference", "infer", "lane_of"]


class Inference:
    """One `infer` in flight: its request and its lane.

    Args:
        version: The version that is asked for by its number; empty leaves the choice to the router.

    Raises:
        Invalid: The request does not follow the model's schema.
        NotFound: `version` is not served.
    """

    __slots__ = ("_rows", "_wanted", "asked", "job", "lane", "served")

    def __init__(self, asked: Asked, served: Served, version: str) -> None:
        lane = lane_of(served, version)
        rows = lane.runtime.schema.read(asked.inputs)
        if not version and len(served.lanes) > 1:
            lane = served.lanes[served.router.pick(_key(asked, rows, lane)).version]
            rows = lane.runtime.schema.read(asked.inputs)  # versions may differ in what they take
        self.asked = asked
        self.served = served
        self.lane = lane
        self.job: Job[Ask] | None = None
        self._rows = rows
        self._wanted = _wanted(asked, lane)

    def submit(self, waiter: Waiter, *, principal: str, received_us: int, deadline_us: float | None = None) -> None:
        """Queue it for a batch; `waiter` receives the outcome in a later turn of the loop.

        Args:
            received_us: Arrival of the request, monotonic, µs.
            deadline_us: Deadline of the reply; by default as the endpoint and the request's parameters say.

        Raises:
            Overloaded, DeadlineExceeded: There is no room, or no time.
        """
        parameters = self.asked.parameters
        if deadline_us is None:
            allowed_us = self.served.route.deadline_us
            deadline_us = received_us + (min(allowed_us, parameters.timeout) if parameters.timeout else allowed_us)
        self.job = self.lane.job(
            self._rows,
            waiter,
            received=received_us,
            deadline=int(deadline_us),
            priority=parameters.priority or LAST,
            principal=principal,
            request_id=self.asked.id or "",
        )
        self.lane.submit(self.job)

    def cancel(self) -> None:
        """Drop it if it is still queued: its caller is gone."""
        if self.job is not None:
            self.lane.batcher.cancel(self.job)

    def answered(self, answer: Answer) -> Answered:
        """Return the reply to it."""
        specs = self.lane.runtime.outputs
        outputs = []
        for name in self._wanted:
            array = answer.output(name)
            outputs.append(Tensor(name, specs[name].datatype, array.shape, array))
        said: dict[str, Any] = {"prediction_ids": answer.ids}
        if self.asked.parameters.feature_statuses:
            said["feature_statuses"] = answer.statuses
        found = Answered(self.served.route.endpoint, self.lane.version, outputs, said, self.asked.id)
        if self.job is not None:
            found.ran = (self.lane, self.job, answer)
        return found


async def infer(
    asked: Asked, served: Served, *, version: str, principal: str, received_us: int, deadline_us: float | None = None
) -> Answered:
    """Return the reply to an `infer`; arguments and errors as of `Inference`. Cancellation drops the request."""
    inference = Inference(asked, served, version)
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    inference.submit(future, principal=principal, received_us=received_us, deadline_us=deadline_us)
    try:
        return inference.answered(await future)
    except asyncio.CancelledError:  # so says gRPC that its caller is gone
        inference.cancel()
        raise


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
