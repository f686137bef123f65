"""Upstreams that speak OpenAI's chat completions: vLLM, llama.cpp, Ollama, and providers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from mainspring.core.errors import TooLarge
from mainspring.llm.adapters.connections import Answer, Connections, retry_after_ms
from mainspring.llm.model import (
    Call,
    ChatReply,
    ChatRequest,
    Deadlines,
    EmbeddingsReply,
    EmbeddingsRequest,
    Event,
    Events,
    UpstreamError,
)
from mainspring.llm.protocol import openai
from mainspring.llm.protocol.events import Frames

_QUICK = Deadlines(connect=2_000_000, first=2_000_000, whole=2_000_000)
_MOST_SHOWN = 300  # characters of an error that is no JSON
_KINDS: dict[int, Any] = {401: "denied", 403: "denied", 404: "missing", 429: "limited", 503: "limited", 529: "limited"}


class OpenAIUpstream:
    """A server with OpenAI's interface. Belongs to one event loop.

    Args:
        url: Its address, with the `/v1` at the end where it has one.
        key: Its API key; empty for none.
    """

    def __init__(self, name: str, url: str, key: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        headers = (("authorization", f"Bearer {key}"),) if key else ()
        self._name = name
        self._connections = Connections(name, url, headers, tls=tls)

    @property
    def name(self) -> str:
        return self._name

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        body = openai.write_request(request, request.model)
        content = await self._post("/chat/completions", body, call)
        try:
            found = openai.read_reply(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._no_answer(error) from None
        if isinstance(found, bytes):
            raise error_of(self._connections, 200, found)
        return found

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        body = openai.write_request(request, request.model)
        answer = await self._connections.send("POST", "/chat/completions", body, call.deadlines, call.headers)
        begun = False
        try:
            await check_stream(self._connections, answer)
            reader = _Reader()
            while not reader.done and (data := await answer.next(answer.due(begun))):
                events = reader.read(data)
                if events:
                    begun = True
                    yield tuple(events)
            if isinstance(reader.failure, bytes):
                raise error_of(self._connections, 200, reader.failure)
            if reader.failure is not None:
                raise self._no_answer(reader.failure)
            if not reader.whole:
                raise self._connections.error("broken", "ended its answer in the middle")
            answer.ended()
        except UpstreamError as error:
            error.begun = begun
            raise
        finally:
            answer.close()

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        content = await self._post("/embeddings", openai.write_embeddings_request(request, request.model), call)
        try:
            return openai.read_vectors(content, len(request.inputs))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._no_answer(error) from None

    async def models(self) -> tuple[str, ...]:
        answer = await self._connections.send("GET", "/models", b"", _QUICK)
        try:
            content = await answer.whole()
            if answer.status != 200:
                raise error_of(self._connections, answer.status, content)
            return tuple(each.id for each in msgspec.json.decode(content, type=_Models).data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._no_answer(error) from None
        finally:
            answer.close()

    async def healthy(self) -> bool:
        try:
            async with asyncio.timeout(2):
                await self.models()
        except UpstreamError as error:
            return error.kind in ("denied", "missing", "refused")  # it answers, and has no such list for us
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        await self._connections.close()

    async def _post(self, path: str, body: bytes, call: Call) -> bytes:
        answer = await self._connections.send("POST", path, body, call.deadlines, call.headers)
        try:
            content = await answer.whole()
            if answer.status != 200:
                raise error_of(self._connections, answer.status, content, answer)
            return content
        finally:
            answer.close()

    def _no_answer(self, error: Exception) -> UpstreamError:
        return self._connections.error("failed", f"gave no valid answer: {error}")


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Reader:
    """Reader of one stream's chunks.

    Attributes:
        done: Whether nothing of what comes counts any more.
        failure: The error that the stream has in place of the rest, or what is wrong with the rest.
    """

    def __init__(self) -> None:
        self.done = False
        self.failure: bytes | Exception | None = None
        self._frames = Frames()
        self._open: set[int] = set()
        self._finished: set[int] = set()

    @property
    def whole(self) -> bool:
        """Whether there was an answer, and each choice of it ended."""
        return bool(self._finished) and not self._open - self._finished

    def read(self, data: bytes) -> list[Event]:
        """Return the events that are complete now; those before a failure come first."""
        events: list[Event] = []
        try:
            for frame in self._frames.feed(data):
                if frame.data == openai.DONE:
                    self.done = True
                    break
                found = openai.read_event(frame.data, frame.raw)
                if isinstance(found, bytes):
                    self._fail(found)
                    break
                for event in found:
                    if event.finish:
                        self._finished.add(event.index)
                    elif event.text or event.tool_calls:
                        self._open.add(event.index)
                events += found
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TooLarge) as error:
            self._fail(error)
        return events

    def _fail(self, failure: bytes | Exception) -> None:
        self.failure = failure
        self.done = True


async def check_stream(connections: Connections, answer: Answer) -> None:
    """Raise unless an answer is a stream of events."""
    if answer.status != 200:
        raise error_of(connections, answer.status, await answer.whole(), answer)
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        content = await answer.whole()
        error = _Errors.read(content)
        if error is not None:
            raise error_of(connections, 200, content)
        raise connections.error("failed", f"gave no stream, but {kind or 'a body without a type'}")


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Errors(msgspec.Struct):
    error: _Error | str | None = None
    message: str | None = None  # as vLLM had it, without `error`

    @classmethod
    def read(cls, content: bytes) -> _Error | None:
        """Return the error in a body, or in the value of its field `error`."""
        try:
            found = msgspec.json.decode(content, type=cls)
            if isinstance(found.error, str):
                return _Error(found.error)
            return found.error or msgspec.json.decode(content, type=_Error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


def error_of(connections: Connections, status: int, content: bytes, answer: Answer | None = None) -> UpstreamError:
    """Return an upstream's error.

    Args:
        content: Its body, or what stood in place of the answer.
    """
    error = _Errors.read(content) or _Error(content[:_MOST_SHOWN].decode(errors="replace"))
    code = str(error.code or "")
    if status == 200 and code.isdigit() and len(code) == 3:
        status = int(code)
    kind = _KINDS.get(status, "refused" if 400 <= status < 500 else "failed")
    text = error.message.strip()
    what = text if kind == "refused" and text else f"The upstream {connections.name!r} answered with status {status}."
    return UpstreamError(
        what,
        kind=kind,
        upstream=connections.name,
        status=status,
        retry_after_ms=None if answer is None else retry_after_ms(answer.headers),
        code=code if kind == "refused" else "",
        type=(error.type or "") if kind == "refused" else "",
        param=(error.param or "") if kind == "refused" else "",
    )
