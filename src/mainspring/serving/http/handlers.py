"""Handlers of the routes over HTTP: the protocol's, then those that Triton's clients call beside it."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

import msgspec

from mainspring.core.errors import Conflict, Denied, Invalid, MainspringError, NotFound
from mainspring.core.ids import REQUEST_ID, repeatable
from mainspring.core.json_content import decoded
from mainspring.serving.http.body import Bodies
from mainspring.serving.http.message import JSON_ONLY, Headers, Reply, Request, Streamed, refusal, reply
from mainspring.serving.http.openapi import Further, document
from mainspring.serving.http.routes import ROUTES
from mainspring.serving.http.streams import EVENTS, OpenStreams, framed
from mainspring.serving.model import REQUEST
from mainspring.serving.plane.batch_run import Answer
from mainspring.serving.plane.events import events
from mainspring.serving.plane.explaining import Explaining
from mainspring.serving.plane.inference import Inference, lane_of
from mainspring.serving.plane.live import Served
from mainspring.serving.plane.metadata import (
    model_config,
    model_metadata,
    model_statistics,
    repository_index,
    server_metadata,
)
from mainspring.serving.plane.metrics import CONTENT_TYPE, EndpointMetrics
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.asked import Answered
from mainspring.serving.protocol.codec import Decoded, decode_infer, encode_infer
from mainspring.serving.protocol.generate import as_infer, generated
from mainspring.serving.protocol.rows import media_of, read_rows, write_rows
from mainspring.serving.protocol.schema import DATATYPES, RequestSchema

HEADER_LENGTH = "inference-header-content-length"  # how many bytes of a body are JSON, where binary data follows
VERSION = "mainspring-version"  # chooses a version where the path does not
TIMEOUT = "mainspring-timeout-ms"  # shortens the deadline, as `timeout` in the body does, and is read before the body
CACHE = "cache-control"  # whether an earlier answer will do
Tell = Callable[[Request, Reply | Exception | None], None]  # `None`: nobody is there any more
_MILLISECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
_BROKEN = b'{"error":"An internal error occurred."}'
_BINARY = ("content-type", "application/octet-stream")


_log = logging.getLogger(__name__)


class Handlers:
    """Handlers of `routes.ROUTES`.

    Args:
        bodies: Reads requests' bodies.
        tell: Sends what became of an `infer`.
        numbers: Returns the Prometheus text of every process.
        sees: Returns whether a request's caller may see an endpoint in a list.
        explaining: Explains predictions; `None` where nothing does.

    Attributes:
        streams: Replies in events that are under way.
        described: Returns what the OpenAPI document says of further routes to a caller.
    """

    def __init__(
        self,
        plane: DataPlane,
        bodies: Bodies,
        tell: Tell,
        numbers: Callable[[], Awaitable[bytes]],
        sees: Callable[[Request, str], bool],
        explaining: Explaining | None,
    ) -> None:
        self._plane = plane
        self._explaining = explaining
        self._bodies = bodies
        self._tell = tell
        self._numbers = numbers
        self._sees = sees
        self.streams = OpenStreams()
        self.described: Callable[[Request], Further | None] | None = None

    async def live_probe(self, _request: Request) -> Reply:
        return reply(200, {"live": True})

    async def ready_probe(self, _request: Request) -> Reply:
        reason = self._plane.unready()
        if reason is not None:
            return reply(503, {"ready": False, "error": reason})
        return reply(200, {"ready": True, **self._plane.remarks()})

    async def server(self, _request: Request) -> Reply:
        return reply(200, server_metadata())

    async def openapi(self, request: Request) -> Reply:
        routes = ((route.method, route.path, route.action is not None) for route in ROUTES)
        seen = {name: served for name, served in self._plane.served.items() if self._sees(request, name)}
        further = None if self.described is None else self.described(request)
        return reply(200, document(seen, routes, further))

    async def model(self, request: Request) -> Reply:
        served = self._plane.endpoint(request.model)
        return reply(200, model_metadata(request.model, served, lane_of(served, request.version).runtime))

    async def model_ready(self, request: Request) -> Reply:
        lane = lane_of(self._plane.endpoint(request.model), request.version)
        self._plane.check_ready(lane)
        return reply(200, {"name": request.model, "version": lane.version, "ready": True})

    async def numbers(self, _request: Request) -> Reply:
        return Reply(200, await self._numbers(), (("content-type", CONTENT_TYPE),))

    async def infer(self, request: Request) -> None:
        """Begin to answer; `_Pending` goes on. The body comes first, also for an unknown model: a connection whose body
        was not read cannot be used again."""
        header_length, _, _ = _said(request)
        self.begin(request, await self._bodies.read(request, header_length or 0))

    def begin(self, request: Request, body: bytes | memoryview) -> None:
        """Decode a request and queue it for a batch; its outcome is sent in a later turn of the loop."""
        inference, decoded, deadline = self._inference(request, body)
        metrics = self._plane.metrics.of(request.model)
        pending = _Pending(request, inference, decoded.binary, metrics, self._tell, len(body))
        inference.submit(pending, deadline_us=deadline)
        request.on_leave = pending.leave

    async def explain(self, request: Request) -> Reply:
        """Answer like `infer`, as JSON alone, with an explanation of each row."""
        header_length, _, _ = _said(request)
        body = await self._bodies.read(request, header_length or 0)
        if self._explaining is None:
            raise NotFound("This server does not explain predictions.")
        inference, decoded, deadline = self._inference(request, body)
        try:
            if inference.shaped:
                error = Denied("An explanation would show more than your outputs of this endpoint.", authenticated=True)
                inference.failed(error)
                raise error
            if decoded.binary:
                raise Invalid(
                    "An explanation is JSON, and so are the outputs beside it.", fix="ask for no binary data."
                )
            answered, explained = await self._explaining.infer(inference, deadline)
        except Exception:
            inference.refund()
            raise
        content, _ = encode_infer(answered)
        told = b'%s,"explanations":%s}' % (content[:-1], msgspec.json.encode(explained))
        return Reply(200, told, JSON_ONLY + inference.fields)

    async def rows(self, request: Request) -> Reply:
        """Answer rows in lines with lines: of the media type that the caller accepts, else of theirs."""
        runtime = lane_of(self._plane.endpoint(request.model), request.version).runtime
        if not isinstance(runtime.schema, RequestSchema):
            raise Invalid("This model takes tensors, not rows.", fix="send the body of an `infer` as JSON.")
        given = media_of(request.headers.get("content-type"))
        told = media_of(request.headers.get("accept")) or given
        inputs = {spec.name: spec.datatype for spec in runtime.inputs}
        others = {name: DATATYPES[field.dtype] for name, field in runtime.schema.keyed.items()}
        body = read_rows(bytes(await self._bodies.read(request)), given, inputs, others)
        inference, _, deadline = self._inference(request, body)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            inference.submit(future, deadline_us=deadline)
            answered = inference.answered(await future)
        except Exception as error:
            inference.failed(error)
            raise
        content = write_rows(answered, told)
        inference.replied(len(body), len(content))
        return Reply(200, content, (("content-type", told), *inference.fields))

    async def generate_stream(self, request: Request) -> Streamed:
        """Answer in events, by the generate extension: fields of the body are inputs, fields of events outputs.

        https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/generate_rest.yaml
        """
        served = self._plane.endpoint(request.model)
        _, version, _ = _said(request)
        inputs = lane_of(served, request.version or version).runtime.inputs
        return await self._in_events(request, as_infer(await self._bodies.read(request), inputs), generated)

    async def infer_stream(self, request: Request) -> Streamed:
        """Answer in events, each of which is the reply to an `infer`."""
        header_length, _, _ = _said(request)
        body = await self._bodies.read(request, header_length or 0)
        return await self._in_events(request, body, lambda answered: encode_infer(answered)[0])

    async def _in_events(
        self, request: Request, body: bytes | memoryview, write: Callable[[Answered], bytes]
    ) -> Streamed:
        """Return the reply once its first event is there: until then an error has a status."""
        inference, decoded, deadline = self._inference(request, body)
        if decoded.binary:
            error = Invalid("Events are JSON.", fix="ask for no binary data.")
            inference.failed(error)
            raise error
        parts = events(inference, deadline)
        try:
            first = await anext(parts, None)
        except BaseException:
            await parts.aclose()
            raise

        async def written() -> AsyncGenerator[bytes, None]:
            async with aclosing(parts):
                if first is not None:
                    yield framed(write(first))
                async for answered in parts:
                    yield framed(write(answered))

        def failed(error: Exception) -> bytes:
            _log.warning(
                "A stream for %s broke off: %s", request.id, error, exc_info=not isinstance(error, MainspringError)
            )
            return framed(refusal(error).body if isinstance(error, MainspringError) else _BROKEN, "error")

        return Streamed(self.streams.parts(written(), failed), EVENTS + inference.fields)

    def _inference(self, request: Request, body: bytes | memoryview) -> tuple[Inference, Decoded, float]:
        """Return a request decoded, and its deadline."""
        served = self._plane.endpoint(request.model)
        header_length, version, allowed_us = _said(request)
        version = request.version or version
        deadline = request.received + min(served.route.deadline_us, allowed_us)
        lane = lane_of(served, version)
        lane.check_time(request.received, deadline)  # before it is decoded, and again when it is known what it says
        decoded = decode_infer(body, header_length)
        if decoded.asked.parameters.timeout:
            deadline = min(deadline, request.received + decoded.asked.parameters.timeout)
            lane.check_time(request.received, deadline)
        _check_halves(decoded, served)
        route = served.route
        by_request = served.shedders or (route.rollout and route.assign == REQUEST)
        inference = Inference(
            decoded.asked,
            served,
            version,
            principal=request.principal.id if request.principal else "",
            received_us=request.received,
            named=repeatable(request.headers.get(REQUEST_ID)) if by_request else "",
            caller=request.principal,
            cache_control=", ".join(request.headers.get_all(CACHE)) if served.responses is not None else "",
        )
        return inference, decoded, deadline


class _Pending:
    """A request in flight, whose reply is sent as soon as its outcome arrives."""

    __slots__ = ("__weakref__", "_binary", "_inference", "_metrics", "_over", "_received", "_request", "_tell")

    def __init__(
        self,
        request: Request,
        inference: Inference,
        binary: frozenset[str] | bool,
        metrics: EndpointMetrics,
        tell: Tell,
        received: int,
    ) -> None:
        self._received = received
        self._request = request
        self._inference = inference
        self._binary = binary
        self._metrics = metrics
        self._tell = tell
        self._over = False

    def done(self) -> bool:
        return self._over

    def set_result(self, answer: Answer, /) -> None:
        self._over = True
        begun = time.monotonic_ns()
        try:
            answered = self._inference.answered(answer)
            content, header_length = encode_infer(answered, self._binary)
        except Exception as error:
            self._inference.failed(error)
            self._end(error)
            return
        ended = time.monotonic_ns()
        self._inference.replied(self._received, len(content))
        self._metrics.stages["encode"].observe((ended - begun) / 1e9)
        answered.encoded = (begun, ended)
        self._request.answered = answered
        headers = JSON_ONLY if header_length is None else (_BINARY, (HEADER_LENGTH, str(header_length)))
        self._end(Reply(200, content, headers + self._inference.fields))

    def set_exception(self, error: Exception, /) -> None:
        self._over = True
        self._inference.failed(error)
        self._end(error)

    def leave(self) -> None:
        if not self._over:
            self._over = True
            self._inference.cancel()
            self._end(None)

    def _end(self, outcome: Reply | Exception | None) -> None:
        """Send the outcome and drop the request: the two form a reference cycle, and the cycle collector took a
        quarter of a busy gateway's time."""
        request = self._request
        del self._request, self._inference
        self._tell(request, outcome)


def _said(request: Request) -> tuple[int | None, str, float]:
    """Return the facts in the headers: the number of JSON bytes in the body, `None` for all; the requested version;
    the time allowed, µs."""
    head = request.head
    if head.tensors is None:
        head.tensors = (_header_length(head.headers), head.headers.get(VERSION) or "", _allowed_us(head.headers))
    said: tuple[int | None, str, float] = head.tensors
    return said


def _allowed_us(headers: Headers) -> float:
    given = headers.get(TIMEOUT)
    if given is None:
        return math.inf
    if not _MILLISECONDS.fullmatch(given):
        raise Invalid(f"The header Mainspring-Timeout-Ms is {given[:40]!r}, not a number of milliseconds.")
    return float(given) * 1000


def _header_length(headers: Headers) -> int | None:
    given = headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        raise Invalid(f"The header Inference-Header-Content-Length is {given[:40]!r}, not a number of bytes.")
    return int(given)


def _check_halves(decoded: Decoded, served: Served) -> None:
    """Raise if an FP16 output is requested as JSON."""
    binary = decoded.binary
    if binary is True:
        return
    for lane in served.lanes.values():
        for name in lane.runtime.halves:
            if name in (decoded.asked.outputs or lane.runtime.outputs) and not (binary and name in binary):
                raise Invalid(f"Output {name!r} is FP16, which JSON cannot carry.", fix="request it as binary data.")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class Extensions:
    """Handlers of Triton's extensions among `routes.ROUTES`: what this server does not have is refused in words.

    https://github.com/triton-inference-server/server/tree/main/docs/protocol

    Args:
        bodies: Reads requests' bodies, which has to be done also where nothing of them matters.
        sees: Returns whether a request's caller may see an endpoint in a list.
    """

    def __init__(self, plane: DataPlane, bodies: Bodies, sees: Callable[[Request, str], bool]) -> None:
        self._plane = plane
        self._bodies = bodies
        self._sees = sees

    async def config(self, request: Request) -> Reply:
        lane = lane_of(self._plane.endpoint(request.model), request.version)
        return reply(200, model_config(request.model, lane.runtime))

    async def statistics(self, request: Request) -> Reply:
        return reply(200, model_statistics(self._plane, request.model, request.version, partial(self._sees, request)))

    async def index(self, request: Request) -> Reply:
        body = await self._bodies.read(request)
        try:
            ready = decoded(body or b"{}", _IndexRequest).ready
        except msgspec.DecodeError as error:
            raise Invalid(f"The request does not follow the protocol: {error}.") from None
        return reply(200, repository_index(self._plane, partial(self._sees, request), ready=ready))

    async def load(self, request: Request) -> Reply:
        await self._bodies.read(request)
        raise Conflict(
            f"The version behind {request.model[:100]!r} changes by promotion only; nothing was changed.",
            fix="run `mainspring promote`.",
        )

    async def regions(self, _request: Request) -> Reply:
        return reply(200, [])

    async def region(self, _request: Request) -> Reply:
        raise NotFound("There is no such region: this server does not support shared memory.")

    async def register(self, request: Request) -> Reply:
        await self._bodies.read(request)
        raise Invalid("This server does not support shared memory.", fix="send tensors as binary data.")

    async def unregister(self, request: Request) -> Reply:
        await self._bodies.read(request)  # none is registered, so there is nothing to take back
        return reply(200, {})

    async def settings(self, request: Request) -> Reply:
        if request.head.method == "POST":
            await self._bodies.read(request)
        raise Invalid(
            "Tracing and logging are configured at the start of the server, not over HTTP.",
            fix="change the settings of the profile.",
        )
