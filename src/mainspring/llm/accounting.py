"""Usage and cost of calls of a language model, within the budgets of its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from mainspring.core.errors import Invalid, QuotaExceeded, Unavailable
from mainspring.llm.budgets import NOTHING, Budgets, Reservation, Spend
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
from mainspring.llm.machine_budgets import unlimited
from mainspring.llm.model import (
    LENGTH,
    Attempt,
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
_NO_ROOM = (QuotaExceeded, Invalid, Unavailable)


class Accounted:
    """Answers within the budgets of callers, and notes usage and cost in each call's outcome.

    A whole answer reserves the most that it may use, a stream its prompt and a piece of the answer, and then the next
    pieces. Where there is no room for one, the stream ends as one that reached its length; so does one whose upstream
    goes far beyond its bound. An answer that failed before its beginning costs nothing; one that broke off costs what
    was generated. An answer that nobody waited for, because its caller left or because a hedge was slower than the
    other, costs its prompt and what is known to be generated; a whole one, of which nothing is known before its end,
    the most that it might have been. A hedge is asked only if there is room for it.

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
        request, most = await self._bounded(request, call, prompt)
        bound = most or self._model.max_tokens * request.sampling.choices
        with await self._reserve(call, prompt, most or 0) as reserved:
            account = _Account(self, call, reserved, prompt, most)
            try:
                reply = await self._inner.chat(request, account.call(bound))
            except asyncio.CancelledError:
                account.charge_unheard(bound)
                raise
            account.charge(reply.usage, reply_tokens(reply, self._model.bytes_a_token), bound)
            return reply

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        prompt = embedded_tokens(request, self._model.bytes_a_token)
        with await self._reserve(call, prompt, 0) as reserved:
            account = _Account(self, call, reserved, prompt, None)
            try:
                reply = await self._inner.embed(request, account.call(0))
            except asyncio.CancelledError:
                account.charge_unheard(0)
                raise
            account.charge(reply.usage, 0, 0)
            return reply

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        prompt = prompt_tokens(request, self._model.bytes_a_token)
        request, most = await self._bounded(request, call, prompt)
        piece = _STEPS[0] if most is None else min(most, _STEPS[0])
        with await self._reserve(call, prompt, piece) as reserved:
            account = _Account(self, call, reserved, prompt, most)
            told: Usage | None = None
            size = generated = 0
            begun, open_ = False, set[int]()
            bounded = most is not None or bool(self._limited)
            events = self._inner.stream(request, account.call(_MARGIN))
            try:
                async for batch in events:
                    begun = True
                    for event in batch:
                        size += event_bytes(event)
                        told = event.usage or told
                        (open_.discard if event.finish else open_.add)(event.index)
                    yield batch
                    if not bounded:
                        continue
                    generated = tokens_of(size, self._model.bytes_a_token)
                    if self._limited and generated + _MARGIN > piece and (most is None or piece < most):
                        piece = await account.next_piece(generated, piece)
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
                    account.charge_unheard(0)
                raise
            finally:
                await events.aclose()
                if begun:
                    account.charge(told, tokens_of(size, self._model.bytes_a_token), 0)

    async def _bounded(self, request: ChatRequest, call: Call, prompt: int) -> tuple[ChatRequest, int | None]:
        """Return the request, with a bound where a budget needs one; and the bound of all its choices."""
        sampling = request.sampling
        if sampling.max_tokens is not None:
            return request, sampling.max_tokens * sampling.choices
        if not self._limited:
            return request, None
        most = self._model.max_tokens
        left = await self._budgets.left(self._model.quotas, call.caller, self._model.name)
        if not left:
            return request, None
        for measure, free in left.items():
            if measure == "tokens":
                most = min(most, (free - prompt) // sampling.choices)
            elif measure == "cost":
                start = self.most(prompt, 0).micros
                each = max(self.most(prompt, 1000 * sampling.choices).micros - start, 0) / 1000
                if each:
                    most = min(most, int((free - start) / each) - 1)
        most = max(1, most)
        bounded = msgspec.structs.replace(sampling, max_tokens=most)
        return msgspec.structs.replace(request, sampling=bounded), most * sampling.choices

    async def _reserve(self, call: Call, prompt: int, completion: int) -> Reservation:
        if not self._limited:
            return unlimited()
        most = self.most(prompt, completion)
        made = await self._budgets.reserve(self._model.quotas, call.caller, self._model.name, most)
        call.outcome.fields = made.fields
        return made

    def most(self, prompt: int, completion: int) -> Spend:
        """Return the most that a call may cost at any upstream."""
        plain = Usage(prompt=prompt, completion=completion)
        written = msgspec.structs.replace(plain, written=prompt)
        return Spend(plain.total, max(self._dearest(plain), self._dearest(written)))

    def micros(self, upstream: str, model: str, usage: Usage) -> int:
        """Return the cost of a call of one upstream; of one that is not known, the highest."""
        price = self._prices.get((upstream, model))
        return self._dearest(usage) if price is None else price.micros(usage)

    def _dearest(self, usage: Usage) -> int:
        return max(price.micros(usage) for price in self._prices.values())


class _Account:
    """Account of one call.

    Args:
        prompt: Estimated tokens of its prompt.
        most: Tokens that an upstream is asked to generate at most, where it is.
    """

    def __init__(self, of: Accounted, call: Call, reserved: Reservation, prompt: int, most: int | None) -> None:
        self._of, self._call, self._reserved = of, call, reserved
        self._prompt, self._most = prompt, most
        self._hedges = NOTHING  # reserved for them

    def call(self, bound: int) -> Call:
        """Return the call, which asks for room before another upstream is asked, too.

        Args:
            bound: Tokens that it may generate unheard.
        """
        if not self._of._limited:
            return self._call

        async def may_hedge() -> bool:
            hedge = self._of.most(self._prompt, bound)
            try:
                await self._reserved.grow(_sum(self._reserved.most, hedge))
            except _NO_ROOM:
                return False
            self._hedges = _sum(self._hedges, hedge)
            return True

        return msgspec.structs.replace(self._call, may_hedge=may_hedge)

    async def next_piece(self, generated: int, piece: int) -> int:
        """Charge what a stream has generated, and return how much more is reserved than that: the most there is room
        for."""
        self._reserved.note(self._spend(Usage(prompt=self._prompt, completion=generated)))
        for step in _STEPS:
            wanted = generated + step if self._most is None else min(self._most, generated + step)
            try:
                await self._reserved.grow(_sum(self._of.most(self._prompt, wanted), self._hedges))
            except (QuotaExceeded, Invalid):
                continue
            except Unavailable:
                break
            return max(piece, wanted)
        return piece

    def charge(self, told: Usage | None, completion: int, unheard: int) -> None:
        """Charge an answer, and those that nobody waited for.

        Args:
            told: Its usage as the upstream counts it.
            completion: Its tokens as counted here.
            unheard: Tokens that an upstream may have generated of which nothing was heard.
        """
        outcome = self._call.outcome
        self._charge_each(outcome.unheard, unheard)
        outcome.usage, outcome.counted = credible(told, self._prompt, completion, self._most)
        spend = self._spend(outcome.usage)
        outcome.micros = self._of.micros(outcome.upstream, outcome.model, outcome.usage)
        self._reserved.settle(spend)

    def charge_unheard(self, unheard: int) -> None:
        """Charge a call whose caller left before an answer came."""
        outcome = self._call.outcome
        self._charge_each(outcome.unheard, unheard)
        if outcome.unheard:
            asked = outcome.unheard.pop(0)
            outcome.upstream, outcome.model = asked.upstream, asked.model
            outcome.usage, outcome.micros, outcome.counted = asked.usage, asked.micros, True
            self._reserved.settle(self._spend(asked.usage or Usage()))

    def _charge_each(self, attempts: list[Attempt], unheard: int) -> None:
        for each in attempts:
            completion = max(unheard, tokens_of(each.size, self._of._model.bytes_a_token))
            if each.usage is None:
                each.usage = Usage(prompt=self._prompt, completion=completion)
            else:
                each.usage = credible(each.usage, self._prompt, 0, self._most)[0]
            each.micros = self._of.micros(each.upstream, each.model, each.usage)

    def _spend(self, usage: Usage) -> Spend:
        """Return what the call has cost with an answer's usage, and with answers that nobody waited for."""
        outcome = self._call.outcome
        tokens, micros = usage.total, self._of.micros(outcome.upstream, outcome.model, usage)
        for each in outcome.unheard:
            if each.usage is not None:
                tokens, micros = tokens + each.usage.total, micros + each.micros
        return Spend(tokens, micros)


def _sum(one: Spend, other: Spend) -> Spend:
    """Return two parts of one call's spend."""
    return Spend(one.tokens + other.tokens, one.micros + other.micros)
