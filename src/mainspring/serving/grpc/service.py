"""The gate of every call: who calls, within which limits, and what is told of what went wrong.

A call passes, in this order: who calls, the limits on its message, the typed decoder, whether they may; then what
HTTP's requests pass too. A stranger's message is not even read. For that a call of one message is a stream to gRPC, of
which one message is taken; on the wire the two are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from mainspring.core.errors import Denied, Invalid, MainspringError, Unavailable
from mainspring.security.keys import Authenticator
from mainspring.security.model import Principal
from mainspring.security.ports import Authoriser
from mainspring.serving.grpc import wire
from mainspring.serving.grpc.calls import CALLS, INFER, Call, Caller
from mainspring.serving.grpc.status import code_of, details_of, trailers_of
from mainspring.serving.grpc.stream import answered_in_order
from mainspring.serving.lane import monotonic_us
from mainspring.serving.plane import DataPlane
from mainspring.serving.status import TooSlow, status_of

_log = logging.getLogger(__name__)
_HUNG_UP = 499  # in the metrics only: nobody is there to be told


@dataclass(eq=False, slots=True)
class _Counted:
    """One message on its way. `received` is monotonic, µs; `model` is empty while it is not known."""

    received: int
    model: str = ""


class Service:
    """`inference.GRPCInferenceService` over a data plane. Make it on the event loop that will serve.

    Args:
        authenticator: Says who calls, by the metadatum `authorization`.
        authoriser: Says whether they may.
        message_timeout_s: The longest the message of a call may take to arrive.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        authenticator: Authenticator,
        authoriser: Authoriser,
        message_timeout_s: float = 10.0,
    ) -> None:
        self.plane = plane
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._message_timeout_s = message_timeout_s
        self._stopping = asyncio.Event()

    def drain(self) -> None:
        """Say that no more traffic should come: streams end when what they have received is answered."""
        self.plane.draining = True
        self._stopping.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server is given."""
        handlers = {call.name: grpc.stream_unary_rpc_method_handler(self._unary(call)) for call in CALLS}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(wire.SERVICE, handlers)

    def _unary(self, call: Call) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(_messages: Any, context: Any) -> bytes:
            try:
                with self._counting() as counted:
                    principal = None if call.action is None else self._authenticate(context)
                    message = wire.decode(call.request, await self._message(context))
                    reply = await self._answer(call, message, counted, principal, context)
                    return bytes(reply.SerializeToString())
            except Exception as error:
                await _abort(call.name, error, context)

        return handle

    async def _stream(self, _messages: Any, context: Any) -> AsyncIterator[bytes]:
        async def read() -> bytes | None:
            content = await context.read()
            return None if content is grpc.aio.EOF else content

        async def answer(content: bytes) -> bytes:
            return await self._streamed(content, context)

        try:
            self._authenticate(context)  # before a message is read; and again with each, for a key may be revoked
            async for each in answered_in_order(read, answer, stopping=self._stopping):
                yield each
            if self._stopping.is_set():
                raise Unavailable("The server is stopping.")
        except Exception as error:
            await _abort("ModelStreamInfer", error, context)

    async def _streamed(self, content: bytes, context: Any) -> bytes:
        """Return the reply to one message of a stream, which goes on whatever happens to it.

        Raises:
            Denied: The key does not count any more.
        """
        reply, message = wire.StreamResponse(), None
        try:
            with self._counting() as counted:
                principal = self._authenticate(context)
                message = wire.decode(INFER.request, content)
                reply.infer_response.CopyFrom(await self._answer(INFER, message, counted, principal, context))
        except Exception as error:
            if isinstance(error, Denied) and not error.authenticated:
                raise
            _note(INFER.name, error)
            reply.error_message = details_of(error)
            if message is not None:
                reply.infer_response.id = message.id
                reply.infer_response.model_name = message.model_name
        return bytes(reply.SerializeToString())

    @contextmanager
    def _counting(self) -> Iterator[_Counted]:
        """Count a message, by what HTTP would answer to it."""
        counted, status = _Counted(monotonic_us()), _HUNG_UP
        self.plane.in_flight += 1
        try:
            yield counted
            status = 200
        except Exception as error:
            status = status_of(error) if isinstance(error, MainspringError) else 500
            raise
        finally:
            self.plane.in_flight -= 1
            self.plane.count(counted.model, status, counted.received)

    def _authenticate(self, context: Any) -> Principal:
        # Some clients take `-H "authorization: ..."` for gRPC too, and leave the space in.
        given = [value.strip() for name, value in context.invocation_metadata() if name == "authorization"]
        if len(given) > 1:
            raise Invalid("The metadata have two authorizations.")
        return self._authenticator.authenticate(given[0] if given else None)

    async def _message(self, context: Any) -> bytes:
        try:
            async with asyncio.timeout(self._message_timeout_s):
                content = await context.read()
        except TimeoutError:
            raise TooSlow(f"The message did not arrive within {self._message_timeout_s:g} s.") from None
        if content is grpc.aio.EOF:
            raise Invalid("The call has no message.")
        return bytes(content)

    async def _answer(
        self, call: Call, message: Any, counted: _Counted, principal: Principal | None, context: Any
    ) -> Any:
        counted.model = call.model_of(message)
        if call.action is not None and principal is not None:
            resource = f"endpoint/{counted.model}" if counted.model else "gateway"
            self._authoriser.check(principal, call.action, resource)
        caller = Caller(principal.id if principal else "", counted.received, context.time_remaining())
        return await call.answer(self.plane, message, caller)


def _note(name: str, error: Exception) -> None:
    """Log what is ours to look at."""
    if not isinstance(error, MainspringError):
        _log.error("%s failed.", name, exc_info=error)
    elif status_of(error) >= 500:
        _log.warning("%s answered %s: %s", name, code_of(error).name, error)


async def _abort(name: str, error: Exception, context: Any) -> NoReturn:
    if not isinstance(error, grpc.aio.AbortError):
        _note(name, error)
    await context.abort(code_of(error), details_of(error), trailers_of(error))
    raise AssertionError("`abort` raises")
