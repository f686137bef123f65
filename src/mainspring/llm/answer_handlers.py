"""Handlers of the routes of answers and of searches in collections, and chains of answers as language models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import msgspec

from mainspring.core.errors import DeadlineExceeded, Denied, MainspringError, NotFound, Unavailable
from mainspring.core.time import SECOND
from mainspring.ledger.model import Asked
from mainspring.llm.answer_metrics import AnswerMetrics
from mainspring.llm.answers.following import Steps, followed
from mainspring.llm.answers.model import CitedAnswer, Question
from mainspring.llm.answers.rating import KeptRatings, Rating
from mainspring.llm.answers.served import ServedChain
from mainspring.llm.answers.speaking import Noted, Step
from mainspring.llm.budgets import Budgets, counted
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events
from mainspring.llm.protocol.answers import (
    answer_document,
    answer_events,
    chat_events,
    chat_reply,
    read_chat,
    read_question,
    read_rating,
)
from mainspring.llm.protocol.errors import NoCollection, error_body, told
from mainspring.llm.protocol.reading import InvalidField
from mainspring.llm.protocol.searches import read_search, search_document
from mainspring.llm.search_log import SearchLog
from mainspring.llm.usage import FAILED, LEFT, described
from mainspring.security.model import Action, Principal
from mainspring.security.ports import Authoriser
from mainspring.security.tenants import tenant_of
from mainspring.serving.http.message import JSON_ONLY, Reply, Request, Streamed
from mainspring.serving.http.streams import EVENTS, OpenStreams, framed
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.protocol.asked import Outside
from mainspring.vectors.declaring import Collection
from mainspring.vectors.filtering import filter_node
from mainspring.vectors.model import Build
from mainspring.vectors.searching import Found, search
from mainspring.vectors.served import Opened, ServedCollection

_SEARCH_S = 30.0
_ALIVE = b": waiting\n\n"

_log = logging.getLogger(__name__)


class AnswersSource(Protocol):
    """The chains of answers and the collections that are served now."""

    def chains(self) -> Mapping[str, ServedChain]:
        """Return the chains by name.

        Raises:
            Unavailable: They are not known.
        """
        ...

    def collections(self) -> Mapping[str, ServedCollection]:
        """Return the collections by name.

        Raises:
            Unavailable: They are not known.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChainModel:
    """A chain of answers that is asked as a language model is, for one caller.

    Attributes:
        answer: Answers, given a question, its filter as a caller sends it, and the call.
        tenant: Returns the tenant of the caller, given the one that the request names.
    """

    chain: ServedChain
    answer: Callable[[Question, object, Call], Awaitable[CitedAnswer]]
    tenant: Callable[[str | None], str | None]

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        answer = await self._answered(request, call)
        return chat_reply(answer, answer_document(answer, self.chain.declared))

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        read = read_chat(request)
        question = replace(read.question, tenant=self.tenant(read.tenant))
        following = followed(partial(self.answer, question, read.filter, call))
        at = 0
        async with aclosing(following):
            async for steps in following:
                if not at and isinstance(steps[0], Step):
                    at = steps[0].at
                if events := tuple(chat_events(steps, self.chain.declared, at)):
                    yield events

    async def embed(self, request: EmbeddingsRequest, _call: Call) -> EmbeddingsReply:
        raise InvalidField(f"model: {request.model!r} makes messages, no vectors.", "model")

    async def _answered(self, request: ChatRequest, call: Call) -> CitedAnswer:
        read = read_chat(request)
        return await self.answer(replace(read.question, tenant=self.tenant(read.tenant)), read.filter, call)


class AnswerHandlers:
    """Handlers of `/v1/answers` and `/v1/collections`.

    Args:
        call: Returns the circumstances of a request.
        budgets: Count the requests of callers with quotas.
        searched: Records searches in collections that have a monitor; `None` records none.
        ratings: Keeps what callers say of answers; `None`: nothing does.

    Attributes:
        streams: Answers in events that are under way.
    """

    def __init__(
        self,
        source: AnswersSource,
        authoriser: Authoriser,
        call: Callable[[Request, ServedChain], Call],
        budgets: Budgets,
        searched: SearchLog | None = None,
        ratings: KeptRatings | None = None,
    ) -> None:
        self._ratings = ratings
        self._source, self._authoriser = source, authoriser
        self._call, self._budgets = call, budgets
        self._searched = searched
        self.metrics = AnswerMetrics()
        self.streams = OpenStreams()

    def as_model(self, chain: ServedChain, request: Request) -> ChainModel:
        """Return a chain as a language model of the caller of a request."""
        self._check_personal(caller_of(request), chain)
        tenant = partial(self._tenant, caller_of(request), chain.collection.declared)
        return ChainModel(chain, partial(self._answer, chain, request), tenant)

    async def ask(self, request: Request, body: bytes | memoryview) -> Reply | Streamed:
        chain = self._chain(request.model)
        read = read_question(body)
        call = self._call(request, chain)
        self._check_personal(call.caller, chain)
        question = replace(read.question, tenant=self._tenant(call.caller, chain.collection.declared, read.tenant))
        if read.events:
            asked = partial(self._answer, chain, request, question, read.filter, call)
            return await self._streamed(chain, followed(asked), call)
        answer = await self._answer(chain, request, question, read.filter, call)
        document = answer_document(answer, chain.declared)
        return Reply(200, msgspec.json.encode(document), JSON_ONLY + call.outcome.fields)

    async def rate(self, request: Request, body: bytes | memoryview) -> Reply:
        chain, caller = self._chain(request.model), caller_of(request)
        rated, column = read_rating(body, chain.feedback)
        value, name = column.value(rated.rating), chain.declared.name
        if self._ratings is None:
            raise Unavailable("This server keeps no ratings.")
        rating = Rating(
            answers=name, answer=rated.answer, column=column.column, value=value, reason=rated.reason, by=caller.id
        )
        sees_all = self._authoriser.allows(caller, Action.PREDICTION_READ, f"endpoint/{name}")
        await self._ratings.keep(rating, all_=sees_all)
        return Reply(202, msgspec.json.encode({"answer": rated.answer, "column": column.column, "rating": value}))

    async def search(self, request: Request, body: bytes | memoryview) -> Reply:
        served = self._source.collections().get(request.model)
        if served is None:
            raise NoCollection(f"There is no collection {request.model[:128]!r}.")
        asked, declared = read_search(body), served.declared
        if declared.text in served.personal:  # each hit would tell what is in it
            raise Denied(
                f"Collection {declared.name!r} is of texts that identify a person.", authenticated=True,
                fix="search it on the console, with the right to see them.",
            )  # fmt: skip
        mode = asked.mode or declared.mode
        caller = caller_of(request)
        tenant = self._tenant(caller, declared, asked.tenant)
        where = None if asked.filter is None else filter_node(asked.filter, served.filterable)

        def found(opened: Opened) -> tuple[bytes, Build, list[list[Found]]]:
            words = None if mode == "vectors" else opened.words()
            hits = search(
                declared, opened.build, opened.index, opened.encoder, asked.queries, asked.k,
                where=where, tenant=tenant, words=words, mode=mode,
            )  # fmt: skip
            document = search_document(declared, opened.build, hits, served.personal)
            return msgspec.json.encode(document), opened.build, hits

        left = _SEARCH_S - (monotonic_us() - request.read) / SECOND
        outcome = LEFT
        try:
            async with (
                counted(self._budgets, declared.quotas, caller, declared.name) as fields,
                asyncio.timeout(max(0.0, left)),
            ):
                content, build, hits = await served.threads.run(lambda: served.searched(found), caller.id)
            outcome = "answered"
            if self._searched is not None and served.watched:
                asked_by = Asked(caller.id, monotonic_us() - request.read, len(hits), request.id)
                self._searched.record(declared, build, hits, mode, asked=asked_by)
            return Reply(200, content, JSON_ONLY + fields)
        except TimeoutError:
            outcome = FAILED
            raise DeadlineExceeded(
                f"The search in {declared.name!r} took more than {_SEARCH_S:g} s.", retry_after_ms=1000
            ) from None
        except Exception:
            outcome = FAILED
            raise
        finally:
            self.metrics.searched(declared.name, outcome, monotonic_us() - request.read)

    def _chain(self, name: str) -> ServedChain:
        chain = self._source.chains().get(name)
        if chain is None:
            raise NotFound(f"There is no chain of answers {name[:128]!r}.", fix="GET /v1/models lists them.")
        return chain

    async def _answer(
        self,
        chain: ServedChain,
        request: Request,
        question: Question,
        filter: object,
        call: Call,
        noted: Noted | None = None,
    ) -> CitedAnswer:
        """Return the answer to a question that counts as a request of its caller."""
        declared, outcome, fault = chain.declared, LEFT, LEFT
        try:
            async with counted(self._budgets, declared.quotas, call.caller, declared.name) as fields:
                call.outcome.fields = fields
                answer = await chain.answer(question, call, filter=filter, noted=noted)
            call.outcome.fields = fields + call.outcome.fields
            outcome, fault = answer.reason or "found", ""
            return answer
        except Exception:
            outcome = fault = FAILED
            raise
        finally:
            self._over(chain, request, call, outcome, fault)

    def _over(self, chain: ServedChain, request: Request, call: Call, outcome: str, fault: str) -> None:
        """Count an answer, and note what a span of the request says about it."""
        now, declared = monotonic_us(), chain.declared
        self.metrics.answered(declared.name, outcome, now - call.begun)
        about = described("answer", declared.model_name, call.outcome)
        request.outside = Outside(f"answer {declared.name}", call.begun, now, about, fault)

    def _check_personal(self, caller: Principal, chain: ServedChain) -> None:
        """Raise if a chain answers from texts that identify a person, which the caller may not see."""
        declared = chain.collection.declared
        if declared.text in chain.collection.personal:
            column = f"column/{declared.source.name}/{declared.text}"
            self._authoriser.check(caller, Action.COLUMN_REVEAL, column)

    def _tenant(self, caller: Principal, collection: Collection, named: str | None) -> str | None:
        """Return the tenant of a search. None that a caller names goes further unless a policy permits it: a version of
        a chain may search another collection than `collection`."""
        if collection.tenant is not None:
            return tenant_of(self._authoriser, caller, named)
        if named is not None:
            raise InvalidField(f"tenant: collection {collection.name!r} has no tenants.", "tenant")
        return None

    async def _streamed(self, chain: ServedChain, following: AsyncGenerator[Steps, None], call: Call) -> Streamed:
        """Return an answer in events once the search is over: until then an error has a status."""
        try:
            first = await anext(following)
        except BaseException:
            await following.aclose()
            raise

        def failed(error: Exception) -> bytes:
            _log.warning("An answer to %s failed: %s", call.id, error, exc_info=not isinstance(error, MainspringError))
            return framed(error_body(told(error), "openai"), "error")

        written = _written(first, following, chain)
        return Streamed(self.streams.parts(written, failed), EVENTS + call.outcome.fields)


async def _written(
    steps: Steps, following: AsyncGenerator[Steps, None], chain: ServedChain
) -> AsyncGenerator[bytes, None]:
    async with aclosing(following):
        yield b"".join(answer_events(steps, chain.declared))
        async for steps in following:  # noqa: PLR1704
            yield b"".join(answer_events(steps, chain.declared)) or _ALIVE


def caller_of(request: Request) -> Principal:
    """Return the caller of a request.

    Raises:
        Denied: There is none.
    """
    if request.principal is None:
        raise Denied("No API key was given.")
    return request.principal
