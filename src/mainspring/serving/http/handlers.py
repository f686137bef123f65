"""What each route of the protocol answers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from mainspring.core.errors import Invalid
from mainspring.serving.http.body import Bodies, Headers
from mainspring.serving.http.message import Reply, Request, reply
from mainspring.serving.http.openapi import document
from mainspring.serving.http.routes import ROUTES
from mainspring.serving.plane.infer import infer, lane_of
from mainspring.serving.plane.live import Served
from mainspring.serving.plane.metadata import model_metadata, server_metadata
from mainspring.serving.plane.metrics import CONTENT_TYPE
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.codec import Decoded, decode_infer, encode_infer

HEADER_LENGTH = "inference-header-content-length"  # how many bytes of a body are JSON, where binary data follows
VERSION = "mainspring-version"  # chooses a version where the path does not
_BINARY = ("content-type", "application/octet-stream")


class Handlers:
    """Handlers of `routes.ROUTES`.

    Args:
        bodies: Reads requests' bodies.
        numbers: Returns the Prometheus text of every process.
    """

    def __init__(
        self,
        plane: DataPlane,
        bodies: Bodies,
        numbers: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._plane = plane
        self._bodies = bodies
        self._numbers = numbers

    async def live_probe(self, _request: Request) -> Reply:
        return reply(200, {"live": True})

    async def ready_probe(self, _request: Request) -> Reply:
        reason = self._plane.unready()
        return reply(200, {"ready": True}) if reason is None else reply(503, {"ready": False, "error": reason})

    async def server(self, _request: Request) -> Reply:
        return reply(200, server_metadata())

    async def openapi(self, _request: Request) -> Reply:
        routes = ((route.method, route.path, route.action is not None) for route in ROUTES)
        return reply(200, document(self._plane.served, routes))

    async def model(self, request: Request) -> Reply:
        served = self._plane.endpoint(request.model)
        return reply(200, model_metadata(request.model, served, lane_of(served, request.version).runtime))

    async def model_ready(self, request: Request) -> Reply:
        lane = lane_of(self._plane.endpoint(request.model), request.version)
        self._plane.check_ready(lane)
        return reply(200, {"name": request.model, "version": lane.version, "ready": True})

    async def numbers(self, _request: Request) -> Reply:
        return Reply(200, await self._numbers(), (("content-type", CONTENT_TYPE),))

    async def infer(self, request: Request) -> Reply:
        # The body first, also for an unknown model: a connection whose body was not read cannot be used again.
        body = await self._bodies.read(request.headers, request.protocol)
        served = self._plane.endpoint(request.model)
        headers = request.headers
        decoded = decode_infer(body, _header_length(headers))
        version = request.version or headers.get(VERSION) or ""
        _check_halves(decoded, served)
        answered = await infer(
            decoded.asked,
            served,
            version=version,
            principal=request.principal.id if request.principal else "",
            received_us=request.received,
            gone=request.protocol.client_disconnect,
        )
        begun = time.monotonic_ns()
        content, header_length = encode_infer(answered, decoded.binary)
        ended = time.monotonic_ns()
        self._plane.metrics.of(request.model).stages["encode"].observe((ended - begun) / 1e9)
        answered.encoded = (begun, ended)
        request.answered = answered
        if header_length is None:
            return Reply(200, content)
        return Reply(200, content, (_BINARY, (HEADER_LENGTH, str(header_length))))


def _header_length(headers: Headers) -> int | None:
    given = headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        raise Invalid(f"The header Inference-Header-Content-Length is {given[:40]!r}, no number of bytes.")
    return int(given)


def _check_halves(decoded: Decoded, served: Served) -> None:
    """Return if no output would have to be FP16 in JSON."""
    binary = decoded.binary
    if binary is True:
        return
    for lane in served.lanes.values():
        for name in lane.runtime.halves:
            if name in (decoded.asked.outputs or lane.runtime.outputs) and not (binary and name in binary):
                raise Invalid(f"Output {name!r} is FP16, which JSON does not carry.", fix="ask for it as binary data.")
