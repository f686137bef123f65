"""Usage and cost of calls of a language model, within the budgets of its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import msgspec

from mainspring.core.errors import Invalid, QuotaExceeded
from mainspring.llm.budgets import Budgets, Reservation, Spend, unlimited
from mainspring.llm.counting import (
    FURTHEST,
    credible,
    embedded_tokens,
    event_bytes,
    prompt_tokens,
    reply_tokens,
    tokens_of,
)
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.model import (
    LENGTH,
    Call,
    ChatReply,
    ChatRequest,
    EmbeddingsReply,
    EmbeddingsRequest,
    Event,
    Events,
    Usage,
)
from mainspring.llm.ports import Answering

_STEPS = (512, 128, 32)  # tokens that a stream reserves ahead: the most that there is room for
_MARGIN = 16  # tokens that may arrive together


class Accounted:
    """Answers within the budgets of callers, and notes usage and cost in each call's outcome.

    A whole answer reserves the most that it may use, a stream its prompt and a piece of the answer, and then the next
    pieces. Where there is no room for one, the stream ends as one that reached its length; so does one whose upstream
    goes far beyond its bound. An answer that failed before
    its beginning costs nothing; one that broke off costs what was generated, as does one whose caller left: the prompt
    at least, once an upstream was asked.

    Args:
        budgets: Of this process.
    """

    def __init__(self, answering: Answering, model: LanguageModel, budgets: Budgets) -> None:
        self._inner = answering
        self._model = model
        self._budgets = budgets
        self._prices = {(each.upstream, each.model): each.price for each in model.upstreams}
        self._limited = frozenset(measure for quota in model.quotas for measure in quota.limits)

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        prompt = prompt_tokens(request, self._model.bytes_a_token)
        request, most = self._bounded(request, call, prompt)
        with self._reserve(call, prompt, most or 0) as reserved:
            try:
                reply = await self._inner.chat(request, call)
            except asyncio.CancelledError:
                self._charge_prompt(reserved, call, prompt)
                raise
            self._charge(reserved, call, reply.usage, prompt, reply_tokens(reply, self._model.bytes_a_token), most)
            return reply

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        prompt = embedded_tokens(request, self._model.bytes_a_token)
        with self._reserve(call, prompt, 0) as reserved:
            reply = await self._inner.embed(request, call)
            self._charge(reserved, call, reply.usage, prompt, 0, None)
            return reply

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        prompt = prompt_tokens(request, self._model.bytes_a_token)
        request, most = self._bounded(request, call, prompt)
        piece = _STEPS[0] if most is None else min(most, _STEPS[0])
        with self._reserve(call, prompt, piece) as reserved:
            told: Usage | None = None
            size = generated = 0
            begun, open_ = False, set[int]()
            events = self._inner.stream(request, call)
            try:
                async for batch in events:
                    begun = True
                    for event in batch:
                        size += event_bytes(event)
                        told = event.usage or told
                        (open_.discard if event.finish else open_.add)(event.index)
                    yield batch
                    generated = tokens_of(size, self._model.bytes_a_token)
                    if self._limited and generated + _MARGIN > piece and (most is None or piece < most):
                        reserved.note(self._spend(call, Usage(prompt=prompt, completion=generated)))
                        piece = self._next_piece(reserved, prompt, generated, piece, most)
                        if generated + _MARGIN > piece:
                            call.outcome.cut = "budget"
                            break
                    if most is not None and generated > FURTHEST * most + _MARGIN:  # it does not keep to its bound
                        call.outcome.cut = "length"
                        break
                if call.outcome.cut:
                    used = Usage(prompt=prompt, completion=generated)
                    yield (*(Event(index=each, finish=LENGTH) for each in sorted(open_)), Event(usage=used))
            except asyncio.CancelledError:
                if not begun:
                    self._charge_prompt(reserved, call, prompt)
                raise
            finally:
                await events.aclose()
                if begun:
                    self._charge(reserved, call, told, prompt, tokens_of(size, self._model.bytes_a_token), most)

    def _bounded(self, request: ChatRequest, call: Call, prompt: int) -> tuple[ChatRequest, int | None]:
        """Return the request, with a bound where a budget needs one; and the bound of all its choices."""
        sampling = request.sampling
        if sampling.max_tokens is not None:
            return request, sampling.max_tokens * sampling.choices
        if not self._limited:
            return request, None
        most = self._model.max_tokens
        left = self._budgets.left(self._model.quotas, call.caller, self._model.name)
        if not left:
            return request, None
        for measure, free in left.items():
            if measure == "tokens":
                most = min(most, (free - prompt) // sampling.choices)
            elif measure == "cost":
                each = max(self._dearest(prompt, 1000 * sampling.choices) - self._dearest(prompt, 0), 0) / 1000
                if each:
                    most = min(most, int((free - self._dearest(prompt, 0)) / each) - 1)
        most = max(1, most)
        bounded = msgspec.structs.replace(sampling, max_tokens=most)
        return msgspec.structs.replace(request, sampling=bounded), most * sampling.choices

    def _reserve(self, call: Call, prompt: int, completion: int) -> Reservation:
        if not self._limited:
            return unlimited()
        made = self._budgets.reserve(self._model.quotas, call.caller, self._model.name, self._most(prompt, completion))
        call.outcome.fields = made.fields
        return made

    def _next_piece(self, reserved: Reservation, prompt: int, generated: int, piece: int, most: int | None) -> int:
        for step in _STEPS:
            wanted = generated + step if most is None else min(most, generated + step)
            with suppress(QuotaExceeded, Invalid):
                reserved.grow(self._most(prompt, wanted))
                return max(piece, wanted)
        return piece

    def _charge(
        self, reserved: Reservation, call: Call, told: Usage | None, prompt: int, completion: int, most: int | None
    ) -> None:
        outcome = call.outcome
        outcome.usage, outcome.counted = credible(told, prompt, completion, most)
        spend = self._spend(call, outcome.usage)
        outcome.micros = spend.micros
        reserved.settle(spend)

    def _charge_prompt(self, reserved: Reservation, call: Call, prompt: int) -> None:
        """Charge the prompt of a call whose caller left before an answer came: an upstream has read it."""
        if call.outcome.attempts:
            self._charge(reserved, call, None, prompt, 0, None)

    def _spend(self, call: Call, usage: Usage) -> Spend:
        price = self._prices.get((call.outcome.upstream, call.outcome.model))
        cost = self._dearest_of(usage) if price is None else price.micros(usage)
        return Spend(usage.total, cost)

    def _most(self, prompt: int, completion: int) -> Spend:
        return Spend(prompt + completion, self._dearest(prompt, completion))

    def _dearest(self, prompt: int, completion: int) -> int:
        plain = Usage(prompt=prompt, completion=completion)
        return max(self._dearest_of(plain), self._dearest_of(msgspec.structs.replace(plain, written=prompt)))

    def _dearest_of(self, usage: Usage) -> int:
        return max(price.micros(usage) for price in self._prices.values())
