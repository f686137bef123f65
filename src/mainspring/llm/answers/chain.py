"""The answer chain: rewrite the question, retrieve and order passages, let a model answer, check its citations."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from msgspec.structs import replace

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.expr.tree import Node
from mainspring.core.ids import new_id
from mainspring.core.time import Clock
from mainspring.ledger.model import Assigned
from mainspring.llm.answers.citing import cited, uncited
from mainspring.llm.answers.declaring import NOT_FOUND, Answers
from mainspring.llm.answers.model import Citation, CitedAnswer, Passage, Question, Reason, Retrieved
from mainspring.llm.answers.ports import Reranker, Retrieving
from mainspring.llm.answers.prompting import fitting, question_request, rewrite_request
from mainspring.llm.answers.recording import AnswerLog, RecordedAnswer
from mainspring.llm.model import Call, ChatReply, ChatRequest, Outcome, Usage
from mainspring.llm.ports import Answering
from mainspring.serving.plane.lane import monotonic_us

LONGEST_QUESTION = 20_000  # characters
LONGEST_CONVERSATION = 100  # messages
_DECLINED = NOT_FOUND.casefold()
Noted = Callable[[str, Retrieved], None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Spent:
    usage: Usage
    micros: int
    unheard_micros: int  # of answers that nobody waited for


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
            noted: Called with the query and what it found, before the model is asked.

        Raises:
            Invalid: The question is empty or too long, or the search refuses it.
            UpstreamError: The model does not answer.
            StorageFull: The answer cannot be recorded and the log is synchronous.
            Unavailable: Likewise, or an encoder elsewhere does not answer.
        """
        _check(question)
        if self._log is not None:
            self._log.check_keys(question.keys)
        started, spent = monotonic_us(), list[_Spent]()
        query = await self._query(question, call, spent)
        asked = monotonic_us()
        found = await self._threads(partial(self.retrieved, query, question.where, question.tenant), call.caller.id)
        searched = monotonic_us()
        if noted is not None:
            noted(query, found)
        passages = fitting(found.passages, self.declared.most_characters)
        request, reply = None, None
        if passages:
            request = question_request(self.declared, question.text, passages)
            reply = await self._asked(request, call, spent)
        replied = monotonic_us()
        text, reason, citations, unknown = self._judged(reply, passages)
        answer = CitedAnswer(
            id=new_id(),
            answers=self.declared.name,
            version=self.version,
            question=question.text,
            text=text,
            found=not reason,
            reason=reason,
            citations=citations,
            unknown_citations=unknown,
            query=query,
            passages=passages,
            left_out=len(found.passages) - len(passages),
            rerank_failure=found.rerank_failure,
            index=found.version,
            model=self.declared.model_name if reply is None else reply.model,
            prompt=self.declared.prompt.digest,
            reply=_text(reply),
            finish=reply.choices[0].finish if reply is not None and reply.choices else "",
            usage=_sum([each.usage for each in spent]),
            cost_micros=sum(each.micros + each.unheard_micros for each in spent),
            at=self._clock.now(),
            latency_us=monotonic_us() - started,
            query_us=asked - started,
            search_us=searched - asked,
            reply_us=replied - searched,
        )
        if self._log is not None:
            asked_for = question if self.declared.rewrite else dataclasses.replace(question, before=())
            recorded = RecordedAnswer(answer=answer, digest=self.declared.digest, request=request, question=asked_for)
            waited = self._log.record(recorded, principal=call.caller.id, request_id=call.id, assigned=assigned)
            await asyncio.gather(*map(asyncio.wrap_future, waited))
        return answer

    def retrieved(self, query: str, where: Node | None, tenant: str | None) -> Retrieved:
        """Return the passages that count for a query, the best first. It may be called in any thread."""
        retriever = self.declared.retriever
        found = self._retrieving.retrieve(query, retriever.searched, where=where, tenant=tenant)
        least = retriever.min_score
        passages = [each for each in found.passages if least is None or each.nearness >= least]
        if self._reranker is None:
            return Retrieved(passages=tuple(passages[: retriever.k]), version=found.version)
        if passages:
            try:
                scores = self._reranker.score(query, passages)
            except MainspringError as error:
                kept = tuple(passages[: retriever.k])
                return Retrieved(passages=kept, version=found.version, rerank_failure=error.what)
            scored = zip(passages, scores, strict=True)
            passages = [replace(each, score=float(score)) for each, score in scored]
            passages.sort(key=lambda each: -each.score)  # equal ones as they were found
        version = f"{found.version}+{self._reranker.digest[:12]}"
        return Retrieved(passages=tuple(passages[: retriever.k]), version=version)

    async def ask(self, request: ChatRequest, call: Call) -> ChatReply:
        """Return the model's reply to a request of this chain.

        Raises:
            UpstreamError: There is none.
        """
        return await self._model.chat(request, call)

    async def _asked(self, request: ChatRequest, call: Call, spent: list[_Spent]) -> ChatReply:
        """Ask, and note what that cost: as the accounts of the model have it, where it has some."""
        own, model = Outcome(), self.declared.model
        reply = await self.ask(request, replace(call, outcome=own, alike=False))
        usage = own.usage or (Usage() if own.cached else reply.usage or Usage())
        micros = own.micros
        if own.usage is None and model is not None:
            prices = {(each.upstream, each.model): each.price for each in model.upstreams}
            micros = prices.get((own.upstream, own.model), model.upstreams[0].price).micros(usage)
        spent.append(_Spent(usage, micros, sum(each.micros for each in own.unheard)))
        noted = call.outcome
        for name in ("upstream", "model", "cached", "fields"):
            setattr(noted, name, getattr(own, name))
        noted.unheard += own.unheard
        noted.attempts, noted.queued_us = noted.attempts + own.attempts, noted.queued_us + own.queued_us
        noted.usage, noted.micros = _sum([each.usage for each in spent]), sum(each.micros for each in spent)
        return reply

    async def _query(self, question: Question, call: Call, spent: list[_Spent]) -> str:
        prompt = self.declared.rewriting
        if prompt is None or not question.before:
            return question.text
        request = rewrite_request(self.declared, prompt, question.text, question.before)
        reply = await self._asked(request, call, spent)
        return _text(reply).strip()[:LONGEST_QUESTION] or question.text

    def _judged(
        self, reply: ChatReply | None, passages: Sequence[Passage]
    ) -> tuple[str, Reason, tuple[Citation, ...], int]:
        """Return the text of an answer, why it is none, its citations, and the number of unknown ones."""
        if reply is None:
            return self.declared.not_found, "nothing retrieved", (), 0
        text, citations, unknown = cited(_text(reply).strip(), passages)
        bare = uncited(text).strip()
        if bare.strip(" .!*\"'").casefold() == _DECLINED:
            return self.declared.not_found, "declined", (), unknown
        if not citations or not bare:
            return self.declared.not_found, "nothing cited", (), unknown
        return text, "", citations, unknown


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
