"""Upstreams of language models that follow a script: they answer, stall, fail, or break off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mainspring.llm.model import (
    Call,
    ChatReply,
    ChatRequest,
    Choice,
    EmbeddingsReply,
    EmbeddingsRequest,
    Event,
    Events,
    Message,
    Text,
    UpstreamError,
    Usage,
)
from mainspring.security.model import KeyScope, Principal

CALLER = Principal("k1", "test", frozenset(KeyScope))
UNSEEN = ("denied", "missing", "limited", "unreachable")


def asked(text: str = "hello", **given: Any) -> ChatRequest:
    """Return a request for a model `m`."""
    return ChatRequest(model="m", messages=(Message(role="user", content=(Text(text),)),), **given)


def call(id: str = "1", *, caller: Principal = CALLER, **given: Any) -> Call:
    """Return the circumstances of a request that arrives now."""
    return Call(id=id, caller=caller, begun=round(asyncio.get_running_loop().time() * 1e6), **given)


@dataclass
class Step:
    """Acts of an upstream on one request.

    Attributes:
        first_s: Time until its first event, its reply or its failure.
        fails: Kind of failure; empty for an answer.
        after: Events before the failure; 0: it fails before the first.
        events: Events of a whole answer.
    """

    first_s: float = 0.01
    fails: str = ""
    after: int = 0
    events: int = 3
    between_s: float = 0.01
    retry_after_ms: int | None = None
    usage: Usage | None = field(default_factory=lambda: Usage(prompt=5, completion=3))


class ScriptedUpstream:
    """An upstream that asks `script` what to do with each request.

    Args:
        keeps: Whether it generates no more than it is asked to; then its words have one letter.

    Attributes:
        worked: Request's id -> how often the upstream worked on it.
        open: Calls under way.
    """

    def __init__(self, name: str, script: Callable[[], Step], *, keeps: bool = False) -> None:
        self.name = name
        self._keeps = keeps
        self._script = script
        self.worked: Counter[str] = Counter()
        self.open = 0
        self.asked = 0

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        step = self._kept(await self._begin(call), request)
        try:
            await self._wait(step, call)
            text = ("x" if self._keeps else f"{self.name} ") * step.events
            choice = Choice(message=Message(role="assistant", content=(Text(text),)))
            return ChatReply(id="r", model=request.model, choices=(choice,), usage=step.usage)
        finally:
            self.open -= 1

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        step = self._kept(await self._begin(call), request)
        try:
            await self._wait(step, call)
            for number in range(step.events):
                if number:
                    await asyncio.sleep(step.between_s)
                if step.fails and number == step.after:
                    raise self._error(step, begun=True)
                last = number == step.events - 1
                text = "x" if self._keeps else f"{self.name}:{number} "
                yield (Event(text=text, finish="stop" if last else ""),)
            if step.usage is not None:
                yield (Event(usage=step.usage),)
        finally:
            self.open -= 1

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        raise NotImplementedError

    async def _begin(self, call: Call) -> Step:
        self.asked += 1
        self.open += 1
        step = self._script()
        if step.fails not in UNSEEN:
            self.worked[call.id] += 1
        return step

    def _kept(self, step: Step, request: ChatRequest) -> Step:
        most = request.sampling.max_tokens
        if not self._keeps or most is None:
            return step
        told = step.usage
        usage = None if told is None else Usage(prompt=told.prompt, completion=min(told.completion, most))
        return replace(step, events=min(step.events, most), after=min(step.after, most - 1), usage=usage)

    async def _wait(self, step: Step, call: Call) -> None:
        first_s = call.deadlines.first / 1e6
        await asyncio.sleep(min(step.first_s, first_s))
        if step.first_s > first_s:
            raise UpstreamError("late", kind="late", upstream=self.name)
        if step.fails and not step.after:
            raise self._error(step)

    def _error(self, step: Step, begun: bool = False) -> UpstreamError:
        kind: Any = step.fails
        return UpstreamError(step.fails, kind=kind, upstream=self.name, retry_after_ms=step.retry_after_ms, begun=begun)
