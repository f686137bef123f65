"""Admission of calls to an upstream whose tokens in flight are bounded, fair by caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from mainspring.llm.counting import embedded_tokens, prompt_tokens
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events, Usage
from mainspring.llm.ports import Answering
from mainspring.llm.queueing import Admission, Job
from mainspring.security.model import Principal
from mainspring.serving.plane.metering import named

Reply = TypeVar("Reply", ChatReply, EmbeddingsReply)


class Admitted:
    """An upstream that is asked when there is room for what a call may use.

    Args:
        now: The clock of `admission`.
    """

    def __init__(
        self, answering: Answering, model: LanguageModel, admission: Admission, now: Callable[[], int]
    ) -> None:
        self._inner = answering
        self._model = model
        self._admission = admission
        self._now = now

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        return await self._whole(partial(self._inner.chat, request), self._tokens(request), call)

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        tokens = embedded_tokens(request, self._model.bytes_a_token)
        return await self._whole(partial(self._inner.embed, request), tokens, call)

    async def _whole(self, ask: Callable[[Call], Awaitable[Reply]], tokens: int, call: Call) -> Reply:
        job, call = await self._enter(tokens, call)
        used: Usage | None = None
        try:
            reply = await ask(call)
            used = reply.usage
            return reply
        finally:
            self._leave(job, used)

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        job, call = await self._enter(self._tokens(request), call)
        used: Usage | None = None
        events = self._inner.stream(request, call)
        try:
            async for batch in events:
                for event in batch:
                    used = event.usage or used
                yield batch
        finally:
            try:
                await events.aclose()
            finally:
                self._leave(job, used)

    def weight(self, caller: Principal) -> float:
        """Return the share of a caller's key: the largest of those that name it."""
        found = [share for name, share in self._model.weights.items() if named((name,), caller, self._model.name)]
        return max(found, default=1.0)

    def _tokens(self, request: ChatRequest) -> int:
        most = request.sampling.max_tokens or self._model.max_tokens
        return prompt_tokens(request, self._model.bytes_a_token) + most * request.sampling.choices

    async def _enter(self, tokens: int, call: Call) -> tuple[Job, Call]:
        begun, first = self._now(), call.deadlines.first
        if call.attempt is not None:
            call.attempt.sent = False
        try:
            job = await self._admission.enter(call.caller.id, tokens, within_us=first, weight=self.weight(call.caller))
        except asyncio.CancelledError:
            call.outcome.attempts -= 1  # the upstream was not asked
            raise
        if call.attempt is not None:
            call.attempt.sent = True
        waited = self._now() - begun
        call.outcome.queued_us += waited
        deadlines = msgspec.structs.replace(call.deadlines, first=max(1, first - waited))
        return job, msgspec.structs.replace(call, deadlines=deadlines)

    def _leave(self, job: Job, used: Usage | None) -> None:
        self._admission.leave(job, None if used is None else used.total)
