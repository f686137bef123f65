"""Ports of the gateway for language models: what answers a request, and the upstreams that do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events

if TYPE_CHECKING:
    from mainspring.llm.held_calls import HeldCall, Status
    from mainspring.llm.prompts import PromptAlias, PromptVersion


class Answering(Protocol):
    """Answers to requests on the event loop: an upstream, or a layer around one (limits, fallback, caches, guards).

    A request is cancelled as any coroutine is; a stream by `aclose`, also before its first event, and by cancelling
    the task that waits for the next. Both free the upstream at once.
    """

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        """Return the whole answer.

        Raises:
            UpstreamError: There is none.
        """
        ...

    def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        """Return the answer in events, those together that arrived together. Nothing is sent before the first is asked
        for. The end of the iteration is the end of a whole answer: each choice had its `finish`.

        Raises:
            UpstreamError: There is no answer (`begun` is false, before the first events), or its rest will not come.
        """
        ...

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        """Return the vectors of texts.

        Raises:
            UpstreamError: There are none.
        """
        ...


class Upstream(Answering, Protocol):
    """A server of language models. Requests name the model as the server does."""

    @property
    def name(self) -> str:
        """Its name in the profile."""
        ...

    async def models(self) -> tuple[str, ...]:
        """Return the names of its models.

        Raises:
            UpstreamError: It does not say.
        """
        ...

    async def healthy(self) -> bool:
        """Return whether it answers at all, within two seconds. It is asked for nothing that costs."""
        ...

    async def close(self) -> None:
        """Close its connections. Calls that are under way end with an error."""
        ...


@runtime_checkable
class HasKey(Protocol):
    """An upstream that is asked with an API key."""

    def key(self) -> str:
        """Return the key as it is now; empty for none."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """An upstream that counts the tokens of a prompt."""

    async def count(self, request: ChatRequest, call: Call) -> int:
        """Return the tokens of a prompt.

        Raises:
            UpstreamError: There is no count.
        """
        ...


class PromptVersions(Protocol):
    """Recorded versions of prompts."""

    def record(self, documents: Mapping[str, Mapping[str, Any]], at: int) -> list[PromptVersion]:
        """Record each prompt whose newest version is another one, and return what was recorded.

        Args:
            documents: Name -> `Prompt.document`.
            at: UTC epoch microseconds.
        """
        ...

    def newest(self) -> list[PromptVersion]:
        """Return the newest version of each prompt, by name."""
        ...

    def all(self, name: str) -> list[PromptVersion]:
        """Return all versions of a prompt, the newest first; none where it was never applied."""
        ...

    def move(self, alias: PromptAlias) -> None:
        """Point an alias at what it names now. Earlier moves are kept."""
        ...

    def aliases(self, name: str) -> list[PromptAlias]:
        """Return the aliases of a prompt as they are, by name."""
        ...


class HeldCalls(Protocol):
    """Calls of tools that a person decides. Those asked for more than 30 days ago are gone."""

    def ask(self, call: HeldCall) -> HeldCall | None:
        """Return the call of the last day by this caller with the same tool and arguments, which was not used: one that
        is approved is used by this. If there is none, keep `call`, which waits; `None` where too many wait.
        """
        ...

    def all(self, *, since: int, waiting: bool) -> list[HeldCall]:
        """Return those asked for after a time (UTC epoch microseconds), the oldest first: all, or those that wait."""
        ...

    def get(self, call: str) -> HeldCall | None:
        """Return a call by its id."""
        ...

    def remove(self, calls: Sequence[str]) -> None:
        """Remove calls by their ids."""
        ...

    def decide(self, call: str, status: Status, *, by: str, at: int) -> bool:
        """Approve or deny a call; return whether it waited, and had not expired."""
        ...
