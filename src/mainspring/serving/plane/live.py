"""Versions that this process serves right now, and how it follows the routing table.

The table is watched off the event loop. A change is prepared beside what serves (bundles loaded, verified, warmed),
then takes its place in one assignment: a request sees the table before or after, and one that began before is answered
by what it began with. An endpoint whose new route cannot be prepared keeps its old one. A route whose bundles are there
waits for no other's: the way back from a rollout is followed at once, whatever is being loaded. What is no longer
served is closed when the last request that it was given to is answered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import accumulate
from typing import Any

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import Clock, SystemClock
from mainspring.serving.caching.responses import Responses
from mainspring.serving.model import DEFAULTS, Arm, Route
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.lane import Lane, monotonic_us
from mainspring.serving.plane.leases import Leases
from mainspring.serving.plane.metering import Quotas
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.plane.screening import screen_of
from mainspring.serving.plane.shaping import Policies
from mainspring.serving.plane.shedding import Shedder
from mainspring.serving.ports import RoutingTable

POLL_S = 0.2
_STOP_S = 5.0  # what is being loaded when it ends is waited for this long
_SILENT = "The routing table does not respond."
_RETRY_FIRST_US = 1_000_000
_RETRY_LAST_US = 60_000_000

_Wanted = tuple[str, str]  # digest of a bundle, and the device that its endpoint asks for

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


def key_unit(values: Iterable[Any]) -> bytes:
    """Return the unit that an entity is, from the values of its key columns."""
    return repr([*values]).encode()


@dataclass(frozen=True, slots=True)
class Served:
    """One endpoint as it is served: a lane a version.

    Attributes:
        shedders: Refuse shares of its requests on purpose.
        quotas: Limit its callers; `None` without any.
        responses: Earlier answers of its versions; `None` without a cache.
        policies: On its callers' outputs.
    """

    route: Route
    router: Router
    lanes: Mapping[str, Lane]
    shedders: tuple[Shedder, ...] = ()
    quotas: Quotas | None = None
    responses: Responses | None = None
    policies: Policies = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "policies", Policies(self.route))

    @property
    def control(self) -> Lane:
        """The lane that says which key a request of the rollout has: the same one while weights change."""
        return self.lanes[self.route.arms[0].version]

    @property
    def heaviest(self) -> str:
        """The version with the largest weight."""
        return max(self.route.arms, key=lambda arm: arm.weight).version

    @property
    def shed_share(self) -> float:
        """The share of all requests that is refused on purpose now."""
        return sum(each.share for each in self.shedders if not each.shed.team)

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
        load: Makes a bundle ready by its digest, on a device; called in a thread.
        lane: Makes a lane for an arm of a route; called on the event loop.
        mark: Returns a number that changes with the routing table, 0 while nothing was published; called in a thread,
            often. By default the table's revision, which is the same again where a backup came and was changed.
        wall: The machine's clock, for the end of sheds and the periods of quotas.
        counts: Counts of spent quotas; by default in memory.
        erasures: Returns the mark of the last erasure of a person's data, after which no earlier answer is given.
        pin: Gets the bundles whose models may not leave the memory, and the endpoints of each bundle.
    """

    def __init__(
        self,
        routes: RoutingTable,
        *,
        load: Callable[[str, str], Runtime],
        lane: Callable[[Route, Arm, Runtime], Lane],
        mark: Callable[[], int] | None = None,
        wall: Clock | None = None,
        counts: Counts | None = None,
        erasures: Callable[[], str] = str,
        pin: Callable[[Collection[str], Mapping[str, Sequence[str]]], None] = lambda *_: None,
    ) -> None:
        self._erasures = erasures
        self._pin = pin
        self._routes = routes
        self._wall = wall or SystemClock()
        self._counts = counts or Counts()
        self._mark = mark or routes.revision
        self._load = load
        self._lane = lane
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routes")
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="bundles")
        self._runtimes: dict[_Wanted, Runtime] = {}
        self._loaded: dict[_Wanted, Runtime] = {}  # not yet among them
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
        closing = asyncio.wrap_future(self._loading.submit(self._close))
        self._thread.shutdown(wait=False)
        self._loading.shutdown(wait=False)
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
        """Poll the routing table once, and follow a change; it is followed on while bundles are being loaded."""
        loop = asyncio.get_running_loop()
        mark = await loop.run_in_executor(self._thread, self._mark)
        if not self._due(mark):
            return
        changed = mark != self.table.mark
        routes = await loop.run_in_executor(self._thread, self._routes.current)
        if any(route.quotas for route in routes.values()):
            await loop.run_in_executor(self._thread, self._open_counts)
        reasons: dict[_Wanted, str] = {}
        while missing := _wanted(routes.values()) - self._runtimes.keys() - reasons.keys():
            self._swap(mark, routes, reasons)
            loading = loop.run_in_executor(self._loading, self._load_all, sorted(missing))
            while not (await asyncio.wait([loading], timeout=POLL_S))[0]:
                mark, routes = await self._newer(mark, routes, reasons)
            reasons |= loading.result()
            self._runtimes |= self._loaded
            self._loaded = {}
        self._swap(mark, routes, reasons, whole=True)
        self._retry_after = _RETRY_FIRST_US if changed else min(2 * self._retry_after, _RETRY_LAST_US)
        self._retry_at = monotonic_us() + self._retry_after

    def _open_counts(self) -> None:
        try:
            self._counts.open()
        except MainspringError as error:  # each request tries again
            _log.error("Quotas cannot be counted: %s", error)

    async def _newer(
        self, mark: int, routes: Mapping[str, Route], reasons: Mapping[_Wanted, str]
    ) -> tuple[int, Mapping[str, Route]]:
        """Follow a change of the table as far as its bundles are loaded, and return the table."""
        loop = asyncio.get_running_loop()
        try:
            newest = await loop.run_in_executor(self._thread, self._mark)
            if newest == mark:
                return mark, routes
            routes = await loop.run_in_executor(self._thread, self._routes.current)
        except Exception as error:  # what is being loaded is for the table as it was known; `_follow` says the rest
            _log.debug("%s", error)
            return mark, routes
        self._swap(newest, routes, reasons)
        return newest, routes

    def _load_all(self, wanted: Sequence[_Wanted]) -> dict[_Wanted, str]:
        """Load bundles. Returns the reason of each that cannot be loaded."""
        refused: dict[_Wanted, str] = {}
        for digest, device in wanted:
            if self._stopping.is_set():
                break
            try:
                self._loaded[digest, device] = self._load(digest, device)
            except Exception as error:
                refused[digest, device] = str(error)
                _log.error("Bundle %s is not served: %s", digest[:12], error, exc_info=not _ours(error))
        return refused

    def _swap(
        self, mark: int, routes: Mapping[str, Route], reasons: Mapping[_Wanted, str], *, whole: bool = False
    ) -> None:
        """Serve the table as far as its bundles are loaded.

        Args:
            reasons: Why bundles cannot be loaded; others that are missing have yet to be loaded.
            whole: Whether all were tried, so that those that are not in use are retired.
        """
        # An arm of a rollout that is out of memory would fail requests that its control answers.
        stay = _wanted(route for route in routes.values() if route.resident or route.rollout)
        self._pin({digest for digest, _ in stay}, _users(routes))
        served: dict[str, Served] = {}
        refused: dict[str, str] = {}
        for name, route in routes.items():
            old = self.table.served.get(name)
            missing = [arm for arm in route.arms if (arm.digest, route.device) not in self._runtimes]
            ready = self._ready(route, old)
            if ready is not None:
                served[name] = self._serve(ready, old)
            elif old is not None:
                served[name] = self._limited(route, old)
            wrong = [arm for arm in missing if (arm.digest, route.device) in reasons]
            if wrong:
                reason = reasons[wrong[0].digest, route.device]
                refused[name] = f"Version {wrong[0].version} is not served: {reason}"
            elif missing and name in self.table.refused:
                refused[name] = self.table.refused[name]
        for name, old in self.table.served.items():
            if old.quotas is not None and (name not in served or served[name].quotas is not old.quotas):
                old.quotas.close()
        lanes = [lane for each in served.values() for lane in each.lanes.values()]
        in_use = {(lane.runtime.digest, lane.runtime.device) for lane in lanes}
        self.table = Table(mark, served, refused)
        self._keep(in_use if whole else in_use | _wanted(routes.values()))

    def _ready(self, route: Route, old: Served | None) -> Route | None:
        """Return a route as far as it can be served; `None` if its predecessor goes on.

        An arm without weight is left out while it is not loaded. A rollout whose other arms are not begins with its
        control alone, and none of that counts: its predecessor may be of a rollout that was stopped.
        """
        missing = [arm for arm in route.arms if (arm.digest, route.device) not in self._runtimes]
        if not missing:
            return route
        if not route.rollout:
            return None
        if all(arm.weight == 0 for arm in missing):
            return msgspec.structs.replace(route, arms=tuple(arm for arm in route.arms if arm not in missing))
        if route.arms[0] in missing:
            return None
        if old is not None and old.route.rollout == route.rollout:
            return None
        return msgspec.structs.replace(route, arms=(msgspec.structs.replace(route.arms[0], weight=1.0),), rollout="")

    def _close(self) -> None:
        """Retire every runtime."""
        self._runtimes |= self._loaded
        self._loaded = {}
        self._keep(())

    def _keep(self, wanted: Collection[_Wanted]) -> None:
        """Retire every other runtime."""
        for each in self._runtimes.keys() - set(wanted):
            self._leases.drop(self._runtimes.pop(each).executor)

    def _serve(self, route: Route, old: Served | None) -> Served:
        lanes: dict[str, Lane] = {}
        responses = self._responses(route, old)
        for arm in route.arms:
            # As many threads as a lane may have executors are its own from its begin.
            kept = old.lanes.get(arm.version) if old is not None and old.route.executors == route.executors else None
            if kept is not None and (kept.runtime.digest, kept.runtime.device) == (arm.digest, route.device):
                kept.batcher.max_queue_rows = route.max_queue_rows
                kept.recorder.policy = route.log
                kept.defaults = route.without_store == DEFAULTS
                kept.screen = screen_of(route.unusual, kept.runtime, kept.screen)
                kept.use(responses)
                lanes[arm.version] = kept
            else:
                runtime = self._runtimes[arm.digest, route.device]
                lanes[arm.version] = self._lane(route, arm, runtime)
                lanes[arm.version].use(responses)
                self._leases.lend(runtime.executor, lanes[arm.version])
        router = Router(route.endpoint, route.arms, route.salt)
        return Served(route, router, lanes, self._shedders(route, old), self._quotas(route, old), responses)

    def _limited(self, route: Route, old: Served) -> Served:
        """Return what goes on serving, with the limits and policies of a route that cannot be served yet."""
        for lane in old.lanes.values():
            lane.screen = screen_of(route.unusual, lane.runtime, lane.screen)
        kept = msgspec.structs.replace(
            old.route, shed=route.shed, team_sheds=route.team_sheds, quotas=route.quotas, price=route.price,
            outputs=route.outputs, unusual=route.unusual, restricted=route.restricted,
        )  # fmt: skip
        return replace(old, route=kept, shedders=self._shedders(route, old), quotas=self._quotas(route, old))

    def _shedders(self, route: Route, old: Served | None) -> tuple[Shedder, ...]:
        """Return the shedders of a route: the same while their sheds are the same, as they know the last requests."""
        known = {} if old is None else {each.shed: each for each in old.shedders}
        return tuple(known.get(shed) or Shedder(shed, self._wall) for shed in route.sheds)

    def _responses(self, route: Route, old: Served | None) -> Responses | None:
        """Return the earlier answers of an endpoint: the same ones while its cache is declared the same."""
        if route.cache is None:
            return None
        if old is not None and old.responses is not None and old.responses.declared == route.cache:
            return old.responses
        return Responses(route.cache, monotonic_us, self._erasures)

    def _quotas(self, route: Route, old: Served | None) -> Quotas | None:
        if not route.quotas:
            return None
        if old is not None and old.quotas is not None and old.quotas.stands_for(route):
            return old.quotas
        return Quotas(route, self._counts, self._wall)


def _wanted(routes: Iterable[Route]) -> set[_Wanted]:
    return {(arm.digest, route.device) for route in routes for arm in route.arms}


def _users(routes: Mapping[str, Route]) -> dict[str, list[str]]:
    """Return digest -> the endpoints that route to it."""
    found: dict[str, list[str]] = {}
    for name, route in sorted(routes.items()):
        for digest in dict.fromkeys(arm.digest for arm in route.arms):
            found.setdefault(digest, []).append(name)
    return found


def _ours(error: Exception) -> bool:
    return isinstance(error, MainspringError)
