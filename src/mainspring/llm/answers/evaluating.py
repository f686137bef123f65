"""Measures of a chain's answers by the queries of an evaluation set."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

import msgspec

from mainspring.core.errors import Invalid
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import ANSWERED
from mainspring.llm.answers.judging import RULES, ModelJudge, Rule
from mainspring.llm.answers.model import CitedAnswer, Passage, Question
from mainspring.llm.model import Call
from mainspring.vectors.evaluation.evaluating import QueryResult, Search, SearchEvaluation, evaluate, summarise
from mainspring.vectors.evaluation.judgements import JudgedQuery, Judgements

_AT_ONCE = 8


async def evaluate_answers(
    judgements: Judgements,
    chain: AnswerChain,
    call: Call,
    *,
    rules: Mapping[str, Rule] = RULES,
    judges: Sequence[ModelJudge] = (),
    metrics: Sequence[str] = (),
) -> SearchEvaluation:
    """Return the measures of a chain's answers, for gates as those of a search: "answered", each rule and each judge.

    "unanswered" is the share of queries without an answer although something is relevant, "false_hits" the share of
    those without anything relevant that were answered all the same.

    Args:
        chain: One that records nothing, unless the answers are to be in the log.
        metrics: Metrics of retrieval that are measured beside, of the passages that the chain retrieves.

    Raises:
        Invalid: Two judgements have one name.
        UpstreamError: A model does not answer.
    """
    names = [ANSWERED, *rules, *(judge.name for judge in judges)]
    if len({*names}) < len(names):
        raise Invalid(f"Two judgements have one name: {', '.join(names)}.", fix="rename one of them.")
    room = asyncio.Semaphore(_AT_ONCE)

    async def measured(query: JudgedQuery) -> QueryResult:
        async with room:
            answer = await chain.answer(Question(query.text, tenant=query.tenant), call)
            values = [float(answer.found) if query.relevant else math.nan]
            values += [rule(answer, query.answers) for rule in rules.values()]
            values += [await judge.judge(answer, call) for judge in judges]
        return _result(query, answer, values)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(measured(query)) for query in judgements.queries]
    except ExceptionGroup as failed:  # the first; the others were cancelled
        raise failed.exceptions[0] from None
    results = [task.result() for task in tasks]
    if metrics:
        ranked = await asyncio.to_thread(evaluate, judgements, _search(chain), metrics=metrics)
        names += ranked.metrics
        pairs = zip(results, ranked.queries, strict=True)
        results = [msgspec.structs.replace(each, values=(*each.values, *found.values)) for each, found in pairs]
    return summarise(judgements, names, results)


def _search(chain: AnswerChain) -> Search:
    def found(queries: Sequence[str], k: int, tenant: str | None) -> list[tuple[Passage, ...]]:
        return [chain.retrieved(query, None, tenant).passages[:k] for query in queries]

    return found


def _result(query: JudgedQuery, answer: CitedAnswer, values: Sequence[float]) -> QueryResult:
    return QueryResult(
        key=query.key,
        values=tuple(None if math.isnan(value) else value for value in values),
        hits=int(answer.found),
        tags=query.tags,
        text=query.text,
        found=tuple(dict.fromkeys(each.document for each in answer.citations)),
    )
