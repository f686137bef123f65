"""The answer chain: rewrite the question, retrieve and order passages, let a model answer, check its citations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import Node
from mainspring.core.ids import new_id
from mainspring.core.time import Clock
from mainspring.ledger.model import Assigned, Value
from mainspring.llm.answers.citing import cited, uncited
from mainspring.llm.answers.declaring import NOT_FOUND, Answers
from mainspring.llm.answers.model import Citation, CitedAnswer, Passage, Reason, Retrieved
from mainspring.llm.answers.ports import Reranker, Retrieving
from mainspring.llm.answers.prompting import fitting, question_request, rewrite_request
from mainspring.llm.answers.recording import AnswerLog, RecordedAnswer
from mainspring.llm.model import Call, ChatReply, ChatRequest, Message, Usage
from mainspring.llm.ports import Answering
from mainspring.serving.plane.lane import monotonic_us

LONGEST_QUESTION = 20_000  # characters
LONGEST_CONVERSATION = 100  # messages
_DECLINED = NOT_FOUND.casefold()
_NOTHING: Mapping[str, Value] = {}


class AnswerChain:
    """Answers questions as one declaration says. For an event loop; the search runs in a thread.

    Args:
        log: Where answers are recorded; `None` records none, as in an evaluation.
        version: Name of the version, as records have it; by default the beginning of the declaration's digest.
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
    ) -> None:
        if (declared.retriever.rerank is None) != (reranker is None):
            raise Invalid(f"Retriever {declared.retriever.name!r} and the reranker do not fit together.")
        self.declared, self.version = declared, version or declared.digest[:12]
        self._retrieving, self._reranker, self._model = retrieving, reranker, model
        self._clock, self._log = clock, log

    async def answer(
        self,
        question: str,
        call: Call,
        *,
        before: Sequence[Message] = (),
        where: Node | None = None,
        tenant: str | None = None,
        keys: Mapping[str, Value] = _NOTHING,
        assigned: Assigned | None = None,
    ) -> CitedAnswer:
        """Return the answer to a question, once it is recorded as the declaration's log demands.

        Args:
            before: Messages of the conversation before the question; only a chain that rewrites reads them.
            where: Condition on the collection's fields.
            tenant: Whose documents are searched; decided by the server, never by what a caller sends.
            keys: Entity keys by which the record is erased.
            assigned: Assignment to an arm of a rollout.

        Raises:
            Invalid: The question is empty or too long, or the search refuses it.
            UpstreamError: The model does not answer.
            StorageFull: The answer cannot be recorded and the log is synchronous.
            Unavailable: Likewise, or an encoder elsewhere does not answer.
        """
        _check(question, before)
        if self._log is not None:
            self._log.check_keys(keys)
        started, spent = monotonic_us(), list[Usage]()
        query = await self._query(question, before, call, spent)
        found = await asyncio.to_thread(self.retrieved, query, where, tenant)
        passages = fitting(found.passages, self.declared.most_characters)
        request, reply = None, None
        if passages:
            request = question_request(self.declared, question, passages)
            reply = await self.ask(request, call)
            spent.append(reply.usage or Usage())
        usage, model = _sum(spent), self.declared.model
        text, reason, citations, unknown = self._judged(reply, passages)
        answer = CitedAnswer(
            id=new_id(),
            answers=self.declared.name,
            version=self.version,
            question=question,
            text=text,
            found=not reason,
            reason=reason,
            citations=citations,
            unknown_citations=unknown,
            query=query,
            passages=passages,
            left_out=len(found.passages) - len(passages),
            index=found.version,
            model=self.declared.model_name if reply is None else reply.model,
            prompt=self.declared.prompt.digest,
            reply=_text(reply),
            finish=reply.choices[0].finish if reply is not None and reply.choices else "",
            usage=usage,
            cost_micros=0 if model is None else model.upstreams[0].price.micros(usage),
            at=self._clock.now(),
            latency_us=monotonic_us() - started,
        )
        if self._log is not None:
            recorded = RecordedAnswer(
                answer=answer,
                digest=self.declared.digest,
                request=request,
                conversation=tuple(before) if self.declared.rewrite else (),
                where=where,
                tenant=tenant,
                keys=keys,
            )
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
            scores = self._reranker.score(query, passages)
            scored = zip(passages, scores, strict=True)
            passages = [msgspec.structs.replace(each, score=float(score)) for each, score in scored]
            passages.sort(key=lambda each: (-each.score, each.id))
        version = f"{found.version}+{self._reranker.digest[:12]}"
        return Retrieved(passages=tuple(passages[: retriever.k]), version=version)

    async def ask(self, request: ChatRequest, call: Call) -> ChatReply:
        """Return the model's reply to a request of this chain.

        Raises:
            UpstreamError: There is none.
        """
        return await self._model.chat(request, call)

    async def _query(self, question: str, before: Sequence[Message], call: Call, spent: list[Usage]) -> str:
        prompt = self.declared.rewriting
        if prompt is None or not before:
            return question
        reply = await self.ask(rewrite_request(self.declared, prompt, question, before), call)
        spent.append(reply.usage or Usage())
        return _text(reply).strip()[:LONGEST_QUESTION] or question

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


def _check(question: str, before: Sequence[Message]) -> None:
    if not question.strip():
        raise Invalid("The question is empty.", fix="write one.")
    if len(question) > LONGEST_QUESTION:
        raise Invalid(f"The question has {len(question):,} characters.", fix=f"write at most {LONGEST_QUESTION:,}.")
    if len(before) > LONGEST_CONVERSATION:
        raise Invalid(
            f"The conversation has {len(before)} messages.", fix=f"send the last {LONGEST_CONVERSATION} at most."
        )
