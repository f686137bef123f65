"""Chains of answers: questions to them, their records, replays, and measures by evaluation sets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import Node
from mainspring.core.ids import new_id
from mainspring.core.time import parse_duration
from mainspring.ledger.model import Value
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import WORDS, Answers
from mainspring.llm.answers.evaluating import evaluate_answers
from mainspring.llm.answers.model import CitedAnswer
from mainspring.llm.answers.recording import QUERY, AnswerLog, RecordedAnswer, recorded_answer
from mainspring.llm.answers.replaying import AnswerReplay, replay_answer
from mainspring.llm.answers.reranking import WordReranker
from mainspring.llm.answers.retrieving import CollectionRetrieving
from mainspring.llm.answers.watching import AnswerWatch, watch_answers
from mainspring.llm.model import Call, Message, Text
from mainspring.llm.ports import Answering, Upstream
from mainspring.operations.auditing import audit
from mainspring.operations.collections import opened, words_of
from mainspring.operations.prediction import REVEAL, reveal
from mainspring.project import Project
from mainspring.project.guards import guarded
from mainspring.project.language_models import build_upstream, quoting
from mainspring.registry.processes import local_user
from mainspring.security.model import Principal
from mainspring.serving.plane.lane import monotonic_us
from mainspring.vectors.evaluation.evaluating import Figure
from mainspring.vectors.evaluation.judgements import read_judgements
from mainspring.vectors.model import Build
from mainspring.vectors.ports import Encoder, TextIndex, VectorIndex

T = TypeVar("T")
_NONE: Mapping[str, Value] = {}
_WORST = 10
_HELD = 5_000  # vectors of a collection, of which cells are made


class AnswersReport(msgspec.Struct, frozen=True, kw_only=True):
    """A declared chain of answers. `version` is the digest of all that decides its answers."""

    name: str
    collection: str
    model: str
    version: str


class LostQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question of an evaluation set that was not answered well. `documents` are those that its answer cites."""

    question: str
    values: Mapping[str, float | None]
    documents: tuple[str, ...]


class AnswersEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of a chain's answers by an evaluation set."""

    answers: str
    version: str
    set: str
    set_version: int
    questions: int
    figures: Mapping[str, Figure]
    by_tag: Mapping[str, Mapping[str, Figure]]
    worst: tuple[LostQuestion, ...]


def answer_chains(project: Project) -> list[AnswersReport]:
    """Return the declared chains, by name."""
    return [
        AnswersReport(
            name=each.name, collection=each.retriever.collection.name, model=each.model_name, version=each.digest[:12]
        )
        for _, each in sorted(project.definitions.answers.items())
    ]


def ask(
    project: Project,
    name: str,
    question: str,
    *,
    before: Sequence[str] = (),
    where: Node | None = None,
    tenant: str | None = None,
    keys: Mapping[str, Value] = _NONE,
) -> CitedAnswer:
    """Return the answer of a chain, which is in the prediction log then.

    Args:
        before: What the user asked before, the oldest first.
        where: Condition on the collection's fields.
        tenant: Whose documents are searched, of a collection with tenants.
        keys: Entity keys by which the record is erased.

    Raises:
        NotFound: The chain is not declared, or its collection was never built.
        Invalid: The question is empty or too long, keys or tenant are missing, or a condition is not possible.
        UpstreamError: The language model does not answer.
        Unavailable: The profile has no upstream for it.
    """
    declared = project.definitions.answer_chain(name)
    messages = [Message(role="user", content=(Text(each),)) for each in before]

    async def asked(chain: AnswerChain) -> CitedAnswer:
        return await chain.answer(question, _call(declared), before=messages, where=where, tenant=tenant, keys=keys)

    return _run(project, declared, asked, recorded=True)


def revealed_answer(project: Project, answer_id: str, principal: Principal | None = None) -> RecordedAnswer:
    """Return a recorded answer with its texts. The access is audited before they are decrypted.

    Raises:
        NotFound: It was never logged.
        Denied: The caller may not see such values.
        Conflict: Its texts were not logged.
        Invalid: It is no answer, or its texts were erased.
    """
    return recorded_answer(reveal(project, answer_id, principal))


def replay(project: Project, answer_id: str, *, ask_model: bool = True) -> AnswerReplay:
    """Return whether a recorded answer comes out the same again. Its texts are decrypted, which is audited.

    Args:
        ask_model: Whether to ask the language model again, which costs.

    Raises:
        NotFound: The answer was never logged, or its chain is not declared any more.
        UpstreamError: The language model does not answer.
    """
    recorded = revealed_answer(project, answer_id)
    declared = project.definitions.answer_chain(recorded.answer.answers)

    async def replayed(chain: AnswerChain) -> AnswerReplay:
        return await replay_answer(recorded, chain, _call(declared), ask=ask_model)

    return _run(project, declared, replayed, recorded=False)


def evaluate_chain(project: Project, name: str, set_name: str = "") -> AnswersEvaluation:
    """Return the measures of a chain's answers. They are not recorded.

    Args:
        set_name: By default the evaluation set of its collection.

    Raises:
        NotFound: Chain or set is not declared, or the set has no rows.
        Invalid: There is no set, or it is of tenants.
        UpstreamError: The language model does not answer.
    """
    declared = project.definitions.answer_chain(name)
    own = declared.retriever.collection.evaluation
    chosen = project.definitions.evaluation_set(set_name) if set_name else own
    if chosen is None:
        raise Invalid(f"The collection of {name!r} has no evaluation set of its own.", fix="name one with --set.")
    judgements = read_judgements(project.lake, chosen, now=project.clock.now())

    async def measured(chain: AnswerChain) -> AnswersEvaluation:
        found = await evaluate_answers(judgements, chain, _call(declared))
        worst = tuple(
            LostQuestion(
                question=each.text, values=dict(zip(found.metrics, each.values, strict=True)), documents=each.found
            )
            for each in found.worst(_WORST)
        )
        return AnswersEvaluation(
            answers=name,
            version=declared.digest[:12],
            set=found.set,
            set_version=found.set_version,
            questions=len(found.queries),
            figures=found.figures,
            by_tag=found.by_tag,
            worst=worst,
        )

    return _run(project, declared, measured, recorded=False)


def watch(project: Project, name: str, *, window: str | int = "7d", reference: str | int = "28d") -> AnswerWatch:
    """Return how the questions of a window, and their answers, differ from those of a time before.

    The window before it lies in between: only if its queries drifted too, those of this one alert. Texts of questions
    are decrypted, which is audited.

    Args:
        window: Duration of a window, up to now.
        reference: Duration of the time before the two.

    Raises:
        NotFound: The chain is not declared, or its collection was never built.
        Invalid: A duration is not possible.
    """
    declared, now = project.definitions.answer_chain(name), project.clock.now()
    length, earlier = parse_duration(window), parse_duration(reference)
    if not length or not earlier:
        raise Invalid("A window and its reference are longer than nothing.", fix="write 7d and 28d.")
    collection = declared.retriever.collection
    build, index = opened(project, collection)
    encoder = project.encoder(collection.encoder, build.encoder)
    held = index.get(index.ids(count=_HELD)).vectors
    project.predictions.compact()
    audit(project, REVEAL, f"endpoint/{name}", QUERY)
    start = now - 2 * length

    def watched(until: int, *, before: bool) -> AnswerWatch:
        return watch_answers(
            project.predictions,
            name,
            encoder,
            held,
            reference=(start - earlier, start),
            window=(until - length, until),
            drifted_before=before,
        )

    last = watched(now - length, before=False)
    return watched(now, before=last.drift is not None and last.drift.verdict.drifted)


def _run(project: Project, declared: Answers, act: Callable[[AnswerChain], Awaitable[T]], *, recorded: bool) -> T:
    """Return what an act with a chain returns, on an event loop of its own, with its upstreams open."""
    log = AnswerLog(project.prediction_log, declared) if recorded else None
    collection, mode = declared.retriever.collection, declared.retriever.searches
    reranker = WordReranker() if declared.retriever.rerank == WORDS else None

    def searched() -> tuple[Build, VectorIndex, Encoder, TextIndex | None]:
        build, index = opened(project, collection)
        words = words_of(project, collection, build, mode)
        return build, index, project.encoder(collection.encoder, build.encoder), words

    async def run() -> T:
        async with AsyncExitStack() as stack:
            model = await _model(project, declared, stack)
            retrieving = CollectionRetrieving(collection, searched, mode)
            chain = AnswerChain(declared, retrieving, model, project.clock, log, reranker)
            return await act(chain)

    searched()  # fails before an upstream is opened
    return asyncio.run(run())


async def _model(project: Project, declared: Answers, stack: AsyncExitStack) -> Answering:
    if declared.model is None:
        collection = declared.retriever.collection
        return quoting(lambda: project.encoder(collection.encoder, opened(project, collection)[0].encoder))
    upstreams: dict[str, Upstream] = {}
    wanted = {each.upstream for each in declared.model.upstreams}
    for server in project.settings.upstreams.values():
        if server.name in wanted and server.url:
            upstreams[server.name] = build_upstream(server)
            stack.push_async_callback(upstreams[server.name].close)
    return guarded(project)(declared.model, upstreams)


def _call(declared: Answers) -> Call:
    user = local_user()
    caller = Principal(user, user, frozenset())
    call = Call(id=new_id(), caller=caller, begun=monotonic_us())
    return call if declared.model is None else replace(call, deadlines=declared.model.deadlines)
