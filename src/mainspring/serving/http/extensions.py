"""Calls of Triton's clients over HTTP beside the protocol: answered where this server has it, else refused in words.

https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.serving.http.body import Bodies
from mainspring.serving.http.message import Reply, Request, reply
from mainspring.serving.plane.infer import lane_of
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.plane.triton import model_config, model_statistics, repository_index


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_index_decoder = msgspec.json.Decoder(_IndexRequest)


class Extensions:
    """Handlers of `routes.ROUTES`.

    Args:
        bodies: Reads requests' bodies, which has to be done also where nothing of them matters.
    """

    def __init__(self, plane: DataPlane, bodies: Bodies) -> None:
        self._plane = plane
        self._bodies = bodies

    async def config(self, request: Request) -> Reply:
        lane = lane_of(self._plane.endpoint(request.model), request.version)
        return reply(200, model_config(request.model, lane.runtime))

    async def statistics(self, request: Request) -> Reply:
        return reply(200, model_statistics(self._plane, request.model, request.version))

    async def index(self, request: Request) -> Reply:
        body = await self._bodies.read(request)
        try:
            ready = _index_decoder.decode(body or b"{}").ready
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"The request does not follow the protocol: {error}.") from None
        return reply(200, repository_index(self._plane, ready=ready))

    async def load(self, request: Request) -> Reply:
        await self._bodies.read(request)
        raise Conflict(
            f"What serves {request.model[:100]!r} changes by promotion, which the gates decide; nothing was changed.",
            fix="run `mainspring promote`.",
        )

    async def regions(self, _request: Request) -> Reply:
        return reply(200, [])

    async def region(self, _request: Request) -> Reply:
        raise NotFound("There is no such region: this server has no shared memory.")

    async def register(self, request: Request) -> Reply:
        await self._bodies.read(request)
        raise Invalid("This server has no shared memory.", fix="send tensors as binary data.")

    async def unregister(self, request: Request) -> Reply:
        await self._bodies.read(request)  # none is registered, so there is nothing to take back
        return reply(200, {})

    async def settings(self, request: Request) -> Reply:
        if request.head.method == "POST":
            await self._bodies.read(request)
        raise Invalid(
            "Tracing and logging are set up where the server is started, not over HTTP.",
            fix="see the settings of the profile.",
        )
