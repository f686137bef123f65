"""Versions that this process serves right now, and how it follows the routing table.

The table is watched off the event loop. A change is prepared beside what serves (bundles loaded, verified, warmed),
then takes its place in one assignment: a request sees the table before or after, and one that began before is answered
by what it began with. An endpoint whose new route cannot be prepared keeps its old one. What is no longer served is
closed when the last request that it was given to is answered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate

from mainspring.core.errors import MainspringError
from mainspring.serving.model import DEFAULTS, Arm, Route
from mainspring.serving.plane.lane import Lane, monotonic_us
from mainspring.serving.plane.leases import Leases
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.ports import RoutingTable

POLL_S = 0.2
_STOP_S = 5.0  # what is being loaded when it ends is waited for this long
_SILENT = "The routing table does not respond."
_RETRY_FIRST_US = 1_000_000
_RETRY_LAST_US = 60_000_000

_log = logging.getLogger(__name__)


class Router:
    """Splits an endpoint's units, keys or requests, between its arms by their weights.

    A unit's place in [0, 1) is a hash of it, the endpoint's name and the route's salt; the arms divide that interval in
    their order. So a unit stays where it is while weights stay, and when one arm grows, only units of its neighbours
    move. Another salt draws all places again.
    """

    def __init__(self, endpoint: str, arms: Sequence[Arm], salt: str = "") -> None:
        self._arms = arms
        drawn = f"{endpoint}\0{salt}" if salt else endpoint  # no endpoint's name has a null character
        self._person = blake2b(drawn.encode(), digest_size=16).digest()
        bounds = list(accumulate(arm.weight for arm in arms))
        self._bounds = [bound / bounds[-1] for bound in bounds[:-1]]
        self._shares = [arm.weight / bounds[-1] for arm in arms]

    def pick(self, unit: bytes) -> Arm:
        """Return the arm of a unit."""
        return self._arms[self._place(unit)[0]] if self._bounds else self._arms[0]

    def assign(self, unit: bytes) -> tuple[Arm, float, int]:
        """Return the arm of a unit, the probability of that arm, and the unit's hash, 63 bits and never 0."""
        number, hashed = self._place(unit)
        return self._arms[number], self._shares[number], (hashed >> 1) or 1

    def _place(self, unit: bytes) -> tuple[int, int]:
        hashed = int.from_bytes(blake2b(unit, digest_size=8, person=self._person).digest(), "big")
        # An arm without weight has an empty interval; bisecting to the right steps over it.
        return min(bisect_right(self._bounds, (hashed >> 11) / 2**53), len(self._arms) - 1), hashed


@dataclass(frozen=True, slots=True)
class Served:
    """One endpoint as it is served: a lane a version."""

    route: Route
    router: Router
    lanes: Mapping[str, Lane]

    @property
    def control(self) -> Lane:
        """The lane that says which key a request of the rollout has: the same one while weights change."""
        return self.lanes[self.route.arms[0].version]

    @property
    def heaviest(self) -> str:
        """The version with the largest weight."""
        return max(self.route.arms, key=lambda arm: arm.weight).version

    @property
    def waiting_rows(self) -> int:
        return sum(lane.batcher.waiting_rows for lane in self.lanes.values())


@dataclass(frozen=True, slots=True)
class Table:
    """Routes in service. `refused` gives the reason for each endpoint whose newest route is not.

    Attributes:
        mark: Of the routing table, as it was followed.
    """

    mark: int = 0
    served: Mapping[str, Served] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Live:
    """Follows the routing table.

    Args:
        load: Makes a bundle ready by its digest; called in a thread.
        lane: Makes a lane for an arm of a route; called on the event loop.
        mark: Returns a number that changes with the routing table, 0 while nothing was published; called in a thread,
            often. By default the table's revision, which is the same again where a backup came and was changed.
    """

    def __init__(
        self,
        routes: RoutingTable,
        *,
        load: Callable[[str], Runtime],
        lane: Callable[[Route, Arm, Runtime], Lane],
        mark: Callable[[], int] | None = None,
    ) -> None:
        self._routes = routes
        self._mark = mark or routes.revision
        self._load = load
        self._lane = lane
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routes")
        self._runtimes: dict[str, Runtime] = {}
        self._leases = Leases()
        self._retry_at = 0
        self._retry_after = _RETRY_FIRST_US
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self.looked = asyncio.Event()  # whether the table was read once, or could not be
        self.table = Table()
        self.trouble: str | None = "The routing table has not been read yet."

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Stop serving, and close every model that no lane uses. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.table = Table()
        # In the thread, after whatever is being loaded there: that is closed too.
        closing = asyncio.wrap_future(self._thread.submit(self._keep, ()))
        self._thread.shutdown(wait=False)
        await asyncio.wait([closing], timeout=_STOP_S)
        await self._leases.stop()

    async def _follow(self) -> None:
        while True:
            try:
                await self.refresh()
                self.trouble = None
            except Exception as error:
                # The table that serves goes on serving; whatever is wrong with its source may pass.
                if self.trouble != _SILENT:
                    _log.error("%s %s", _SILENT, error, exc_info=not _ours(error))
                self.trouble = _SILENT
            self.looked.set()
            if self.trouble is None:
                # In the thread, so that an idle process wakes one thread and not two, five times a second.
                await asyncio.get_running_loop().run_in_executor(self._thread, self._await_change)
            else:
                await asyncio.sleep(POLL_S)

    def _await_change(self) -> None:
        """Block until the routing table changed, a refused route is due again, or the table cannot be read."""
        try:
            while not self._stopping.wait(POLL_S) and not self._due(self._mark()):
                self._leases.collect()
        except Exception as error:  # it is read again, and then said
            _log.debug("%s", error)

    def _due(self, mark: int) -> bool:
        return mark != self.table.mark or bool(self.table.refused and monotonic_us() >= self._retry_at)

    async def refresh(self) -> None:
        """Poll the routing table once, and follow a change."""
        loop = asyncio.get_running_loop()
        mark = await loop.run_in_executor(self._thread, self._mark)
        if not self._due(mark):
            return
        changed = mark != self.table.mark
        routes, refused = await loop.run_in_executor(self._thread, self._prepare)
        self._swap(mark, routes, refused)
        self._retry_after = _RETRY_FIRST_US if changed else min(2 * self._retry_after, _RETRY_LAST_US)
        self._retry_at = monotonic_us() + self._retry_after

    def _prepare(self) -> tuple[Mapping[str, Route], dict[str, str]]:
        """Load what the table needs and is not loaded yet. Returns the table, and why by the digest of what does not
        load."""
        routes = self._routes.current()
        refused: dict[str, str] = {}
        for digest in sorted({arm.digest for route in routes.values() for arm in route.arms}):
            if digest in self._runtimes or self._stopping.is_set():
                continue
            try:
                self._runtimes[digest] = self._load(digest)
            except Exception as error:
                refused[digest] = str(error)
                _log.error("Bundle %s is not served: %s", digest[:12], error, exc_info=not _ours(error))
        return routes, refused

    def _swap(self, mark: int, routes: Mapping[str, Route], reasons: Mapping[str, str]) -> None:
        served: dict[str, Served] = {}
        refused: dict[str, str] = {}
        for name, route in routes.items():
            old = self.table.served.get(name)
            missing = [arm for arm in route.arms if arm.digest not in self._runtimes]
            if missing:
                refused[name] = f"Version {missing[0].version} is not served: {reasons.get(missing[0].digest)}"
                if old is not None:
                    served[name] = old
            else:
                served[name] = self._serve(route, old)
        in_use = {lane.runtime.digest for each in served.values() for lane in each.lanes.values()}
        self.table = Table(mark, served, refused)
        self._keep(in_use)

    def _keep(self, digests: Collection[str]) -> None:
        """Retire every runtime but those of these bundles."""
        for digest in self._runtimes.keys() - set(digests):
            self._leases.drop(self._runtimes.pop(digest).executor)

    def _serve(self, route: Route, old: Served | None) -> Served:
        lanes: dict[str, Lane] = {}
        for arm in route.arms:
            kept = old.lanes.get(arm.version) if old is not None else None
            if kept is not None and kept.runtime.digest == arm.digest:
                kept.batcher.max_queue_rows = route.max_queue_rows
                kept.recorder.policy = route.log
                kept.defaults = route.without_store == DEFAULTS
                lanes[arm.version] = kept
            else:
                runtime = self._runtimes[arm.digest]
                lanes[arm.version] = self._lane(route, arm, runtime)
                self._leases.lend(runtime.executor, lanes[arm.version])
        return Served(route, Router(route.endpoint, route.arms, route.salt), lanes)


def _ours(error: Exception) -> bool:
    return isinstance(error, MainspringError)
