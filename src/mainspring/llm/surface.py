"""Handlers of the routes of language models: a body is read, what answers is asked, its answer is written.

A request for an answer passes `_served`, where the caller's right is checked, and then `Served.answering`, in which
whatever stands before the upstreams is (`answering.assemble`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Protocol

from prometheus_client.core import Metric

from mainspring.core.errors import MainspringError, NotFound, QuotaExceeded, Unavailable
from mainspring.core.time import SystemClock
from mainspring.llm.answer_handlers import AnswerHandlers, AnswersSource, caller_of
from mainspring.llm.answering import Served, local_budgets
from mainspring.llm.answers.rating import KeptRatings
from mainspring.llm.budgets import Budgets
from mainspring.llm.counting import prompt_tokens
from mainspring.llm.model import Call, ChatRequest, Deadlines, Dialect, Event, Events, UpstreamError
from mainspring.llm.openapi import described
from mainspring.llm.ports import Answering
from mainspring.llm.protocol import anthropic, openai, responses
from mainspring.llm.protocol.errors import Told, error_body, told
from mainspring.llm.protocol.reading import InvalidField
from mainspring.llm.routes import LLM_ROUTES
from mainspring.llm.search_log import SearchLog
from mainspring.llm.upstream_states import UpstreamStates
from mainspring.llm.usage import Usages, Watched
from mainspring.security.model import Action
from mainspring.security.ports import Authoriser
from mainspring.serving.http.message import JSON, JSON_ONLY, Reply, Request, Streamed, reply
from mainspring.serving.http.routes import DataRoute
from mainspring.serving.http.streams import EVENTS, OpenStreams
from mainspring.serving.plane.lane import monotonic_us

_LONGEST_NAME = 128
_WRITE_S = 1.0

_log = logging.getLogger(__name__)
_Handler = Callable[[Request, bytes | memoryview], Awaitable[Reply | Streamed]]


class Writer(Protocol):
    """Writer of one stream's events in the format of its caller."""

    def write(self, event: Event) -> bytes: ...
    def end(self) -> bytes: ...
    def fail(self, error: Told) -> bytes: ...


class ModelsSource(AnswersSource, Protocol):
    """The language models, chains of answers and collections that are served now."""

    def current(self) -> Mapping[str, Served]:
        """Return them by name.

        Raises:
            Unavailable: They are not known.
        """
        ...

    def start(self) -> None:
        """Begin to follow them: on the event loop that will serve."""
        ...

    async def stop(self) -> None:
        """Close what answers."""
        ...


class _Asked(Protocol):
    @property
    def deadlines(self) -> Deadlines: ...


class LanguageSurface:
    """Handlers of `LLM_ROUTES`, a `serving.http.gateway.Surface`.

    Args:
        budgets: Count requests of chains of answers and of collections; by default this process's alone.
        ratings: Keeps what callers say of answers; `None`: nothing does.
        traced: Whether requests tell of their calls, for spans.
        searched: As of `AnswerHandlers`.
    """

    routes = LLM_ROUTES

    def __init__(
        self,
        models: ModelsSource,
        authoriser: Authoriser,
        usages: Usages | None = None,
        states: UpstreamStates | None = None,
        *,
        budgets: Budgets | None = None,
        ratings: KeptRatings | None = None,
        traced: bool = True,
        searched: SearchLog | None = None,
    ) -> None:
        self._traced = traced
        self._states = states
        self._models = models
        self._authoriser = authoriser
        self._usages = usages or Usages(None, SystemClock())
        self._answers = AnswerHandlers(models, authoriser, self._call, budgets or local_budgets(), searched, ratings)
        self._ratings = ratings
        self._writing: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._unwritten = False
        self._streams = OpenStreams()

    def handler(self, route: DataRoute) -> _Handler:
        owner = self if hasattr(self, route.handler) else self._answers
        found: _Handler = getattr(owner, route.handler)
        return found

    def metrics(self) -> Iterable[Metric]:
        yield from self._usages.metrics()
        yield from self._answers.metrics.metrics()
        if self._states is not None:
            with suppress(Unavailable):
                yield from self._states.metrics(self._models.current())

    def serves(self) -> bool:
        try:
            return any((self._models.current(), self._models.chains(), self._models.collections()))
        except Unavailable:
            return False

    def described(self, request: Request) -> tuple[dict[str, Any], dict[str, Any]] | None:
        try:
            asked, searched = {*self._models.current(), *self._models.chains()}, self._models.collections()
        except Unavailable:
            return None
        caller, allows = caller_of(request), self._authoriser.allows
        return described(
            [name for name in asked if allows(caller, Action.ENDPOINT_DESCRIBE, f"endpoint/{name}")],
            [name for name in searched if allows(caller, Action.COLLECTION_SEARCH, f"collection/{name}")],
        )

    def start(self) -> None:
        self._models.start()
        self._writing = asyncio.get_running_loop().create_task(self._write())

    async def stop(self) -> None:
        await self._models.stop()
        if self._ratings is not None:
            self._ratings.close()
        self._stopping.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])  # not cancelled: what it writes would be lost
        await self._flush()
        self._usages.close()

    async def _write(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_S):
                    await self._stopping.wait()
            await self._flush()

    async def _flush(self) -> None:
        try:
            await self._usages.flush()
            self._unwritten = False
        except MainspringError as error:
            if not self._unwritten:
                _log.error("The usage of language models cannot be written; it is kept until it can: %s", error)
            self._unwritten = True

    def drain(self, within_s: float) -> None:
        for streams in (self._streams, self._answers.streams):
            streams.drain(within_s)

    def refusal(self, request: Request, error: Exception) -> Reply:
        fields = error.fields if isinstance(error, QuotaExceeded) else ()
        refused = _refused(told(error), _dialect(request))
        return Reply(refused.status, refused.body, (*refused.headers, *fields))

    # Routes

    async def chat(self, request: Request, body: bytes | memoryview) -> Reply | Streamed:
        asked = openai.read_request(body)
        answering, call = self._answering(request, asked.model)
        if asked.stream:
            writer = openai.EventWriter(wants_usage=asked.wants_usage)
            return await self._streamed(answering, asked, call, writer)
        answer = await answering.chat(asked, call)
        return Reply(200, openai.write_reply(answer), JSON_ONLY + call.outcome.fields)

    async def responses(self, request: Request, body: bytes | memoryview) -> Reply | Streamed:
        asked = responses.read_request(body)
        answering, call = self._answering(request, asked.model)
        if asked.stream:
            return await self._streamed(answering, asked, call, responses.EventWriter(asked))
        answer = await answering.chat(asked, call)
        return Reply(200, responses.write_reply(answer, asked), JSON_ONLY + call.outcome.fields)

    async def messages(self, request: Request, body: bytes | memoryview) -> Reply | Streamed:
        asked = anthropic.read_request(body)
        answering, call = self._answering(request, asked.model)
        if asked.stream:
            return await self._streamed(answering, asked, call, anthropic.EventWriter())
        answer = await answering.chat(asked, call)
        return Reply(200, anthropic.write_reply(answer), JSON_ONLY + call.outcome.fields)

    async def count_tokens(self, request: Request, body: bytes | memoryview) -> Reply:
        asked = anthropic.read_request(body, counted=True)
        _, call = self._answering(request, asked.model)
        served = self._models.current().get(asked.model)
        # Of a chain of answers: what it adds is not known before it is asked.
        tokens, estimated = (prompt_tokens(asked), True) if served is None else await served.count(asked, call)
        return reply(200, {"input_tokens": tokens, "estimated": estimated})

    async def embeddings(self, request: Request, body: bytes | memoryview) -> Reply:
        asked = openai.read_embeddings(body)
        answering, call = self._answering(request, asked.model, embeds=True)
        answer = await answering.embed(asked, call)
        return Reply(200, openai.write_vectors(answer, base64_=asked.base64), JSON_ONLY + call.outcome.fields)

    async def models(self, request: Request, _body: bytes | memoryview) -> Reply:
        caller = caller_of(request)
        seen = [
            _described(name)
            for name in sorted({*self._models.current(), *self._models.chains()})
            if self._authoriser.allows(caller, Action.ENDPOINT_DESCRIBE, f"endpoint/{name}")
        ]
        ends = {"first_id": seen[0]["id"], "last_id": seen[-1]["id"]} if seen else {"first_id": None, "last_id": None}
        return reply(200, {"object": "list", "data": seen, "has_more": False, **ends})

    async def model(self, request: Request, _body: bytes | memoryview) -> Reply:
        if request.model not in self._models.current() and request.model not in self._models.chains():
            raise _unknown(request.model)
        return reply(200, _described(request.model))

    # How they answer

    def _answering(self, request: Request, name: str, *, embeds: bool = False) -> tuple[Answering, Call]:
        """Return what answers for a language model, or a chain of answers, once it is clear that the caller may ask
        it."""
        if len(name) > _LONGEST_NAME:
            raise InvalidField("model: the name is too long.", "model")
        self._authoriser.check(caller_of(request), Action.ENDPOINT_PREDICT, f"endpoint/{name}")
        chain = self._models.chains().get(name)
        served = self._models.current().get(name)
        if (served or chain) and (served is not None and served.model.embeds) is not embeds:
            makes = "messages, no vectors" if embeds else "vectors, no messages"
            raise InvalidField(f"model: {name!r} makes {makes}.", "model")
        if chain is not None:
            return self._answers.as_model(chain, request), self._call(request, chain)
        if served is None:
            raise _unknown(name)
        return self._watched(served.answering, name, request), self._call(request, served.model)

    def _watched(self, answering: Answering, name: str, request: Request) -> Answering:
        over = partial(setattr, request, "outside") if self._traced else None
        return Watched(answering, name, self._usages, monotonic_us, over)

    def _call(self, request: Request, asked: _Asked) -> Call:
        return Call(
            id=request.id,
            caller=caller_of(request),
            begun=request.read,
            deadlines=asked.deadlines,
            headers=tuple([("anthropic-beta", each) for each in request.headers.get_all("anthropic-beta")]),
        )

    async def _streamed(self, answering: Answering, asked: ChatRequest, call: Call, writer: Writer) -> Streamed:
        """Return the reply in parts once its first events are there: until then an error has a status."""
        events = answering.stream(asked, call)
        try:
            first = await anext(events)
        except StopAsyncIteration:
            raise UpstreamError("The upstream gave no answer.", kind="failed", upstream="") from None
        except BaseException:
            await events.aclose()
            raise

        def failed(error: Exception) -> bytes:
            _log.warning(
                "A stream for %s broke off: %s", call.id, error, exc_info=not isinstance(error, MainspringError)
            )
            return writer.fail(told(error))

        return Streamed(self._streams.parts(_written(first, events, writer), failed), EVENTS + call.outcome.fields)


async def _written(batch: Events, events: AsyncGenerator[Events, None], writer: Writer) -> AsyncGenerator[bytes, None]:
    write = writer.write
    async with aclosing(events):
        yield b"".join([write(event) for event in batch])
        async for batch in events:  # noqa: PLR1704
            yield write(batch[0]) if len(batch) == 1 else b"".join([write(event) for event in batch])
        yield writer.end()


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no language model {name[:_LONGEST_NAME]!r}.", fix="GET /v1/models lists them.")


def _described(name: str) -> dict[str, Any]:
    """Return a model as both OpenAI and Anthropic describe one."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "mainspring",
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _dialect(request: Request) -> Dialect:
    anthropic = request.template.startswith("/v1/messages") or request.headers.get("anthropic-version") is not None
    return "anthropic" if anthropic else "openai"


def _refused(error: Told, dialect: Dialect) -> Reply:
    headers = [JSON]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    if error.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="mainspring"'))
    return Reply(error.status, error_body(error, dialect), tuple(headers))
