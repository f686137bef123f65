"""The data plane of every protocol: the routing table's endpoints, whether they take traffic, and inference on them.

`serving.http.gateway` speaks HTTP over it, `serving.grpc` gRPC. Neither knows the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import DeadlineExceeded, Invalid, NotFound, Overloaded, Unavailable
from mainspring.core.time import Clock, format_instant
from mainspring.features.ports import OnlineStore
from mainspring.ledger.model import Assigned
from mainspring.ledger.ports import PredictionLog
from mainspring.registry.bundles import Bundles
from mainspring.security.model import Principal
from mainspring.serving.batching.batcher import Job
from mainspring.serving.model import DEFAULTS, REQUEST, Arm, Route
from mainspring.serving.outputs import LABELS
from mainspring.serving.plane import runtime
from mainspring.serving.plane.arms import HANGS_US, FailureBuffer, Patience
from mainspring.serving.plane.batch_run import Waiter
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.lane import LAST, Answer, Ask, Lane, monotonic_us
from mainspring.serving.plane.live import Live, Served, key_unit
from mainspring.serving.plane.metering import Charge, Fields
from mainspring.serving.plane.metrics import Metrics
from mainspring.serving.plane.shaping import check, needed, shaped
from mainspring.serving.plane.watch import StoreWatch
from mainspring.serving.ports import Loader, RoutingTable
from mainspring.serving.protocol.asked import Answered, Asked
from mainspring.serving.protocol.schema import Rows
from mainspring.serving.protocol.tensor import Tensor

_READS = 4  # of an online store on another machine, at once
_RANDOM_BYTES = 16
_NO_STORE = "The online store does not respond."


class DataPlane:
    """Call `start` on the event loop that serves, and `stop` when nothing is in flight.

    Args:
        routes: The routing table it follows.
        bundles: Store of verified bundles, by digest.
        online: Holds the features of requests by key.
        log: Gets every prediction before its caller does.
        executors: Makes what runs a bundle's model.
        clock: Says what time it is for features and the log. No field of a request does.
        threads: Largest number of slow models that run concurrently.
        catalog: The copy of the catalog that `routes` and the callers' keys come from, where they do.
        hangs_us: How long after its deadline a request of a rollout is given up that a model keeps.
        counts: Counts of spent quotas; by default in this process's memory.

    Attributes:
        in_flight: Number of requests in flight, counted by the protocol's server.
        draining: Whether this process is stopping.
    """

    def __init__(
        self,
        *,
        routes: RoutingTable,
        bundles: Bundles,
        online: OnlineStore,
        log: PredictionLog,
        executors: Loader,
        clock: Clock,
        threads: int,
        catalog: CatalogCopy | None = None,
        hangs_us: int = HANGS_US,
        counts: Counts | None = None,
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._failures = FailureBuffer(log, Patience(hangs_us))
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._reads = ThreadPoolExecutor(_READS, thread_name_prefix="online-read")
        self._live = Live(
            routes,
            load=lambda digest: runtime.load(bundles.load(digest), online, executors),
            lane=self._new_lane,
            mark=catalog.mark if catalog is not None else None,
            counts=counts,
        )
        self._store = StoreWatch(online)
        self.metrics = Metrics(
            ready=lambda: self.unready() is None,
            served=lambda: {name: tuple(each.lanes) for name, each in self.served.items()},
            waiting=lambda: {name: each.waiting_rows for name, each in self.served.items()},
            refused=lambda: self._live.table.refused,
            arms=lambda: {
                name: {arm.version: arm.weight for arm in each.route.arms}
                for name, each in self.served.items()
                if each.route.rollout
            },
            revisions=lambda: {name: each.route.revision for name, each in self.served.items()},
            shed=lambda: {name: each.shedder.share if each.shedder else 0.0 for name, each in self.served.items()},
            unlogged=lambda: log.unlogged,
            unlogged_failures=lambda: log.unlogged_failures,
            damaged=log.damaged,
            catalog=catalog,
        )
        self.in_flight = 0
        self.draining = False
        self.serves_more: Callable[[], bool] = bool  # whether there is something to ask beside endpoints

    def start(self) -> None:
        """Begin to follow the routing table and the online store's health."""
        if self._catalog is not None:
            self._catalog.start()
        self._live.start()
        self._store.start()

    async def preloaded(self) -> None:
        """Wait until the routing table's bundles are loaded and warm, or it turned out that it cannot be read."""
        await self._live.looked.wait()

    async def stop(self) -> None:
        """Close everything but the log, which its creator closes."""
        await self._live.stop()
        self._failures.patience.stop()
        self._failures.flush()
        await self._store.stop()
        if self._catalog is not None:
            await asyncio.to_thread(self._catalog.stop)
        self._threads.shutdown(wait=False)
        self._reads.shutdown(wait=False, cancel_futures=True)

    def unready(self) -> str | None:
        """Return why this process should get no traffic, `None` if it should. The text is public: no internal names."""
        table = self._live.table
        if self.draining:
            return "The gateway is stopping."
        if self._catalog is not None and (trouble := self._catalog.trouble) is not None:
            return trouble
        if not table.served and self._live.trouble is not None:
            return self._live.trouble
        if not table.served and not table.refused and not self.serves_more():
            return "No endpoint has a route yet."
        lost = len(table.refused.keys() - table.served.keys())
        if lost:
            return f"{lost} of {lost + len(table.served)} endpoints have no version that can be served."
        if self._store.away and any(
            lane.runtime.stored and not lane.defaults for each in table.served.values() for lane in each.lanes.values()
        ):
            return _NO_STORE
        return None

    def remarks(self) -> dict[str, Any]:
        """Return remarks for a health check of a process that takes traffic."""
        if self._catalog is None:
            return {}
        said: dict[str, Any] = {}
        if (since := self._catalog.stale_since) is not None:
            said["catalog_stale_since"] = format_instant(since)
        if self._catalog.went_back:
            said["catalog_went_back"] = True
        return said

    @property
    def served(self) -> Mapping[str, Served]:
        """Routes in service, by endpoint."""
        return self._live.table.served

    @property
    def refused(self) -> Collection[str]:
        """The endpoints whose newest route cannot be served; an older one may be."""
        return self._live.table.refused.keys()

    def endpoint(self, name: str) -> Served:
        """Return the routes in service of an endpoint.

        Raises:
            NotFound: There is none of that name.
            Unavailable: No version of it can be served, or the routing table is not known.
        """
        table = self._live.table
        served = table.served.get(name)
        if served is None:
            if name in table.refused:
                raise Unavailable(f"No version of {name!r} can be served.")
            if self._live.trouble is not None:
                raise Unavailable(self._live.trouble)
            raise NotFound(f"There is no model {name[:100]!r}.")
        return served

    def check_ready(self, lane: Lane) -> None:
        """Raise if a lane cannot answer.

        Raises:
            Unavailable: The online store it reads from does not answer.
        """
        if lane.runtime.stored and self._store.away and not lane.defaults:
            raise Unavailable(_NO_STORE)

    def count(self, model: str, status: int, received: int) -> None:
        """Count one request that was answered with an HTTP status, or what stands for it. `received` as in `Lane`."""
        if model in self.served:
            metrics = self.metrics.of(model)
            metrics.requests[status] += 1
            metrics.stages["total"].observe((monotonic_us() - received) / 1e6)
        else:
            self.metrics.outside[status] += 1

    def _new_lane(self, route: Route, arm: Arm, loaded: runtime.Runtime) -> Lane:
        # Calls of unknown length keep no other model waiting for a thread.
        own = None if loaded.executor.inline else ThreadPoolExecutor(1, thread_name_prefix=f"model-{route.endpoint}")
        return Lane(
            route.endpoint,
            arm.version,
            loaded,
            log=self._log,
            clock=self._clock,
            metrics=self.metrics.of(route.endpoint),
            threads=own or self._threads,
            reads=self._reads,
            max_queue_rows=route.max_queue_rows,
            policy=route.log,
            suspect=self._store.suspect,
            defaults=route.without_store == DEFAULTS,
            failures=self._failures,
            unusual=route.unusual,
        )


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

    Attributes:
        limits: Header fields of the reply that say what is left of the caller's quotas.

    Raises:
        Invalid: The request does not follow the model's schema.
        NotFound: `version` is not served.
        QuotaExceeded: A quota of the caller is spent.
        Denied: An incident had the caller refused.
        Shed: The endpoint refuses it on purpose.
    """

    __slots__ = (
        "_charge",
        "_principal",
        "_received",
        "_rows",
        "_shape",
        "_wanted",
        "asked",
        "assigned",
        "job",
        "lane",
        "limits",
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
    ) -> None:
        rollout = "" if version else served.route.rollout
        lane = served.control if rollout else lane_of(served, version)
        if served.shedder is not None:  # before a rollout assigns it: an arm loses no request that it was given
            lane.check_shed(served.shedder, asked.parameters.priority, asked.id or named)
        rows = lane.runtime.schema.read(asked.inputs)
        if served.policies.restricted and caller is not None:
            lane.check_caller(served.policies, caller)
        charge: Charge | None = None
        if served.quotas is not None and caller is not None:  # before a rollout assigns it, likewise
            charge = lane.charge(served.quotas, caller, rows.count, received_us)
        self._charge = charge
        self.limits: Fields = () if charge is None else charge.fields
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
        self.job = self.lane.job(
            self._rows,
            waiter,
            received=self._received,
            deadline=int(deadline_us),
            priority=parameters.priority or LAST,
            principal=self._principal,
            request_id=self.asked.id or "",
            assigned=self.assigned,
        )
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
            self.lane.batcher.cancel(self.job)
            if self.assigned is not None and self.job.deadline <= monotonic_us():
                self.failed(DeadlineExceeded("The caller left after the deadline."))

    def replied(self) -> None:
        """Count it as answered."""
        took_us = monotonic_us() - self._received
        self.lane.numbers.seconds.observe(took_us / 1e6)
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
    encode: Callable[[Answered], None] = lambda _: None,
) -> Answered:
    """Return the reply to an `infer`; arguments and errors as of `Inference`. Cancellation drops the request.

    Args:
        encode: Makes the protocol's reply; an error of it is one of the request.
    """
    inference = Inference(
        asked, served, version, principal=principal, received_us=received_us, named=named, caller=caller
    )
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
