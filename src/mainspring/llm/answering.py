"""What answers for a language model: its upstreams, and whatever stands before them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from mainspring.core.errors import Unavailable
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events
from mainspring.llm.ports import Answering, Upstream


class OneUpstream:
    """Answers from one model of one upstream, whatever name the request has."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream = upstream
        self._model = model

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        return await self._upstream.chat(replace(request, model=self._model), call)

    def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        return self._upstream.stream(replace(request, model=self._model), call)

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        return await self._upstream.embed(replace(request, model=self._model), call)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A language model and what answers for it."""

    model: LanguageModel
    answering: Answering


Assemble = Callable[[LanguageModel, Mapping[str, Upstream]], Answering]


def assemble(model: LanguageModel, upstreams: Mapping[str, Upstream]) -> Answering:
    """Return what answers for a language model. All that stands before upstreams is put in here.

    Args:
        upstreams: Those that the profile has, by name.

    Raises:
        Unavailable: The profile has none of the model's upstreams.
    """
    for each in model.upstreams:
        if each.upstream in upstreams:
            return OneUpstream(upstreams[each.upstream], each.model)
    raise Unavailable(
        f"The profile has none of the upstreams of the language model {model.name!r}.",
        fix=f"write [profiles.NAME.llm.upstreams.{model.upstreams[0].upstream}], then its url.",
    )
