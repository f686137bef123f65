"""Upstreams that speak Anthropic's messages."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mainspring.llm.adapters.server import UNREADABLE, Headers, Reader, ServerUpstream
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Event, UpstreamError
from mainspring.llm.protocol import anthropic
from mainspring.llm.protocol.events import Frame

_VERSION = ("anthropic-version", "2023-06-01")


class AnthropicUpstream(ServerUpstream):
    """A server with Anthropic's interface. It makes no vectors.

    Args:
        url: Its address, with the `/v1` at the end.
        key: Tells its API key; empty for none.
    """

    path = "/messages"

    def authorised(self, key: str) -> Headers:
        return (_VERSION, *((("x-api-key", key),) if key else ()))

    def written(self, request: ChatRequest) -> bytes:
        return anthropic.write_request(request, request.model)

    def answer_of(self, content: bytes) -> ChatReply | bytes:
        return anthropic.read_reply(content)

    def reader(self) -> Reader:
        return _Reader()

    def headers(self, request: ChatRequest, call: Call) -> Headers:
        return call.headers if request.dialect == "anthropic" else ()

    async def count(self, request: ChatRequest, call: Call) -> int:
        content = await self.post("/messages/count_tokens", anthropic.write_counted(request, request.model), call)
        try:
            return msgspec.json.decode(content, type=_Counted).input_tokens
        except UNREADABLE as error:
            raise self.no_answer(error) from None

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:  # noqa: ARG002
        raise UpstreamError(
            "This protocol has no vectors.", kind="refused", upstream=self.name, status=400, param="model"
        )


class _Counted(msgspec.Struct):
    input_tokens: Annotated[int, msgspec.Meta(ge=0)]


class _Reader(Reader):
    def __init__(self) -> None:
        super().__init__()
        self._reader = anthropic.EventReader()

    def events(self, frame: Frame) -> Event | bytes:
        found = self._reader.read(frame)
        self.done = self._reader.done
        return found
