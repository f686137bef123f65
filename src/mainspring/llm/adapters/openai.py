"""Upstreams that speak OpenAI's chat completions: vLLM, llama.cpp, Ollama, and providers."""

from __future__ import annotations

from mainspring.llm.adapters.server import UNREADABLE, Headers, Reader, ServerUpstream
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Event
from mainspring.llm.protocol import openai
from mainspring.llm.protocol.events import Frame


class OpenAIUpstream(ServerUpstream):
    """A server with OpenAI's interface.

    Args:
        url: Its address, with the `/v1` at the end where it has one.
        key: Tells its API key; empty for none.
    """

    path = "/chat/completions"

    def authorised(self, key: str) -> Headers:
        return (("authorization", f"Bearer {key}"),) if key else ()

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
