"""The data plane: Open Inference Protocol over RSGI. One event loop, no framework.

A request passes, in this order: the Host allow-list, who calls, whether they may, the limits on its body, the typed
decoder, the model's schema, the router, the version's lane. Whatever stops it is an error of ours, which becomes a
status in one place (`serving.status`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound
from mainspring.core.time import Clock
from mainspring.features.ports import OnlineStore
from mainspring.ledger.ports import PredictionLog
from mainspring.registry.bundles import Bundles
from mainspring.security.hosts import check_host
from mainspring.security.keys import Authenticator
from mainspring.security.model import Action
from mainspring.security.ports import Authoriser
from mainspring.serving.body import read_body
from mainspring.serving.codec import ErrorResponse
from mainspring.serving.infer import Gone, lane_of
from mainspring.serving.lane import monotonic_us
from mainspring.serving.message import Reply, Request, refusal, reply
from mainspring.serving.metadata import model_metadata, server_metadata
from mainspring.serving.metrics import CONTENT_TYPE
from mainspring.serving.openapi import document
from mainspring.serving.plane import DataPlane
from mainspring.serving.ports import Loader, Routes
from mainspring.serving.rest import answer
from mainspring.serving.status import WrongHost, WrongMethod

_log = logging.getLogger(__name__)
_KNOWN_HOSTS = 256
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
    DataRoute("GET", "/v2/openapi.json", Action.PREDICT, "_openapi"),
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
        executors: Makes what runs a bundle's model.
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
        executors: Loader,
        authenticator: Authenticator,
        authoriser: Authoriser,
        clock: Clock,
        allowed_hosts: Collection[str],
        max_body_bytes: int,
        body_timeout_s: float = 10.0,
        threads: int = 2,
    ) -> None:
        self._plane = DataPlane(
            routes=routes,
            bundles=bundles,
            online=online,
            log=log,
            executors=executors,
            clock=clock,
            threads=threads,
        )
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._allowed_hosts = frozenset(allowed_hosts)
        self._known_hosts: set[str] = set()
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._handlers: dict[str, dict[str, tuple[Action | None, Callable[[Request], Awaitable[Reply]]]]] = {}
        for route in ROUTES:
            self._handlers.setdefault(route.path, {})[route.method] = (route.action, getattr(self, route.handler))
        self.metrics = self._plane.metrics
        self.scrape: Callable[[], Awaitable[bytes]] | None = None  # the numbers of every process, where there are more

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return self._plane.in_flight

    def start(self) -> None:
        """Begin to follow the routing table and the online store's health."""
        self._plane.start()

    async def preloaded(self) -> None:
        """Wait until what the routing table asks for is loaded and warm, or it turned out that it cannot be read."""
        await self._plane.preloaded()

    async def stop(self) -> None:
        """Let go of everything but the log, which belongs to whoever made it. Call it when nothing is in flight."""
        await self._plane.stop()

    def drain(self) -> None:
        """Say that no more traffic should come; connections are closed with their next reply."""
        self._plane.draining = True

    def unready(self) -> str | None:
        """Return why this process should get no traffic, `None` if it should. Names nothing: anybody may ask."""
        return self._plane.unready()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        received = monotonic_us()
        if scope.proto != "http":
            protocol.close(403)
            return
        self._plane.in_flight += 1
        try:
            template, model, version = split_path(scope.path)
            try:
                told = await self._answer(template, Request(scope, protocol, model, version, received))
            except MainspringError as error:
                told = refusal(error)
                if told.status >= 500:
                    _log.warning("%s answered %d: %s", template, told.status, error)
            except Gone:
                self._plane.count(model, _HUNG_UP, received)
                return
            except Exception:
                _log.exception("%s failed.", template if template in self._handlers else "A path of no route")
                told = reply(500, ErrorResponse("Something went wrong here."))
            self._plane.count(model, told.status, received)
            headers = [*told.headers, ("connection", "close")] if self._plane.draining else list(told.headers)
            protocol.response_bytes(told.status, headers, told.body)
        finally:
            self._plane.in_flight -= 1

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

    async def _live_probe(self, _request: Request) -> Reply:
        return reply(200, {"live": True})

    async def _ready_probe(self, _request: Request) -> Reply:
        reason = self.unready()
        return reply(200, {"ready": True}) if reason is None else reply(503, {"ready": False, "error": reason})

    async def _server(self, _request: Request) -> Reply:
        return reply(200, server_metadata())

    async def _openapi(self, _request: Request) -> Reply:
        routes = ((route.method, route.path, route.action is not None) for route in ROUTES)
        return reply(200, document(self._plane.served, routes))

    async def _model(self, request: Request) -> Reply:
        served = self._plane.endpoint(request.model)
        return reply(200, model_metadata(request.model, served, lane_of(served, request.version).runtime))

    async def _model_ready(self, request: Request) -> Reply:
        lane = lane_of(self._plane.endpoint(request.model), request.version)
        self._plane.check_ready(lane)
        return reply(200, {"name": request.model, "version": lane.version, "ready": True})

    async def _infer(self, request: Request) -> Reply:
        # The body first, also for an unknown model: a connection whose body was not read cannot be used again.
        body = await read_body(
            request.scope.headers,
            request.protocol,
            max_bytes=self._max_body_bytes,
            timeout_s=self._body_timeout_s,
        )
        return await answer(request, body, self._plane.endpoint(request.model))

    async def _metrics(self, _request: Request) -> Reply:
        text = self.metrics.text() if self.scrape is None else await self.scrape()
        return Reply(200, text, (("content-type", CONTENT_TYPE),))
