"""The data plane: Open Inference Protocol over RSGI. One event loop, no framework.

A request passes, in this order: the Host allow-list, who calls, whether they may, the limits on its body, the typed
decoder, the model's schema, the router, the version's lane. Whatever stops it is an error of ours, which becomes a
status in one place (`serving.plane.status`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound
from mainspring.core.time import Clock
from mainspring.features.ports import OnlineStore
from mainspring.ledger.ports import PredictionLog
from mainspring.registry.bundles import Bundles
from mainspring.security.hosts import check_host
from mainspring.security.keys import Authenticator
from mainspring.security.model import Action
from mainspring.security.ports import Authoriser
from mainspring.serving.http.body import MIN_COMPRESSED, Bodies, Headers, accepted, compressed
from mainspring.serving.http.extensions import Extensions
from mainspring.serving.http.handlers import Handlers
from mainspring.serving.http.message import Reply, Request, refusal, reply
from mainspring.serving.http.routes import ROUTES, split_path
from mainspring.serving.plane.infer import Gone
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.plane.status import WrongHost, WrongMethod
from mainspring.serving.ports import Loader, Routes
from mainspring.serving.protocol.codec import ErrorResponse

if TYPE_CHECKING:
    from mainspring.serving.plane.tracing import Tracing

_log = logging.getLogger(__name__)
_KNOWN_HOSTS = 256
_HUNG_UP = 499  # in the metrics only: nobody is there to be told
_REQUEST_ID = "x-request-id"
_LONGEST_ID = 128
_Handler = Callable[[Request], Awaitable[Reply]]
_NO_METHODS: dict[str, tuple[Action | None, _Handler]] = {}
_NOBODY: tuple[None, None] = (None, None)


class Gateway:
    """An RSGI application. Call `start` on the event loop that will serve and `stop` after it, as `http.server.serve`
    does.

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
        tracing: Makes spans of requests, if any are wanted.
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
        tracing: Tracing | None = None,
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
        self._squeezing = ThreadPoolExecutor(1, thread_name_prefix="squeeze")
        self._handlers: dict[str, dict[str, tuple[Action | None, _Handler]]] = {}
        bodies = Bodies(max_bytes=max_body_bytes, timeout_s=body_timeout_s, threads=self._squeezing)
        owners = (Handlers(self._plane, bodies, self._numbers), Extensions(self._plane, bodies))
        for route in ROUTES:
            handler = next(getattr(owner, route.handler) for owner in owners if hasattr(owner, route.handler))
            self._handlers.setdefault(route.path, {})[route.method] = (route.action, handler)
        self._id = f"{os.urandom(8).hex()}-"
        self._ids = count(1)
        self.metrics = self._plane.metrics
        self._tracing = tracing
        if tracing is not None:
            self.metrics.spans = tracing.counts
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
        self._squeezing.shutdown(wait=False)

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
        plane = self._plane
        plane.in_flight += 1
        try:
            template, model, version = split_path(scope.path)
            headers = scope.headers
            request = Request(headers, protocol, scope.method, model, version, received, self._request_id(headers))
            try:
                told = await self._handler(template, request)(request)
                if len(told.body) >= MIN_COMPRESSED and (encoding := accepted(headers.get("accept-encoding"))):
                    told.body = await compressed(told.body, encoding, self._squeezing)
                    told.headers = (*told.headers, ("content-encoding", encoding), ("vary", "accept-encoding"))
            except MainspringError as error:
                told = refusal(error)
                if told.status >= 500:
                    _log.warning("%s answered %d to %s: %s", template, told.status, request.id, error)
            except Gone:
                plane.count(model, _HUNG_UP, received)
                if self._tracing is not None:
                    self._trace(self._tracing, request, scope.scheme, template, _HUNG_UP)
                return
            except Exception:
                _log.exception(
                    "%s failed at %s.", template if template in self._handlers else "A path of no route", request.id
                )
                told = reply(500, ErrorResponse("Something went wrong here."))
            plane.count(model, told.status, received)
            sent = [*told.headers, (_REQUEST_ID, request.id)]
            if plane.draining:
                sent.append(("connection", "close"))
            protocol.response_bytes(told.status, sent, told.body)
            if self._tracing is not None:
                self._trace(self._tracing, request, scope.scheme, template, told.status)
        finally:
            plane.in_flight -= 1

    def _trace(self, tracing: Tracing, request: Request, scheme: str, template: str, status: int) -> None:
        tracing.http(
            request,
            scheme=scheme,
            route=template if template in self._handlers else "",
            endpoint=request.model if request.model in self._plane.served else "",
            status=status,
        )

    def _handler(self, template: str, request: Request) -> _Handler:
        """Return what answers, once it is clear who asks and that they may."""
        headers = request.headers
        self._check_host(headers.get_all("host"))
        methods = self._handlers.get(template, _NO_METHODS)
        action, handler = methods.get(request.method, _NOBODY)
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
        return handler

    def _request_id(self, headers: Headers) -> str:
        """Return a request's name in our words to operators: its caller's, else a fresh one."""
        given = headers.get(_REQUEST_ID)
        if given is not None and len(given) <= _LONGEST_ID and given.isascii() and given.isprintable():
            return str(given)
        return f"{self._id}{next(self._ids):x}"

    def _check_host(self, hosts: Sequence[str]) -> None:
        if len(hosts) != 1:  # who stands before us may have read another one than we
            raise Invalid("The request has no Host." if not hosts else "The request has more than one Host.")
        host = hosts[0]
        if host in self._known_hosts:
            return
        try:
            check_host(host, self._allowed_hosts)
        except Denied as error:
            raise WrongHost(error.what) from None
        if len(self._known_hosts) < _KNOWN_HOSTS:  # ports differ, so there can be many
            self._known_hosts.add(host)

    async def _numbers(self) -> bytes:
        return self.metrics.text() if self.scrape is None else await self.scrape()
