"""The data plane of every protocol: the routing table's endpoints, and whether they take traffic.

`serving.http.gateway` speaks HTTP over it, `serving.grpc` gRPC. Neither knows the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mainspring.core.errors import NotFound, NotReady, Unavailable
from mainspring.core.time import Clock, format_instant
from mainspring.features.ports import OnlineStore
from mainspring.ledger.ports import PredictionLog
from mainspring.registry.bundles import Bundles
from mainspring.serving.model import DEFAULTS, Arm, Route
from mainspring.serving.plane import runtime
from mainspring.serving.plane.arms import HANGS_US, FailureBuffer, Patience
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.lane import Lane, monotonic_us
from mainspring.serving.plane.live import Live, Served
from mainspring.serving.plane.metrics import Metrics
from mainspring.serving.plane.placement import Devices, Placement
from mainspring.serving.plane.scaler import Scaler
from mainspring.serving.plane.uses import Uses
from mainspring.serving.plane.watch import StoreWatch
from mainspring.serving.ports import Loader, RoutingTable
from mainspring.serving.residency.memory import Memory
from mainspring.serving.residency.residency import Residency
from mainspring.serving.residency.resident import ResidentExecutor

_READS = 4  # of an online store on another machine, at once
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
        erasures: Returns the mark of the last erasure of a person's data, after which no earlier answer is given.
        memory: What the models of this process may take together, by default without a bound, and what is written of
            them.
        devices: GPUs and other devices for endpoints that ask for one.
        uses: Gets what callers had of this process; by default counts that nobody reads.

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
        erasures: Callable[[], str] = str,
        memory: Memory | None = None,
        devices: Devices | None = None,
        uses: Uses | None = None,
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._failures = FailureBuffer(log, Patience(hangs_us))
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._reads = ThreadPoolExecutor(_READS, thread_name_prefix="online-read")
        residency = Residency(memory or Memory(), lambda digest: executors(bundles.load(digest)))
        self._placement = placement = Placement(residency, executors, bundles, online, devices)
        self._uses = uses or Uses(None, 0)
        self._uses.memory = lambda: {
            (name, version): lane.runtime.executor.nbytes
            for name, each in self.served.items()
            for version, lane in each.lanes.items()
            if isinstance(lane.runtime.executor, ResidentExecutor) and lane.runtime.executor.here
        }
        self._scaler = Scaler(lambda: self.served)
        self._live = Live(
            routes,
            load=placement.load,
            lane=self._new_lane,
            mark=catalog.mark if catalog is not None else None,
            counts=counts,
            erasures=erasures,
            pin=placement.pin,
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
            shed=lambda: {name: each.shed_share for name, each in self.served.items()},
            responses=lambda: {
                name: each.responses for name, each in self.served.items() if each.responses is not None
            },
            residents=lambda: {
                (name, version): lane.runtime.executor
                for name, each in self.served.items()
                for version, lane in each.lanes.items()
                if isinstance(lane.runtime.executor, ResidentExecutor)
            },
            residency=residency,
            runtimes=lambda: {
                (name, version): lane.runtime
                for name, each in self.served.items()
                for version, lane in each.lanes.items()
            },
            devices=lambda: placement.residencies,
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
        self._scaler.start()
        self._uses.start()

    async def preloaded(self) -> None:
        """Wait until the routing table's bundles are loaded and warm, or it turned out that it cannot be read."""
        await self._live.looked.wait()

    async def stop(self) -> None:
        """Close everything but the log, which its creator closes."""
        await self._scaler.stop()
        await self._uses.stop()
        self._placement.stop()  # first: that its models are closed is no decision
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
            NotReady: No version of it can be served.
            Unavailable: The routing table is not known.
        """
        table = self._live.table
        served = table.served.get(name)
        if served is None:
            if name in table.refused:
                raise NotReady(f"No version of {name!r} can be served.")
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
        own = None
        if not loaded.executor.inline:
            own = ThreadPoolExecutor(route.executors[1], thread_name_prefix=f"model-{route.endpoint}")
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
            uses=self._uses.lane(route.endpoint, arm.version, loaded.manifest.model),
        )
