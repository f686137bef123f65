"""The answer chain: rewrite the question, retrieve and order passages, let a model answer, check its citations."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial

from msgspec.structs import replace

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.expr.tree import Node
from mainspring.core.ids import new_id
from mainspring.core.time import Clock
from mainspring.ledger.model import Assigned
from mainspring.llm.answers.citing import cited, uncited
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.model import Citation, CitedAnswer, Passage, Question, Reason, Retrieved
from mainspring.llm.answers.ports import Reranker, Retrieving
from mainspring.llm.answers.prompting import fitting, question_request, rewrite_request
from mainspring.llm.answers.recording import AnswerLog, RecordedAnswer
from mainspring.llm.answers.speaking import Noted, Reranked, Rewritten, Said, Searched, Speaking, Step, declines
from mainspring.llm.model import Call, ChatReply, ChatRequest, Choice, Event, Message, Outcome, Text, Usage
from mainspring.llm.ports import Answering
from mainspring.serving.plane.lane import monotonic_us

LONGEST_QUESTION = 20_000  # characters
LONGEST_CONVERSATION = 100  # messages
_NOTHING = Retrieved(passages=(), version="")
_log = logging.getLogger(__name__)
CUT = "cut"  # why an answer ended that broke off


@dataclasses.dataclass(frozen=True, slots=True)
class _Spent:
    usage: Usage
    micros: int
    unheard_micros: int  # of answers that nobody waited for


@dataclasses.dataclass(slots=True)
class _Course:
    """The way of one question to its answer."""

    question: Question
    call: Call
    at: int
    noted: Noted | None
    id: str = dataclasses.field(default_factory=new_id)
    started: int = dataclasses.field(default_factory=monotonic_us)
    loop: asyncio.AbstractEventLoop = dataclasses.field(default_factory=asyncio.get_running_loop)
    spent: list[_Spent] = dataclasses.field(default_factory=list)
    query: str = ""
    found: Retrieved = _NOTHING
    passages: tuple[Passage, ...] = ()
    request: ChatRequest | None = None
    asked: int = 0
    searched: int = 0

    def tell(self, kind: Callable[..., Step], *what: object) -> None:
        """Note that a step is done, for those who follow the answer."""
        if self.noted is not None:
            self.noted(kind(self.id, self.at, *what))


async def _in_a_thread(search: Callable[[], Retrieved], _caller: str) -> Retrieved:
    return await asyncio.to_thread(search)


class AnswerChain:
    """Answers questions as one declaration says. For an event loop; the search runs in a thread.

    Args:
        log: Where answers are recorded; `None` records none, as in an evaluation.
        version: Name of the version, as records have it; by default the beginning of the declaration's digest.
        threads: Runs a search in a thread, given the id of who asks.
    """

    def __init__(
        self,
        declared: Answers,
        retrieving: Retrieving,
        model: Answering,
        clock: Clock,
        log: AnswerLog | None,
        reranker: Reranker | None = None,
        version: str = "",
        threads: Callable[[Callable[[], Retrieved], str], Awaitable[Retrieved]] = _in_a_thread,
    ) -> None:
        if (declared.retriever.rerank is None) != (reranker is None):
            raise Invalid(f"Retriever {declared.retriever.name!r} and the reranker do not fit together.")
        self.declared, self.version = declared, version or declared.digest[:12]
        self._retrieving, self._reranker, self._model = retrieving, reranker, model
        self._clock, self._log, self._threads = clock, log, threads

    async def answer(
        self,
        question: Question,
        call: Call,
        *,
        assigned: Assigned | None = None,
        noted: Noted | None = None,
    ) -> CitedAnswer:
        """Return the answer to a question, once it is recorded as the declaration's log demands.

        Args:
            assigned: Assignment to an arm of a rollout.
            noted: Called with each step that is done; what was said together is the text of the answer. It says the
                text while the model writes it, but of a chain with a synchronous log once the answer is recorded. If
                the model then breaks off, or the caller leaves, what was said is recorded as an answer that was cut.

        Raises:
            Invalid: The question is empty or too long, or the search refuses it.
            UpstreamError: The model does not answer.
            StorageFull: The answer cannot be recorded and the log is synchronous.
            Unavailable: Likewise, or an encoder elsewhere does not answer.
        """
        _check(question)
        if self._log is not None:
            self._log.check_keys(question.keys)
        course = _Course(question, call, self._clock.now(), noted)
        course.query = await self._query(course)
        course.asked = monotonic_us()
        if course.query != question.text:
            course.tell(Rewritten, course.query)
        course.found = await self._threads(partial(self._searched, course), call.caller.id)
        course.searched = monotonic_us()
        course.passages = fitting(course.found.passages, self.declared.most_characters)
        said = ""
        reply: ChatReply | None = None
        if course.passages:
            course.request = question_request(self.declared, question.text, course.passages)
            if noted is None or self.declared.log.sync:
                reply = await self._asked(course.request, course)
            else:
                reply, said = await self._spoken(course.request, course)
        answer = self._answer(course, reply, said)
        if self._log is not None:
            waited = self._record(self._log, course, answer, assigned)
            await asyncio.gather(*map(asyncio.wrap_future, waited))
        if len(answer.text) > len(said):
            course.tell(Said, answer.text[len(said) :])
        return answer

    def _answer(self, course: _Course, reply: ChatReply | None, said: str) -> CitedAnswer:
        """Return an answer of which a part was said, now that the model's reply is known."""
        text, reason, citations, unknown = self._judged(reply, course.passages, said)
        replied = monotonic_us()
        return CitedAnswer(
            id=course.id,
            answers=self.declared.name,
            version=self.version,
            question=course.question.text,
            text=text,
            found=not reason,
            reason=reason,
            citations=citations,
            unknown_citations=unknown,
            query=course.query,
            passages=course.passages,
            left_out=len(course.found.passages) - len(course.passages),
            rerank_failure=course.found.rerank_failure,
            index=course.found.version,
            model=self.declared.model_name if reply is None else reply.model,
            prompt=self.declared.prompt.digest,
            reply=_text(reply),
            finish=reply.choices[0].finish if reply is not None and reply.choices else "",
            usage=_sum([each.usage for each in course.spent]),
            cost_micros=sum(each.micros + each.unheard_micros for each in course.spent),
            at=self._clock.now(),
            latency_us=replied - course.started,
            query_us=course.asked - course.started,
            search_us=course.searched - course.asked,
            reply_us=replied - course.searched,
        )

    def _record(
        self, log: AnswerLog, course: _Course, answer: CitedAnswer, assigned: Assigned | None
    ) -> list[Future[None]]:
        question = course.question if self.declared.rewrite else dataclasses.replace(course.question, before=())
        recorded = RecordedAnswer(answer=answer, digest=self.declared.digest, request=course.request, question=question)
        called = course.call
        return log.record(recorded, principal=called.caller.id, request_id=called.id, assigned=assigned)

    def _searched(self, course: _Course) -> Retrieved:
        def tell(kind: Callable[..., Step], *what: object) -> None:
            course.loop.call_soon_threadsafe(course.tell, kind, *what)

        question = course.question
        return self.retrieved(course.query, question.where, question.tenant, tell)

    def retrieved(
        self, query: str, where: Node | None, tenant: str | None, tell: Callable[..., object] | None = None
    ) -> Retrieved:
        """Return the passages that count for a query, the best first. It may be called in any thread.

        Args:
            tell: Called with the kind of each step that is done, and what it has.
        """
        retriever = self.declared.retriever
        found = self._retrieving.retrieve(query, retriever.searched, where=where, tenant=tenant)
        least = retriever.min_score
        passages = [each for each in found.passages if least is None or each.nearness >= least]
        kept = Retrieved(passages=tuple(passages[: retriever.k]), version=found.version)
        if tell is not None:
            tell(Searched, query, kept)
        if self._reranker is None:
            return kept
        found = self._reranked(self._reranker, query, passages, kept)
        if tell is not None:
            tell(Reranked, found)
        return found

    def _reranked(self, reranker: Reranker, query: str, passages: list[Passage], kept: Retrieved) -> Retrieved:
        if passages:
            try:
                scores = reranker.score(query, passages)
            except MainspringError as error:
                return replace(kept, rerank_failure=error.what)
            scored = zip(passages, scores, strict=True)
            passages = [replace(each, score=float(score)) for each, score in scored]
            passages.sort(key=lambda each: -each.score)  # equal ones as they were found
        version = f"{kept.version}+{reranker.digest[:12]}"
        return Retrieved(passages=tuple(passages[: self.declared.retriever.k]), version=version)

    async def ask(self, request: ChatRequest, call: Call) -> ChatReply:
        """Return the model's reply to a request of this chain.

        Raises:
            UpstreamError: There is none.
        """
        return await self._model.chat(request, call)

    async def _asked(self, request: ChatRequest, course: _Course) -> ChatReply:
        """Ask, and note what that cost."""
        own = Outcome()
        reply = await self.ask(request, replace(course.call, outcome=own, alike=False))
        self._note(course, own, reply.usage)
        return reply

    async def _spoken(self, request: ChatRequest, course: _Course) -> tuple[ChatReply, str]:
        """Ask, and say the text while it comes. Return the reply, and what was said of it. If it breaks off, what was
        said is recorded."""
        own, last = Outcome(), Event()
        usage: Usage | None = None
        finish, speaking = "", Speaking(course.passages, partial(course.tell, Said))
        call = replace(course.call, outcome=own, alike=False)
        events = self._model.stream(replace(request, stream=True), call)
        try:
            async with aclosing(events):
                async for batch in events:
                    for last in batch:
                        usage, finish = last.usage or usage, last.finish or finish
                        if last.text:
                            speaking.hear(last.text)
        except BaseException:
            self._note(course, own, usage)
            if self._log is not None and speaking.said:
                self._record_cut(self._log, course, _reply(last, speaking.said, CUT, usage))
            raise
        self._note(course, own, usage)
        return _reply(last, speaking.heard, finish, usage), speaking.said

    def _record_cut(self, log: AnswerLog, course: _Course, reply: ChatReply) -> None:
        try:
            self._record(log, course, self._answer(course, reply, _text(reply)), None)
        except MainspringError as error:  # the reason why it was cut is told
            _log.error("An answer of %s that was cut is not in the log: %s", self.declared.name, error)

    def _note(self, course: _Course, own: Outcome, told: Usage | None) -> None:
        """Note what an answer of the model cost: as its accounts have it, where it has some."""
        model = self.declared.model
        usage = own.usage or (Usage() if own.cached else told or Usage())
        micros = own.micros
        if own.usage is None and model is not None:
            prices = {(each.upstream, each.model): each.price for each in model.upstreams}
            micros = prices.get((own.upstream, own.model), model.upstreams[0].price).micros(usage)
        spent, noted = course.spent, course.call.outcome
        spent.append(_Spent(usage, micros, sum(each.micros for each in own.unheard)))
        for name in ("upstream", "model", "cached", "fields"):
            setattr(noted, name, getattr(own, name))
        noted.unheard += own.unheard
        noted.attempts, noted.queued_us = noted.attempts + own.attempts, noted.queued_us + own.queued_us
        noted.usage, noted.micros = _sum([each.usage for each in spent]), sum(each.micros for each in spent)

    async def _query(self, course: _Course) -> str:
        prompt, question = self.declared.rewriting, course.question
        if prompt is None or not question.before:
            return question.text
        request = rewrite_request(self.declared, prompt, question.text, question.before)
        reply = await self._asked(request, course)
        return _text(reply).strip()[:LONGEST_QUESTION] or question.text

    def _judged(
        self, reply: ChatReply | None, passages: Sequence[Passage], said: str
    ) -> tuple[str, Reason, tuple[Citation, ...], int]:
        """Return the text of an answer, why it is none, its citations, and the number of unknown ones."""
        if reply is None:
            return self.declared.not_found, "nothing retrieved", (), 0
        text, citations, unknown = cited(_text(reply), passages)
        bare = uncited(text).strip()
        if said:  # an answer it is, as far as its reader has it
            return text, "", citations, unknown
        if declines(bare):
            return self.declared.not_found, "declined", (), unknown
        if not citations or not bare:
            return self.declared.not_found, "nothing cited", (), unknown
        return text, "", citations, unknown


def _reply(event: Event, text: str, finish: str, usage: Usage | None) -> ChatReply:
    """Return the reply whose last event that was."""
    message = Message(role="assistant", content=(Text(text),))
    return ChatReply(id=event.id, model=event.model, choices=(Choice(message=message, finish=finish),), usage=usage)


def _text(reply: ChatReply | None) -> str:
    return reply.choices[0].message.text if reply is not None and reply.choices else ""


def _sum(usages: Sequence[Usage]) -> Usage:
    names = Usage.__struct_fields__
    return Usage(**{name: sum(getattr(each, name) for each in usages) for name in names})


def _check(question: Question) -> None:
    if not question.text.strip():
        raise Invalid("The question is empty.", fix="write one.")
    if len(question.text) > LONGEST_QUESTION:
        raise Invalid(
            f"The question has {len(question.text):,} characters.", fix=f"write at most {LONGEST_QUESTION:,}."
        )
    if len(question.before) > LONGEST_CONVERSATION:
        raise Invalid(
            f"The conversation has {len(question.before)} messages.",
            fix=f"send the last {LONGEST_CONVERSATION} at most.",
        )
