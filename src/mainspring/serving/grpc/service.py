"""Entry of every call: authentication, limits, and translation of errors.

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
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import (
    Denied,
    Invalid,
    MainspringError,
    Overloaded,
    QuotaExceeded,
    Shed,
    TooSlow,
    Unavailable,
)
from mainspring.core.ids import REQUEST_ID, RequestIds, repeatable
from mainspring.security.keys import Authenticator
from mainspring.security.model import PROJECT, Action, Principal
from mainspring.security.ports import Authoriser, Unchecked
from mainspring.serving.grpc import health, wire
from mainspring.serving.grpc.calls import CALLS, INFER, Call, Caller
from mainspring.serving.grpc.stream import answered_in_order
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.plane.status import counted_status, public_text, retry_after_s

if TYPE_CHECKING:
    from mainspring.serving.plane.tracing import Tracing


_log = logging.getLogger(__name__)
_STREAM, _WATCH = "ModelStreamInfer", "Watch"
_KEY_S = 1.0  # the longest that a key is looked for
_HUNG_UP = 499  # in the metrics only: nobody is there to be told


@dataclass(eq=False, slots=True)
class _Counted:
    """One message on its way. `received` is monotonic, µs; `model` is empty while it is not known."""

    received: int
    model: str = ""
    principal: Principal | None = None
    caller: Caller | None = None


class Service:
    """`inference.GRPCInferenceService` over a data plane, and `grpc.health.v1.Health` beside it.

    Make it on the event loop that will serve.

    Args:
        authenticator: Says who calls, by the metadatum `authorization`.
        authoriser: Says whether they may.
        message_timeout_s: The longest the message of a call may take to arrive.
        tracing: Makes spans of messages, if any are wanted.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        authenticator: Authenticator,
        authoriser: Authoriser,
        message_timeout_s: float = 10.0,
        tracing: Tracing | None = None,
    ) -> None:
        self.plane = plane
        self._tracing = tracing
        if tracing is not None:
            plane.metrics.spans = tracing.counts
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._message_timeout_s = message_timeout_s
        self._ids = RequestIds()
        self._watches = 0
        self._stopping = asyncio.Event()

    def drain(self) -> None:
        """Start draining: streams end once their received messages are answered."""
        self.plane.draining = True
        self._stopping.set()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the server's handlers."""
        streams = {wire.SERVICE: {_STREAM: self._stream}, wire.HEALTH: {_WATCH: self._watch}}
        return tuple(
            grpc.method_handlers_generic_handler(
                service,
                {
                    each.name: grpc.stream_unary_rpc_method_handler(self._unary(each))
                    for each in CALLS
                    if each.service == service
                }
                | {name: grpc.stream_stream_rpc_method_handler(stream) for name, stream in streaming.items()},
            )
            for service, streaming in streams.items()
        )

    def _unary(self, call: Call) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(_messages: Any, context: Any) -> bytes:
            request_id, own = self._named(context)
            try:
                with self._counting(f"{call.service}/{call.name}", context) as counted:
                    if call.action is not None:
                        counted.principal = await self._authenticate(context)
                    message = wire.decode(call.request, await self._message(context))
                    reply = await self._answer(call, message, counted, context, own)
                    return bytes(reply.SerializeToString())
            except Exception as error:
                await _abort(call.name, request_id, error, context)

        return handle

    async def _stream(self, _messages: Any, context: Any) -> AsyncIterator[bytes]:
        request_id, _ = self._named(context)

        async def read() -> bytes | None:
            content = await context.read()
            return None if content is grpc.aio.EOF else content

        async def answer(content: bytes) -> bytes:
            return await self._streamed(content, request_id, context)

        try:
            await self._authenticate(context)  # before a message is read; and again with each, for a key may be revoked
            async for each in answered_in_order(read, answer, stopping=self._stopping):
                yield each
            if self._stopping.is_set():
                raise Unavailable("The server is stopping.")
        except Exception as error:
            await _abort(_STREAM, request_id, error, context)

    async def _watch(self, _messages: Any, context: Any) -> AsyncIterator[bytes]:
        request_id, _ = self._named(context)
        self._watches += 1
        try:
            # Counted while its message is read only: what is in flight for hours would pass for traffic.
            with self._counting(f"{wire.HEALTH}/{_WATCH}", context):
                service = wire.decode(wire.HealthRequest, await self._message(context)).service
                if self._watches > health.MAX_WATCHES:
                    raise Overloaded(
                        f"{health.MAX_WATCHES} watches are already running; use Check.", retry_after_ms=1000
                    )
            ask = partial(health.status_of_service, self.plane, service)
            async for status in health.changes(ask, stopping=self._stopping):
                yield bytes(wire.HealthResponse(status=status).SerializeToString())
        except Exception as error:
            await _abort(_WATCH, request_id, error, context)
        finally:
            self._watches -= 1

    async def _streamed(self, content: bytes, request_id: str, context: Any) -> bytes:
        """Return the reply to one message of a stream, which goes on whatever happens to it.

        Raises:
            Denied: The key does not count any more.
        """
        reply, message = wire.StreamResponse(), None
        try:
            with self._counting(f"{wire.SERVICE}/{_STREAM}", context) as counted:
                counted.principal = await self._authenticate(context)
                message = wire.decode(INFER.request, content)
                reply.infer_response.CopyFrom(await self._answer(INFER, message, counted, context))
        except Exception as error:
            if isinstance(error, Denied) and not error.authenticated:
                raise
            _note(INFER.name, request_id, error)
            reply.error_message = details_of(error)
            if message is not None:
                reply.infer_response.id = message.id
                reply.infer_response.model_name = message.model_name
        return bytes(reply.SerializeToString())

    @contextmanager
    def _counting(self, method: str, context: Any) -> Iterator[_Counted]:
        """Count a message, by what HTTP would answer to it; and trace it."""
        counted, status, code = _Counted(monotonic_us()), _HUNG_UP, grpc.StatusCode.CANCELLED
        self.plane.in_flight += 1
        try:
            yield counted
            status, code = 200, grpc.StatusCode.OK
        except Exception as error:
            code = code_of(error)
            status = counted_status(error)
            raise
        finally:
            self.plane.in_flight -= 1
            self.plane.count(counted.model, status, counted.received)
            if self._tracing is not None:
                self._trace(self._tracing, method, context, counted, code.name)

    def _trace(self, tracing: Tracing, method: str, context: Any, counted: _Counted, code: str) -> None:
        # A stranger's word on what is kept does not count.
        given = [value for key, value in context.invocation_metadata() if key == "traceparent"]
        tracing.rpc(
            method,
            given if counted.principal is not None else (),
            received=counted.received,
            endpoint=counted.model if counted.model in self.plane.served else "",
            code=code,
            answered=counted.caller.answered if counted.caller is not None else None,
        )

    def _named(self, context: Any) -> tuple[str, str]:
        """Return the id of a call and the caller's own for it; the id is sent back in the trailing metadata."""
        given = next((value for name, value in context.invocation_metadata() if name == REQUEST_ID), None)
        request_id, own = self._ids.name(given), repeatable(given)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        return request_id, own

    async def _authenticate(self, context: Any) -> Principal:
        # Some clients take `-H "authorization: ..."` for gRPC too, and leave the space in.
        given = [value.strip() for name, value in context.invocation_metadata() if name == "authorization"]
        if len(given) > 1:
            raise Invalid("The metadata contain two authorizations.")
        header = given[0] if given else None
        try:
            return self._authenticator.authenticate(header)
        except Unchecked as unchecked:
            left_s = context.time_remaining()
            await unchecked.wait(_KEY_S if left_s is None else min(_KEY_S, left_s))
            return self._authenticator.authenticate(header)

    def _sees(self, principal: Principal, endpoint: str) -> bool:
        return self._authoriser.allows(principal, Action.ENDPOINT_DESCRIBE, f"endpoint/{endpoint}")

    async def _message(self, context: Any) -> bytes:
        try:
            async with asyncio.timeout(self._message_timeout_s):
                content = await context.read()
        except TimeoutError:
            raise TooSlow(f"The message was not received within {self._message_timeout_s:g} s.") from None
        if content is grpc.aio.EOF:
            raise Invalid("The call contains no message.")
        return bytes(content)

    async def _answer(self, call: Call, message: Any, counted: _Counted, context: Any, named: str = "") -> Any:
        principal = counted.principal
        counted.model = call.model_of(message)
        if call.action is not None and principal is not None:
            named_one = f"endpoint/{counted.model}" if counted.model else PROJECT
            self._authoriser.check(principal, call.action if counted.model else Action.GATEWAY_OPEN, named_one)
        caller = Caller(principal, counted.received, request_id=named)
        if principal is not None:
            caller.sees = partial(self._sees, principal)
        left_s = context.time_remaining()  # gRPC counts it from when the call arrived
        if left_s is not None:
            caller.deadline = monotonic_us() + left_s * 1e6
        served = self.plane.served.get(counted.model)
        if served is not None and served.responses is not None:
            said = (value for name, value in context.invocation_metadata() if name == "cache-control")
            caller.cache_control = ", ".join(map(str, said))
        counted.caller = caller
        return await call.answer(self.plane, message, caller)


def _note(name: str, request_id: str, error: Exception) -> None:
    """Log internal errors."""
    if not isinstance(error, MainspringError):
        _log.error("%s failed at %s.", name, request_id, exc_info=error)
    elif codes_of(error).http >= 500 and not isinstance(error, Shed):  # those are counted: there may be thousands
        _log.warning("%s answered %s to %s: %s", name, code_of(error).name, request_id, error)


async def _abort(name: str, request_id: str, error: Exception, context: Any) -> NoReturn:
    if not isinstance(error, grpc.aio.AbortError):
        _note(name, request_id, error)
    try:
        await context.abort(code_of(error), details_of(error), (*trailers_of(error), (REQUEST_ID, request_id)))
    except grpc.aio.InternalError:  # the call is over, as when the server stops while it comes: nobody can be told
        raise asyncio.CancelledError from None
    raise AssertionError("`abort` raises")


MAX_DETAILS = 600  # characters; percent-encoded, up to twelve bytes each, and clients take 8 KiB of metadata
SOMETHING = "An internal error occurred."


def code_of(error: Exception) -> grpc.StatusCode:
    """Return the code for an error; INTERNAL for a kind that should not get this far."""
    return grpc.StatusCode[codes_of(error).grpc]


def details_of(error: Exception) -> str:
    """Return the error text for the caller; of an internal error nothing but that it is one."""
    text = public_text(error) if isinstance(error, MainspringError) else SOMETHING
    return text if len(text) <= MAX_DETAILS else f"{text[: MAX_DETAILS - 3]}..."


def trailers_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata: when to try again, where that helps, and what is left of a quota."""
    after = retry_after_s(error) if isinstance(error, MainspringError) else None
    fields = error.fields if isinstance(error, QuotaExceeded) else ()
    return fields if after is None else (("retry-after", str(after)), *fields)
