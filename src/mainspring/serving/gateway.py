"""The data plane: Open Inference Protocol over RSGI. One event loop, no framework.

A request passes, in this order: the Host allow-list, who calls, whether they may, the limits on its body, the typed
decoder, the model's schema, the router, the version's lane. Whatever stops it is an error of ours, which becomes a
status in one place (`serving.status`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.time import Clock
from mainspring.features.ports import OnlineStore
from mainspring.ledger.ports import PredictionLog
from mainspring.registry.bundles import Bundles
from mainspring.security.hosts import check_host
from mainspring.security.keys import Authenticator
from mainspring.security.model import Action
from mainspring.security.ports import Authoriser
from mainspring.serving import runtime
from mainspring.serving.body import read_body
from mainspring.serving.codec import ErrorResponse
from mainspring.serving.infer import infer, lane_of
from mainspring.serving.lane import Lane, monotonic_us
from mainspring.serving.live import Live, Served
from mainspring.serving.message import Gone, Reply, Request, refusal, reply
from mainspring.serving.metadata import model_metadata, server_metadata
from mainspring.serving.metrics import CONTENT_TYPE, Metrics
from mainspring.serving.model import Arm, Route
from mainspring.serving.ports import Routes
from mainspring.serving.status import WrongHost, WrongMethod
from mainspring.serving.watch import StoreWatch

_log = logging.getLogger(__name__)
_KNOWN_HOSTS = 256
_NO_STORE = "The online store does not answer."
_HUNG_UP = 499  # in the metrics only: nobody is there to be told


@dataclass(frozen=True, slots=True)
class DataRoute:
    """One route of the data plane. `action` is what a key must allow; `None`: a probe, for which no key is needed."""

    method: str
    path: str  # {model} and {version} stand for one segment each
    action: Action | None
    handler: str  # the method of `Gateway` that answers


ROUTES: tuple[DataRoute, ...] = (
    DataRoute("GET", "/v2/health/live", None, "_live_probe"),
    DataRoute("GET", "/v2/health/ready", None, "_ready_probe"),
    DataRoute("GET", "/v2", Action.PREDICT, "_server"),
    DataRoute("GET", "/v2/models/{model}", Action.PREDICT, "_model"),
    DataRoute("GET", "/v2/models/{model}/ready", Action.PREDICT, "_model_ready"),
    DataRoute("POST", "/v2/models/{model}/infer", Action.PREDICT, "_infer"),
    DataRoute("GET", "/v2/models/{model}/versions/{version}", Action.PREDICT, "_model"),
    DataRoute("GET", "/v2/models/{model}/versions/{version}/ready", Action.PREDICT, "_model_ready"),
    DataRoute("POST", "/v2/models/{model}/versions/{version}/infer", Action.PREDICT, "_infer"),
    DataRoute("GET", "/metrics", Action.SCRAPE, "_metrics"),
)


def split_path(path: str) -> tuple[str, str, str]:
    """Return a path's template as in `ROUTES`, and the model and version in it, empty where it has none."""
    parts = path.split("/")
    model = version = ""
    if len(parts) > 3 and parts[1] == "v2" and parts[2] == "models":
        model, parts[3] = parts[3], "{model}"
        if len(parts) > 5 and parts[4] == "versions":
            version, parts[5] = parts[5], "{version}"
    return "/".join(parts), model, version


class Gateway:
    """An RSGI application. Call `start` on the event loop that will serve and `stop` after it; `serving.server.serve`
    does both.

    Args:
        routes: The routing table it follows.
        bundles: Where bundles come from, by digest, verified.
        online: Holds the features of requests by key.
        log: Gets every prediction before its caller does.
        authenticator: Says who calls.
        authoriser: Says whether they may.
        clock: Says what time it is for features and the log. No field of a request does.
        allowed_hosts: Names it answers to, without ports, lower case (`security.hosts.allowed_hosts`).
        max_body_bytes: The largest body, also after decompression.
        body_timeout_s: The longest a body may take to arrive.
        threads: How many slow models run at once.
    """

    ROUTES = ROUTES

    def __init__(
        self,
        *,
        routes: Routes,
        bundles: Bundles,
        online: OnlineStore,
        log: PredictionLog,
        authenticator: Authenticator,
        authoriser: Authoriser,
        clock: Clock,
        allowed_hosts: Collection[str],
        max_body_bytes: int,
        body_timeout_s: float = 10.0,
        threads: int = 2,
    ) -> None:
        self._log = log
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._clock = clock
        self._allowed_hosts = frozenset(allowed_hosts)
        self._known_hosts: set[str] = set()
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._live = Live(routes, load=lambda digest: runtime.load(bundles.load(digest), online), lane=self._new_lane)
        self._store = StoreWatch(online)
        self._handlers: dict[str, dict[str, tuple[Action | None, Callable[[Request], Awaitable[Reply]]]]] = {}
        for route in ROUTES:
            self._handlers.setdefault(route.path, {})[route.method] = (route.action, getattr(self, route.handler))
        self.metrics = Metrics(
            ready=lambda: self.unready() is None,
            served=lambda: {name: tuple(each.lanes) for name, each in self._served.items()},
            waiting=lambda: {name: each.waiting_rows for name, each in self._served.items()},
            refused=lambda: len(self._live.table.refused),
        )
        self.in_flight = 0
        self.draining = False

    def start(self) -> None:
        """Begin to follow the routing table and the online store's health."""
        self._live.start()
        self._store.start()

    async def stop(self) -> None:
        """Let go of everything but the log, which belongs to whoever made it. Call it when nothing is in flight."""
        await self._live.stop()
        await self._store.stop()
        self._threads.shutdown(wait=False)

    def unready(self) -> str | None:
        """Return why this process should get no traffic, `None` if it should. Names nothing: anybody may ask."""
        table = self._live.table
        if self.draining:
            return "The gateway is stopping."
        if not table.served and self._live.trouble is not None:
            return self._live.trouble
        if not table.served and not table.refused:
            return "No endpoint has a route yet."
        lost = len(table.refused.keys() - table.served.keys())
        if lost:
            return f"{lost} of {lost + len(table.served)} endpoints have no version that can be served."
        if self._store.away and any(
            lane.runtime.stored for each in table.served.values() for lane in each.lanes.values()
        ):
            return _NO_STORE
        return None

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        received = monotonic_us()
        if scope.proto != "http":
            protocol.close(403)
            return
        self.in_flight += 1
        try:
            template, model, version = split_path(scope.path)
            try:
                answer = await self._answer(template, Request(scope, protocol, model, version, received))
            except MainspringError as error:
                answer = refusal(error)
                if answer.status >= 500:
                    _log.warning("%s answered %d: %s", template, answer.status, error)
            except Gone:
                self._count(model, _HUNG_UP, received)
                return
            except Exception:
                _log.exception("%s failed.", template if template in self._handlers else "A path of no route")
                answer = reply(500, ErrorResponse("Something went wrong here."))
            self._count(model, answer.status, received)
            headers = [*answer.headers, ("connection", "close")] if self.draining else list(answer.headers)
            protocol.response_bytes(answer.status, headers, answer.body)
        finally:
            self.in_flight -= 1

    async def _answer(self, template: str, request: Request) -> Reply:
        headers = request.scope.headers
        self._check_host(headers.get("host"))
        methods = self._handlers.get(template, {})
        action, handler = methods.get(request.scope.method, (None, None))
        if handler is None or action is not None:
            # Who calls comes before whether there is such a path: strangers learn nothing of it.
            principal = request.principal = self._authenticator.authenticate(headers.get("authorization"))
            if action is not None:
                resource = f"endpoint/{request.model}" if request.model else "gateway"
                self._authoriser.check(principal, action, resource)
        if handler is None:
            if methods:
                raise WrongMethod(f"This path takes {', '.join(sorted(methods))}.")
            raise NotFound("There is no such path.")
        return await handler(request)

    def _check_host(self, host: str | None) -> None:
        if host in self._known_hosts:
            return
        if host is None:
            raise Invalid("The request has no Host.")
        try:
            check_host(host, self._allowed_hosts)
        except Denied as error:
            raise WrongHost(error.what) from None
        if len(self._known_hosts) < _KNOWN_HOSTS:  # ports differ, so there can be many
            self._known_hosts.add(host)

    def _count(self, model: str, status: int, received: int) -> None:
        if model in self._served:
            metrics = self.metrics.of(model)
            metrics.requests[status] += 1
            metrics.stages["total"].observe((monotonic_us() - received) / 1e6)
        else:
            self.metrics.outside[status] += 1

    @property
    def _served(self) -> Mapping[str, Served]:
        return self._live.table.served

    def _endpoint(self, name: str) -> Served:
        table = self._live.table
        served = table.served.get(name)
        if served is None:
            if name in table.refused:
                raise Unavailable(f"No version of {name!r} can be served.")
            if self._live.trouble is not None:
                raise Unavailable(self._live.trouble)
            raise NotFound(f"There is no model {name[:100]!r}.")
        return served

    def _new_lane(self, route: Route, arm: Arm, loaded: runtime.Runtime) -> Lane:
        return Lane(
            route.endpoint,
            arm.version,
            loaded,
            log=self._log,
            clock=self._clock,
            metrics=self.metrics.of(route.endpoint),
            threads=self._threads,
            alone=self._alone,
            max_queue_rows=route.max_queue_rows,
        )

    def _alone(self) -> bool:
        return self.in_flight <= 1

    async def _live_probe(self, _request: Request) -> Reply:
        return reply(200, {"live": True})

    async def _ready_probe(self, _request: Request) -> Reply:
        reason = self.unready()
        return reply(200, {"ready": True}) if reason is None else reply(503, {"ready": False, "error": reason})

    async def _server(self, _request: Request) -> Reply:
        return reply(200, server_metadata())

    async def _model(self, request: Request) -> Reply:
        served = self._endpoint(request.model)
        return reply(200, model_metadata(request.model, served, lane_of(served, request.version).runtime))

    async def _model_ready(self, request: Request) -> Reply:
        lane = lane_of(self._endpoint(request.model), request.version)
        if lane.runtime.stored and self._store.away:
            raise Unavailable(_NO_STORE)
        return reply(200, {"name": request.model, "version": lane.version, "ready": True})

    async def _infer(self, request: Request) -> Reply:
        # The body first, also for an unknown model: a connection whose body was not read cannot be used again.
        body = await read_body(
            request.scope.headers,
            request.protocol,
            max_bytes=self._max_body_bytes,
            timeout_s=self._body_timeout_s,
        )
        return await infer(request, body, self._endpoint(request.model))

    async def _metrics(self, _request: Request) -> Reply:
        return Reply(200, self.metrics.text(), (("content-type", CONTENT_TYPE),))
