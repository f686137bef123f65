"""Choice among the upstreams of a language model: by health, then by price or latency; the next where one fails.

A request is sent again only if that can double nothing: nothing was forwarded to the caller, and the upstream has
certainly not begun (no connection; 429, 503 or 529), or the declaration allows to repeat what may have been done. A
request with tools that the upstream runs itself, or that it stores, is never repeated. After the 95th percentile of
the times to the first token another upstream is asked as well, where the declaration allows that (hedged requests: Dean
and Barroso, The Tail at Scale, CACM 2013): who begins first answers, the other is cancelled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from mainspring.core.circuit_breaker import Breaker, BreakerRule
from mainspring.core.errors import Overloaded
from mainspring.core.time import MILLISECOND, SECOND, parse_duration
from mainspring.llm.counting import event_bytes
from mainspring.llm.declaring import TokenPrice
from mainspring.llm.latency import Latency
from mainspring.llm.limits import DECLARED, LATENCY, PRICE, Fallback, repeatable
from mainspring.llm.model import (
    Attempt,
    Call,
    ChatReply,
    ChatRequest,
    EmbeddingsReply,
    EmbeddingsRequest,
    Events,
    UpstreamError,
    Usage,
)
from mainspring.llm.ports import Answering

_REST_US = SECOND  # of an upstream without capacity that does not say for how long
_BACKOFF_US, _LONGEST_BACKOFF_US = 50 * MILLISECOND, 2 * SECOND
_MOST_HEDGES = 10  # saved up
_PASSING = ("limited", "unreachable")  # kinds of failures that may be over soon
_USUAL = Usage(prompt=1000, completion=300)

T = TypeVar("T")
_Close = Callable[[T, Attempt], Coroutine[Any, Any, None]]
Reply = TypeVar("Reply", ChatReply, EmbeddingsReply)


class Candidate:
    """An upstream of a language model, with its health.

    Args:
        name: Of the upstream.
        model: Name of the model there.
        key: Tells our key for it.
    """

    def __init__(
        self,
        name: str,
        model: str,
        answering: Answering,
        price: TokenPrice,
        rule: BreakerRule,
        key: Callable[[], str] = str,
    ) -> None:
        self.name, self.model = name, model
        self.key = key
        self._denied: str | None = None  # the key that was not accepted last
        self.answering = answering
        self.price = price
        self.breaker = Breaker(rule)
        self.latency = Latency()

    def denied(self, key: str) -> None:
        """Note a key that it does not accept."""
        self._denied = key

    def renew(self) -> None:
        """Take it for healthy again where it was asked with another key than ours is now."""
        if self._denied is not None and self._denied != self.key():
            self._denied = None
            self.breaker.reset()


class _Opened(Generic[T]):
    """An answer, or its first events, of one upstream."""

    __slots__ = ("attempt", "candidate", "value")

    def __init__(self, candidate: Candidate, attempt: Attempt, value: T) -> None:
        self.candidate, self.attempt, self.value = candidate, attempt, value


class Failover:
    """The upstreams of one language model, as one.

    Args:
        now: A clock that is never set, microseconds.
        draw: Source of the jitter of waits.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        fallback: Fallback,
        now: Callable[[], int],
        draw: random.Random | None = None,
    ) -> None:
        self.candidates = tuple(candidates)
        self._fallback = fallback
        self._now = now
        self._draw = draw or random.Random()  # noqa: S311  # of waits
        self._patience_us = parse_duration(fallback.patience)
        self._hedging = fallback.hedge > 0 and len(candidates) > 1
        self._measures = self._hedging or fallback.order == LATENCY
        self._hedges = 0.0

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        """As of `Answering`; `Overloaded` where each upstream is at its limit or rests."""

        def ask(candidate: Candidate, part: Call) -> Awaitable[ChatReply]:
            return candidate.answering.chat(msgspec.structs.replace(request, model=candidate.model), part)

        return await self._whole(ask, call, request)

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        """As of `chat`."""

        def ask(candidate: Candidate, part: Call) -> Awaitable[EmbeddingsReply]:
            return candidate.answering.embed(msgspec.structs.replace(request, model=candidate.model), part)

        return await self._whole(ask, call, None)

    async def _whole(
        self, ask: Callable[[Candidate, Call], Awaitable[Reply]], call: Call, request: ChatRequest | None
    ) -> Reply:
        opened = await self._first(ask, _replied, call, request)
        opened.candidate.breaker.succeeded(self._now())
        return opened.value

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        """As of `chat`; after the first events no other upstream is asked."""

        async def ask(candidate: Candidate, part: Call) -> tuple[Events, AsyncGenerator[Events, None]]:
            made = candidate.answering.stream(msgspec.structs.replace(request, model=candidate.model), part)
            try:
                return await anext(made), made
            except StopAsyncIteration:
                raise UpstreamError(
                    f"Upstream {candidate.name!r} ended a stream without an event.",
                    kind="broken",
                    upstream=candidate.name,
                ) from None
            except BaseException:
                await made.aclose()
                raise

        opened = await self._first(ask, _close, call, request)
        breaker, (first, rest) = opened.candidate.breaker, opened.value
        ended = False
        try:
            yield first
            async for events in rest:
                yield events
            ended = True
            breaker.succeeded(self._now())
        except UpstreamError as error:
            ended = True
            self._ended(opened.candidate, error)
            raise
        finally:
            if not ended:
                breaker.abandoned()
            await rest.aclose()

    async def _first(
        self,
        ask: Callable[[Candidate, Call], Awaitable[T]],
        close: _Close[T],
        call: Call,
        request: ChatRequest | None,
    ) -> _Opened[T]:
        """Return what the first upstream gave that began; ask the next where one fails and that doubles nothing.

        Args:
            request: Where it may do something twice if it is sent twice.
        """
        fallback = self._fallback
        until = self._now() + call.deadlines.first
        if self._hedging:
            self._hedges = min(_MOST_HEDGES, self._hedges + fallback.hedge)
        tried: list[Candidate] = []
        failure: Exception | None = None
        for attempt in range(fallback.attempts):
            candidate = await self._next(tried, until, attempt, failure)
            if candidate is None:
                break
            tried.append(candidate)
            call.outcome.attempts += 1
            try:
                if self._hedges >= 1 and (request is None or repeatable(request)):
                    opened = await self._raced(candidate, ask, close, call, until)
                else:
                    opened = await self._asked(candidate, ask, call, until)
                call.outcome.upstream, call.outcome.model = opened.candidate.name, opened.candidate.model
                return opened
            except UpstreamError as error:
                failure = error
                again = error.unseen or (fallback.repeat and (request is None or repeatable(request)))
                if error.kind == "refused" or error.begun or not again:
                    raise
            except Overloaded as error:  # its queue is full
                failure = error
        raise failure or self._resting()

    async def _next(
        self, tried: Sequence[Candidate], until: int, attempt: int, failure: Exception | None
    ) -> Candidate | None:
        """Return the upstream to ask now, perhaps after a wait; `None` where none takes a call in time."""
        if (found := self._healthy(tried)) is not None:
            return found
        if failure is None and len(tried) < len(self.candidates):
            return None  # all rest: the caller is told when to ask again
        now = self._now()
        backoff = min(_BACKOFF_US << attempt, _LONGEST_BACKOFF_US) * self._draw.uniform(0.5, 1.0)
        at = max(min(each.breaker.opens_at(now) for each in self.candidates), now + int(backoff))
        if at >= until or at > now + self._patience_us or getattr(failure, "kind", "limited") not in _PASSING:
            return None
        await asyncio.sleep((at - now) / SECOND)
        return self._healthy(())

    def _healthy(self, but: Sequence[Candidate]) -> Candidate | None:
        """Claim the best upstream that takes calls now."""
        now = self._now()
        for candidate in self.candidates:
            candidate.renew()
        candidates: Iterable[Candidate] = self.candidates
        if self._fallback.order != DECLARED:
            candidates = sorted(candidates, key=self._rank)
        for candidate in candidates:
            if candidate not in but and candidate.breaker.begin(now):
                return candidate
        return None

    def _rank(self, candidate: Candidate) -> float:
        if self._fallback.order == PRICE:
            return candidate.price.micros(_USUAL)
        return candidate.latency.usual_us or 0.0  # one that nobody has measured is tried

    async def _raced(
        self,
        candidate: Candidate,
        ask: Callable[[Candidate, Call], Awaitable[T]],
        close: _Close[T],
        call: Call,
        until: int,
    ) -> _Opened[T]:
        tail_us = candidate.latency.tail_us
        if tail_us is None:
            return await self._asked(candidate, ask, call, until)
        first = asyncio.create_task(self._asked(candidate, ask, call, until))
        tasks = {first}
        try:
            await asyncio.wait(tasks, timeout=tail_us / SECOND)
            other = None if first.done() else await self._hedge(candidate, call)
            if other is not None and first.done():
                other.breaker.abandoned()
            elif other is not None:
                call.outcome.hedged = True
                tasks.add(asyncio.create_task(self._asked(other, ask, call, until)))
            waiting: set[asyncio.Task[_Opened[T]]] = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None:
                        tasks.discard(task)
                        return task.result()
            return first.result()  # it raises
        finally:
            await _dropped(tasks, close, call)

    async def _hedge(self, candidate: Candidate, call: Call) -> Candidate | None:
        """Claim another upstream to be asked while one is slow, where the budgets have room for that."""
        if self._hedges < 1:
            return None
        self._hedges -= 1
        other = None
        if call.may_hedge is None or await call.may_hedge():
            other = self._healthy((candidate,))
        if other is None:
            self._hedges += 1
        return other

    async def _asked(
        self, candidate: Candidate, ask: Callable[[Candidate, Call], Awaitable[T]], call: Call, until: int
    ) -> _Opened[T]:
        began = self._now()
        deadlines = msgspec.structs.replace(call.deadlines, first=max(1, until - began))
        attempt = Attempt(upstream=candidate.name, model=candidate.model)
        key, ended = candidate.key(), False
        try:
            value = await ask(candidate, msgspec.structs.replace(call, deadlines=deadlines, attempt=attempt))
            ended = True
        except UpstreamError as error:
            ended = True
            if error.kind == "denied":
                candidate.denied(key)
            self._ended(candidate, error)
            raise
        finally:
            if not ended:
                candidate.breaker.abandoned()
                if attempt.sent:
                    call.outcome.unheard.append(attempt)
        if self._measures:
            candidate.latency.observe(self._now() - began)
        return _Opened(candidate, attempt, value)

    def _ended(self, candidate: Candidate, error: UpstreamError) -> None:
        now = self._now()
        if error.kind == "refused":
            candidate.breaker.succeeded(now)
        elif error.kind == "limited":
            rest_us = _REST_US if error.retry_after_ms is None else error.retry_after_ms * MILLISECOND
            candidate.breaker.rest(now + rest_us)
            candidate.breaker.abandoned()
        else:
            candidate.breaker.failed(now)

    def _resting(self) -> Overloaded:
        now = self._now()
        at = min(each.breaker.opens_at(now) for each in self.candidates)
        return Overloaded(
            "No upstream of the model takes requests now.", retry_after_ms=max(100, -(-(at - now) // MILLISECOND))
        )


async def _replied(value: ChatReply | EmbeddingsReply, attempt: Attempt) -> None:
    attempt.usage = value.usage


async def _close(value: tuple[Events, AsyncGenerator[Events, None]], attempt: Attempt) -> None:
    attempt.size = sum(map(event_bytes, value[0]))
    await value[1].aclose()


async def _dropped(tasks: set[asyncio.Task[_Opened[T]]], close: _Close[T], call: Call) -> None:
    """Cancel calls that are not wanted, and close what they have opened."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        try:
            opened = await task
        except (asyncio.CancelledError, UpstreamError, Overloaded):
            continue
        opened.candidate.breaker.abandoned()
        call.outcome.unheard.append(opened.attempt)
        await close(opened.value, opened.attempt)
