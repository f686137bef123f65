"""The data plane: Open Inference Protocol over HTTP. One event loop, no framework.

A request passes, in this order: the Host allow-list, who calls, whether they may, the limits on its body, the typed
decoder, the model's schema, the router, the version's lane. Whatever stops it is an error of ours, which becomes a
status in one place (`core.error_codes`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from prometheus_client.core import Metric

from mainspring.core.errors import (
    DeadlineExceeded,
    Invalid,
    MainspringError,
    NoRoom,
    NotFound,
    Overloaded,
    QuotaExceeded,
    Shed,
    WrongHost,
    WrongMethod,
)
from mainspring.core.ids import REQUEST_ID, RequestIds, repeatable
from mainspring.core.time import Clock
from mainspring.features.ports import OnlineStore
from mainspring.ledger.ports import PredictionLog
from mainspring.registry.bundles import Bundles
from mainspring.security.hosts import check_host
from mainspring.security.keys import Authenticator
from mainspring.security.model import PROJECT, Action, Principal
from mainspring.security.ports import Authoriser, Unchecked
from mainspring.serving.http.body import MIN_COMPRESSED, Bodies, accepted, compressed
from mainspring.serving.http.handlers import Extensions, Handlers
from mainspring.serving.http.hosted import HOSTED_ROUTES, INVOCATIONS, Hosted
from mainspring.serving.http.message import Reply, Request, Streamed, refusal, reply
from mainspring.serving.http.openapi import Further
from mainspring.serving.http.routes import ROUTES, DataRoute, split_path
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.explaining import Explaining
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.placement import Devices
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.plane.status import SPENT
from mainspring.serving.plane.uses import Uses
from mainspring.serving.ports import ExplainerLoader, Loader, RoutingTable
from mainspring.serving.protocol.codec import ErrorResponse
from mainspring.serving.protocol.rows import media_of
from mainspring.serving.residency.memory import Memory

if TYPE_CHECKING:
    from mainspring.serving.plane.tracing import Tracing

_log = logging.getLogger(__name__)
_KNOWN_HOSTS = 256
_KEY_US = 1_000_000  # the longest that a key is looked for, where the endpoint's deadline allows it
_HUNG_UP = 499  # in the metrics only: nobody is there to be told
_Handler = Callable[[Request], Awaitable[Reply | Streamed | None]]
_EVENT_STREAM = "text/event-stream"
_NO_METHODS: dict[str, tuple[Action | None, _Handler]] = {}
_NOBODY: tuple[None, None] = (None, None)


class _Passed(msgspec.Struct, eq=False):
    """Route and caller of a request, as its head gives them."""

    template: str
    model: str
    version: str
    id: str  # its caller's name for it
    handler: _Handler | None = None
    principal: Principal | None = None
    policies: object = None  # `Authoriser.mark` of the decision


class Surface(Protocol):
    """Further routes with handlers and error bodies of their own. A handler is cancelled if its caller leaves."""

    @property
    def routes(self) -> Sequence[DataRoute]: ...

    def handler(self, route: DataRoute) -> Callable[[Request, bytes | memoryview], Awaitable[Reply | Streamed]]:
        """Return what answers a route, given a request and its body."""
        ...

    def refusal(self, request: Request, error: Exception) -> Reply:
        """Return the reply for an error."""
        ...

    def start(self) -> None:
        """Begin: on the event loop that will serve."""
        ...

    def drain(self, within_s: float) -> None:
        """End replies in parts within a time, with an error where they are not whole."""
        ...

    async def stop(self) -> None:
        """Close connections."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """Return families for Prometheus."""
        ...

    def serves(self) -> bool:
        """Return whether there is something to ask."""
        ...

    def described(self, request: Request) -> Further | None:
        """Return what the OpenAPI document says of the routes to the caller of a request; `None` while that is not
        known."""
        ...


class Gateway:
    """Answers requests. Call `start` on the event loop that will serve, and `stop` after it: see `http.server.serve`.

    Args:
        routes: The routing table it follows.
        bundles: Store of verified bundles, by digest.
        online: Holds the features of requests by key.
        log: Gets every prediction before its caller does.
        executors: Makes what runs a bundle's model.
        explainers: Makes what explains a bundle's answers; without it nothing is explained.
        authenticator: Says who calls.
        authoriser: Says whether they may.
        clock: Says what time it is for features and the log. No field of a request does.
        allowed_hosts: Names it answers to, without ports, lower case (`security.hosts.allowed_hosts`).
        max_body_bytes: The largest body, also after decompression.
        threads: Largest number of slow models that run concurrently.
        tracing: Makes spans of requests, if any are wanted.
        catalog: The copy of the catalog that routes and keys come from, where they do.
        counts: Counts of spent quotas; by default in this process's memory.
        erasures: Returns the mark of the last erasure of a person's data, after which no earlier answer is given.
        memory, devices, uses: As of `DataPlane`.
        surface: Further routes; their keys may also be given as `x-api-key`.
        hosted: The endpoint that SageMaker asks for; only in a container that it started.
    """

    ROUTES = ROUTES

    def __init__(
        self,
        *,
        routes: RoutingTable,
        bundles: Bundles,
        online: OnlineStore,
        log: PredictionLog,
        executors: Loader,
        explainers: ExplainerLoader | None = None,
        authenticator: Authenticator,
        authoriser: Authoriser,
        clock: Clock,
        allowed_hosts: Collection[str],
        max_body_bytes: int,
        threads: int = 2,
        tracing: Tracing | None = None,
        catalog: CatalogCopy | None = None,
        counts: Counts | None = None,
        erasures: Callable[[], str] = str,
        memory: Memory | None = None,
        devices: Devices | None = None,
        uses: Uses | None = None,
        surface: Surface | None = None,
        hosted: Hosted | None = None,
    ) -> None:
        self._plane = DataPlane(
            routes=routes,
            bundles=bundles,
            online=online,
            log=log,
            executors=executors,
            clock=clock,
            threads=threads,
            catalog=catalog,
            counts=counts,
            erasures=erasures,
            memory=memory,
            devices=devices,
            uses=uses,
        )
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._allowed_hosts = frozenset(allowed_hosts)
        self._known_hosts: set[str] = set()
        self._squeezing = ThreadPoolExecutor(1, thread_name_prefix="squeeze")
        self._bodies = Bodies(max_bytes=max_body_bytes, threads=self._squeezing)
        self._explaining = None if explainers is None else Explaining(bundles, explainers)
        self._handlers = Handlers(self._plane, self._bodies, self._tell, self._numbers, self._sees, self._explaining)
        self._infer = self._handlers.infer
        self._in_parts = (self._handlers.infer_stream, self._handlers.generate_stream)
        self._routes: dict[str, dict[str, tuple[Action | None, _Handler]]] = {}
        owners = (self._handlers, Extensions(self._plane, self._bodies, self._sees))
        for route in ROUTES:
            handler = next(getattr(owner, route.handler) for owner in owners if hasattr(owner, route.handler))
            self._routes.setdefault(route.path, {})[route.method] = (route.action, handler)
        self._hosted = hosted
        self._split = split_path if hosted is None else hosted.split
        self._in_clear: frozenset[str] = frozenset()  # templates that take any Host header
        if hosted is not None:
            for route in HOSTED_ROUTES:
                told: _Handler = self._infer if route.path == INVOCATIONS else self._ping
                self._routes[route.path] = {route.method: (route.action, told)}
            self._in_clear = frozenset(route.path for route in HOSTED_ROUTES)
        self._surface = surface
        self._further: set[str] = set()  # templates of the surface
        self._of_collections: set[str] = set()
        if surface is not None:
            for route in surface.routes:
                self._further.add(route.path)
                if "{collection}" in route.path:
                    self._of_collections.add(route.path)
                # Of a route whose body names the endpoint, it is checked here that the key may ask for anything at all.
                action = Action.GATEWAY_OPEN if route.in_body else route.action
                answer = self._with_body(surface.handler(route))
                self._routes.setdefault(route.path, {})[route.method] = action, answer
        self._answering: set[asyncio.Task[None]] = set()
        self._ids = RequestIds()
        self.metrics = self._plane.metrics
        self.max_body_bytes = max_body_bytes
        self._tracing = tracing
        if tracing is not None:
            self.metrics.spans = tracing.counts
        if surface is not None:
            self.metrics.further = surface.metrics
            self._handlers.described = surface.described
            self._plane.serves_more = surface.serves
        self.scrape: Callable[[], Awaitable[bytes]] | None = None  # the numbers of every process, where there are more

    @property
    def in_flight(self) -> int:
        """Number of requests that are being answered."""
        return self._plane.in_flight

    def start(self) -> None:
        """Begin to follow the routing table and the online store's health."""
        self._plane.start()
        if self._surface is not None:
            self._surface.start()

    async def preloaded(self) -> None:
        """Wait until the routing table's bundles are loaded and warm, or the table turned out to be unreadable."""
        await self._plane.preloaded()

    async def stop(self) -> None:
        """Close everything but the log, which its creator closes. Call it when no request is in flight."""
        await self._plane.stop()
        if self._surface is not None:
            await self._surface.stop()
        if self._explaining is not None:
            self._explaining.stop()
        self._squeezing.shutdown(wait=False)

    def drain(self, within_s: float) -> None:
        """Start draining: this process is no longer ready, connections are closed with their next reply, and replies in
        parts end in time."""
        self._plane.draining = True
        self._handlers.streams.drain(within_s)
        if self._surface is not None:
            self._surface.drain(within_s)

    def unready(self) -> str | None:
        """Return why this process should get no traffic, `None` if it should. The text is public: no internal names."""
        return self._plane.unready()

    def handle(self, request: Request) -> None:
        """Answer a request, now or later."""
        self._plane.in_flight += 1
        self._begin(request)

    def _begin(self, request: Request, *, again: bool = False) -> None:
        head = request.head
        passed: _Passed | None = head.passed
        if passed is None or not self._stands(passed):
            passed = _Passed(*self._split(head.path), repeatable(head.headers.get(REQUEST_ID)))
        request.template, request.model, request.version = passed.template, passed.model, passed.version
        request.id = passed.id or self._ids.fresh()
        try:
            if passed.handler is None:
                passed.policies = self._authoriser.mark
                passed.handler, passed.principal = self._handler(request)
                head.passed = passed
            request.principal = passed.principal
            if passed.handler == self._infer and request.complete and head.plain:
                self._handlers.begin(request, request.body)
                return
        except Unchecked as unchecked:
            if again:
                self._tell(request, unchecked)
            else:
                self._keep(self._begin_later(request, unchecked))
            return
        except Exception as error:
            self._tell(request, error)
            return
        if passed.handler in self._in_parts or request.template in self._further:
            request.on_leave = self._keep(self._answer_further(request, passed.handler)).cancel
        else:
            self._keep(self._answer(request, passed.handler))

    async def _begin_later(self, request: Request, unchecked: Unchecked) -> None:
        """Begin when the caller's key was looked for, or when there is no more time for that."""
        served = self._plane.served.get(request.model)
        allowed_us = min(_KEY_US, served.route.deadline_us if served is not None else _KEY_US)
        request.pause()  # a stranger's body takes no memory
        await unchecked.wait((request.received + allowed_us - monotonic_us()) / 1e6)
        request.resume()
        self._begin(request, again=True)

    def _stands(self, passed: _Passed) -> bool:
        """Return whether the cached authentication and authorisation of a head still hold."""
        principal = passed.principal
        return principal is None or (self._authenticator.stands(principal) and passed.policies is self._authoriser.mark)

    def _sees(self, request: Request, endpoint: str) -> bool:
        principal = request.principal
        return principal is not None and self._authoriser.allows(
            principal, Action.ENDPOINT_DESCRIBE, f"endpoint/{endpoint}"
        )

    def _keep(self, answering: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task, and hold a reference to it."""
        task = asyncio.get_running_loop().create_task(answering)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return task

    def refused(self, status: int) -> None:
        """Count a refusal of malformed input."""
        self._plane.metrics.outside[status] += 1

    async def _answer(self, request: Request, handler: _Handler) -> None:
        try:
            told = await handler(request)
        except Exception as error:
            self._tell(request, error)
            return
        if isinstance(told, Reply):
            self._tell(request, told)

    async def _answer_further(self, request: Request, handler: _Handler) -> None:
        """Answer a request of the surface; cancelled if its caller leaves."""
        begun = False
        try:
            told = await handler(request)
            if not isinstance(told, Streamed):
                self._tell(request, told)
                return
            begun = True
            await request.stream(told.status, (*told.headers, (REQUEST_ID, request.id)), told.parts)
            self._over(request, told.status)
        except asyncio.CancelledError:
            self._tell(request, None)
        except Exception as error:
            if not begun:
                self._tell(request, error)
                return
            _log.error("%s failed at %s.", request.template, request.id, exc_info=error)
            self._over(request, 500)

    def _with_body(self, handler: Callable[[Request, bytes | memoryview], Awaitable[Reply | Streamed]]) -> _Handler:
        async def answer(request: Request) -> Reply | Streamed:
            return await handler(request, await self._bodies.read(request))

        return answer

    def _tell(self, request: Request, told: Reply | Exception | None) -> None:
        """Send the reply to a request, and count it. `None`: the caller hung up."""
        if told is None:
            self._over(request, _HUNG_UP)
            return
        if type(told) is Reply and len(told.body) < MIN_COMPRESSED:
            self._send(request, told)
            return
        # Sheds and quotas say nothing about this process: the connection's next request may be an important one.
        overloaded = isinstance(told, (DeadlineExceeded, Overloaded)) and not isinstance(told, (QuotaExceeded, Shed))
        counted = SPENT if isinstance(told, QuotaExceeded) else None
        if isinstance(told, NoRoom) and request.model in self._plane.served:
            self.metrics.of(request.model).rejections["no_room"] += 1
        if isinstance(told, Exception):
            told = self._refusal(request, told)
        if len(told.body) >= MIN_COMPRESSED and (encoding := accepted(request.headers.get("accept-encoding"))):
            self._keep(self._squeeze(request, told, encoding))
            return
        self._send(request, told, overloaded=overloaded, counted=counted)

    async def _squeeze(self, request: Request, told: Reply, encoding: str) -> None:
        told.body = await compressed(told.body, encoding, self._squeezing)
        told.headers = (*told.headers, ("content-encoding", encoding), ("vary", "accept-encoding"))
        self._send(request, told)

    def _send(self, request: Request, told: Reply, *, overloaded: bool = False, counted: int | None = None) -> None:
        request.respond(told.status, (*told.headers, (REQUEST_ID, request.id)), told.body, overloaded=overloaded)
        self._over(request, counted or told.status)

    def _over(self, request: Request, status: int) -> None:
        plane = self._plane
        plane.in_flight -= 1
        endpoint = "" if request.template in self._of_collections else request.model
        plane.count(endpoint, status, request.received)
        if self._tracing is not None:
            template = request.template
            self._tracing.http(
                request,
                scheme="https" if request.head.secure else "http",
                route=template if template in self._routes else "",
                endpoint=endpoint if endpoint in plane.served else "",
                status=status,
            )

    def _refusal(self, request: Request, error: Exception) -> Reply:
        template = request.template
        own = self._surface if template in self._further else None
        if isinstance(error, MainspringError):
            told = refusal(error) if own is None else own.refusal(request, error)
            if told.status >= 500 and not isinstance(
                error, (DeadlineExceeded, Shed)
            ):  # those are counted: there may be thousands
                _log.warning("%s answered %d to %s: %s", template, told.status, request.id, error)
            return told
        known = template if template in self._routes else "A path without a route"
        _log.error("%s failed at %s.", known, request.id, exc_info=error)
        if own is not None:
            return own.refusal(request, error)
        return reply(500, ErrorResponse("An internal error occurred."))

    def _handler(self, request: Request) -> tuple[_Handler, Principal | None]:
        """Return what answers, and who asks, once it is clear that they may."""
        headers = request.headers
        if request.template not in self._in_clear:
            self._check_host(headers.get_all("host"))
        methods = self._routes.get(request.template, _NO_METHODS)
        action, handler = methods.get(request.head.method, _NOBODY)
        further = request.template in self._further
        principal = None
        if handler is None or action is not None or further:
            # Who calls comes before whether there is such a path: strangers learn nothing of it.
            given = headers.get("authorization")
            if given is None and further and (key := headers.get("x-api-key")):
                given = f"Bearer {key}"
            if self._hosted is not None and request.template == INVOCATIONS:
                principal = request.principal = self._hosted.principal
            else:
                principal = request.principal = self._authenticator.authenticate(given)
            if action is not None:
                kind = "collection" if request.template in self._of_collections else "endpoint"
                resource = f"{kind}/{request.model}" if request.model else PROJECT
                self._authoriser.check(principal, action, resource)
        if request.template == INVOCATIONS and handler == self._infer and media_of(headers.get("content-type")):
            handler = self._handlers.rows
        if handler == self._infer and _EVENT_STREAM in (headers.get("accept") or ""):
            handler = self._handlers.infer_stream
        if handler is None:
            if methods:
                raise WrongMethod(f"This path supports {', '.join(sorted(methods))}.")
            raise NotFound("There is no such path.")
        return handler, principal

    def _check_host(self, hosts: Sequence[str]) -> None:
        if len(hosts) != 1:  # who stands before us may have read another one than we
            raise Invalid(
                "The request has no Host header." if not hosts else "The request has more than one Host header."
            )
        host = hosts[0]
        if host in self._known_hosts:
            return
        try:
            check_host(host, self._allowed_hosts)
        except WrongHost as error:  # which names are allowed is told to nobody outside
            raise WrongHost(error.what) from None
        if len(self._known_hosts) < _KNOWN_HOSTS:  # ports differ, so there can be many
            self._known_hosts.add(host)

    async def _ping(self, request: Request) -> Reply:
        if self._hosted is not None and self._hosted.endpoint not in self._plane.served:
            return reply(503, {"ready": False, "error": "The endpoint is not served yet."})
        return await self._handlers.ready_probe(request)

    async def _numbers(self) -> bytes:
        return self.metrics.text() if self.scrape is None else await self.scrape()
