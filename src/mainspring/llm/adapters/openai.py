"""Upstreams that speak OpenAI's chat completions: vLLM, llama.cpp, Ollama, and providers."""

from __future__ import annotations

import ssl

from mainspring.llm.adapters.server import UNREADABLE, Reader, ServerUpstream
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Event
from mainspring.llm.protocol import openai
from mainspring.llm.protocol.events import Frame


class OpenAIUpstream(ServerUpstream):
    """A server with OpenAI's interface.

    Args:
        url: Its address, with the `/v1` at the end where it has one.
        key: Its API key; empty for none.
    """

    path = "/chat/completions"

    def __init__(self, name: str, url: str, key: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name, url, (("authorization", f"Bearer {key}"),) if key else (), tls=tls)

    def written(self, request: ChatRequest) -> bytes:
        return openai.write_request(request, request.model)

    def answer_of(self, content: bytes) -> ChatReply | bytes:
        return openai.read_reply(content)

    def reader(self) -> Reader:
        return _Reader()

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        content = await self.post("/embeddings", openai.write_embeddings_request(request, request.model), call)
        try:
            return openai.read_vectors(content, len(request.inputs))
        except UNREADABLE as error:
            raise self.no_answer(error) from None


class _Reader(Reader):
    def __init__(self) -> None:
        super().__init__()
        self._reader = openai.EventReader()

    def events(self, frame: Frame) -> Event | list[Event] | bytes:
        if frame.data == openai.DONE:
            self.done = True
            return []
        return self._reader.read(frame.data, frame.raw)
