"""Inference on the endpoints of a data plane: the arm of a request, its tensors, and its answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import DeadlineExceeded, Invalid, NotFound, Overloaded
from mainspring.ledger.model import Assigned
from mainspring.security.model import Principal
from mainspring.serving.batching.batcher import Job
from mainspring.serving.caching.responses import Reuse
from mainspring.serving.model import REQUEST, Route
from mainspring.serving.outputs import LABELS
from mainspring.serving.plane.batch_run import Waiter
from mainspring.serving.plane.lane import LAST, Answer, Ask, Lane, monotonic_us
from mainspring.serving.plane.live import Served, key_unit
from mainspring.serving.plane.metering import Charge, Fields
from mainspring.serving.plane.shaping import check, needed, shaped
from mainspring.serving.protocol.asked import Answered, Asked
from mainspring.serving.protocol.schema import Rows
from mainspring.serving.protocol.tensor import Tensor

_RANDOM_BYTES = 16


class Inference:
    """One `infer` in flight: its request and its lane.

    A rollout assigns it to an arm, unless its caller names the version. Whoever sends the reply tells `replied` or
    `failed`.

    Args:
        version: The version that is asked for by its number; empty leaves the choice to the router.
        principal: Id of the caller's key.
        received_us: Arrival of the request, monotonic, µs.
        named: The caller's name for the request where the request itself has none.
        caller: Whose quotas it is charged to, and for whom its outputs are shaped.
        cache_control: What the caller says of earlier answers, as in HTTP's field.

    Attributes:
        fields: Header fields of the reply: what is left of the caller's quotas and, once it is answered, what the
            cache did.

    Raises:
        Invalid: The request does not follow the model's schema.
        NotFound: `version` is not served.
        QuotaExceeded: A quota of the caller is spent.
        Denied: An incident had the caller refused.
        Shed: The endpoint refuses it on purpose.
    """

    __slots__ = (
        "_caller",
        "_charge",
        "_principal",
        "_received",
        "_reuse",
        "_rows",
        "_shape",
        "_wanted",
        "asked",
        "assigned",
        "fields",
        "job",
        "lane",
        "served",
    )

    def __init__(
        self,
        asked: Asked,
        served: Served,
        version: str,
        *,
        principal: str,
        received_us: int,
        named: str = "",
        caller: Principal | None = None,
        cache_control: str = "",
    ) -> None:
        rollout = "" if version else served.route.rollout
        lane = served.control if rollout else lane_of(served, version)
        for each in served.shedders:  # before a rollout assigns it: an arm loses no request that it was given
            if each.concerns(caller):
                lane.check_shed(each, asked.parameters.priority, asked.id or named)
        rows = lane.runtime.schema.read(asked.inputs)
        if served.policies.restricted and caller is not None:
            lane.check_caller(served.policies, caller)
        charge: Charge | None = None
        if served.quotas is not None and caller is not None:  # before a rollout assigns it, likewise
            charge = lane.charge(served.quotas, caller, rows.count, received_us)
        self._charge = charge
        self.fields: Fields = () if charge is None else charge.fields
        self._reuse: Reuse | None = None
        if served.responses is not None:
            owner = "" if caller is None else caller.account or caller.id
            self._reuse = served.responses.asked(owner, cache_control)
        self._caller = caller
        self._shape = LABELS if charge is not None and charge.labels else served.policies.of(caller)
        self.asked = asked
        self.served = served
        self.lane = lane
        self.job: Job[Ask] | None = None
        self.assigned: Assigned | None = None
        self._principal = principal
        self._received = received_us
        self._rows = rows
        try:
            if not version and len(served.lanes) > 1:
                self._choose(_unit(asked, rows, lane, served.route, named), rollout)
                rows = self.lane.runtime.schema.read(asked.inputs)  # versions may differ in what they take
            elif rollout:
                self.assigned = Assigned(rollout, 1.0, 0)
            self._rows = rows
            self._wanted = _wanted(asked, self.lane)
            if self._shape is not None:
                outputs = self.lane.runtime.outputs
                check(self._shape, self.lane.runtime.manifest, [outputs[name] for name in self._wanted])
        except Exception as error:
            self.failed(error)
            raise

    @property
    def shaped(self) -> bool:
        """Whether its caller gets less than the model's outputs."""
        return self._shape is not None

    @property
    def rows(self) -> int:
        """Number of rows of the request."""
        return self._rows.count

    def _choose(self, unit: bytes, rollout: str) -> None:
        router = self.served.router
        if rollout:
            arm, weight, hashed = router.assign(unit)
            self.assigned = Assigned(rollout, weight, hashed)
        else:
            arm = router.pick(unit)
        self.lane = self.served.lanes[arm.version]

    def begin(self, waiter: Waiter, deadline_us: float) -> Job[Ask]:
        """Begin without a place in the queue and without the cache: its answer comes in parts."""
        self._reuse = None
        self.job = self._job(waiter, deadline_us)
        return self.job

    def _job(self, waiter: Waiter, deadline_us: float) -> Job[Ask]:
        return self.lane.job(
            self._rows,
            waiter,
            received=self._received,
            deadline=int(deadline_us),
            priority=self.asked.parameters.priority or LAST,
            principal=self._principal,
            request_id=self.asked.id or "",
            assigned=self.assigned,
            reuse=self._reuse,
        )

    def submit(self, waiter: Waiter, *, deadline_us: float | None = None) -> None:
        """Queue it for a batch; `waiter` receives the outcome in a later turn of the loop.

        Args:
            deadline_us: Deadline of the reply; by default as the endpoint and the request's parameters say.

        Raises:
            Overloaded, DeadlineExceeded: There is no room, or no time.
        """
        parameters = self.asked.parameters
        if deadline_us is None:
            allowed_us = self.served.route.deadline_us
            deadline_us = self._received + (min(allowed_us, parameters.timeout) if parameters.timeout else allowed_us)
        self.job = self._job(waiter, deadline_us)
        try:
            self.lane.submit(self.job)
        except Exception as error:
            self.job = None
            self.failed(error)
            raise
        if self.assigned is not None:
            self.lane.arm.watch(waiter, self.job.deadline)

    def cancel(self) -> None:
        """Drop it if it is still queued: its caller is gone.

        A caller who gives up after the deadline was not answered in time, which is a failure; one who leaves before is
        none.
        """
        if self.job is not None:
            self.lane.cancel(self.job)
            if self.assigned is not None and self.job.deadline <= monotonic_us():
                self.failed(DeadlineExceeded("The caller left after the deadline."))

    def replied(self, received: int = 0, sent: int = 0) -> None:
        """Count it as answered, with the bytes of its body and of its reply's."""
        took_us = monotonic_us() - self._received
        self.lane.numbers.seconds.observe(took_us / 1e6)
        self.lane.uses.answered(self._caller, self._rows.count, received, sent)
        if self.assigned is not None:
            self.lane.arm.answered(took_us)

    def refund(self) -> None:
        """Take its charge back if it was refused before anything was computed for it. Idempotent."""
        if self._charge is not None and (self.job is None or self.job.payload.refused):
            self._charge.refund()
            self._charge = None

    def failed(self, error: Exception) -> None:
        """Count it as failed, unless by the caller's fault; log it if a rollout assigned it."""
        self.refund()
        self.lane.uses.refused(self._caller)
        if isinstance(error, Overloaded) or codes_of(error).http >= 500:
            self.lane.numbers.failed += 1
        if self.assigned is not None:
            took_us = monotonic_us() - self._received
            self.lane.arm.failed(error, took_us, self.assigned, self._principal, self.asked.id or "")

    def answered(self, answer: Answer) -> Answered:
        """Return the reply to it."""
        runtime, specs = self.lane.runtime, self.lane.runtime.outputs
        arrays = None
        if self._shape is not None:
            read = {name: answer.output(name) for name in needed(runtime.manifest, self._wanted)}
            arrays = shaped(self._shape, runtime.manifest, read)
        outputs = []
        for name in self._wanted:
            array = answer.output(name) if arrays is None else arrays[name]
            outputs.append(Tensor(name, specs[name].datatype, array.shape, array))
        said: dict[str, Any] = {"prediction_ids": answer.ids}
        if self.asked.parameters.feature_statuses:
            said["feature_statuses"] = answer.statuses
        if (unusual := answer.unusual) is not None:
            said["unusual"] = unusual
        if self._reuse is not None:
            self.fields = (*self.fields, ("cache-status", self._reuse.status))
            if self._reuse.cached:
                said["cached"] = True
        found = Answered(self.served.route.endpoint, self.lane.version, outputs, said, self.asked.id)
        if self.job is not None:
            found.ran = (self.lane, self.job, answer)
        return found


async def infer(
    asked: Asked,
    served: Served,
    *,
    version: str,
    principal: str,
    received_us: int,
    deadline_us: float | None = None,
    named: str = "",
    caller: Principal | None = None,
    cache_control: str = "",
    encode: Callable[[Answered], None] = lambda _: None,
) -> Answered:
    """Return the reply to an `infer`; arguments and errors as of `Inference`. Cancellation drops the request.

    Args:
        encode: Makes the protocol's reply; an error of it is one of the request.
    """
    inference = Inference(
        asked, served, version, principal=principal, received_us=received_us, named=named, caller=caller,
        cache_control=cache_control,
    )  # fmt: skip
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    inference.submit(future, deadline_us=deadline_us)
    try:
        answered = inference.answered(await future)
        encode(answered)
    except asyncio.CancelledError:  # so says gRPC that its caller is gone
        inference.cancel()
        raise
    except Exception as error:
        inference.failed(error)
        raise
    inference.replied()
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


def _unit(asked: Asked, rows: Rows, lane: Lane, route: Route, named: str) -> bytes:
    """Return the unit by which a request is assigned to a version, see `Route.assign`."""
    if route.assign == REQUEST:
        given = asked.id or named
        return given.encode() if given else os.urandom(_RANDOM_BYTES)
    return _key(asked, rows, lane, route.by)


def _key(asked: Asked, rows: Rows, lane: Lane, by: str) -> bytes:
    """Return what a request sticks to its version by: its first row's entity keys, or the one named `by`, else its id,
    else its first row.
    """
    if rows.keyed:
        names = (by,) if by in lane.runtime.key_names else lane.runtime.key_names
        return key_unit(rows.columns[name][0] for name in names)
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
        raise Invalid(f"An output is requested twice: {', '.join(sorted(asked.outputs))[:200]}.")
    return asked.outputs
