"""Chains of answers: questions to them, their records, replays, and measures by evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.time import parse_duration
from mainspring.llm.answers.model import CitedAnswer, Question
from mainspring.llm.answers.recording import QUERY, RecordedAnswer, recorded_answer
from mainspring.llm.answers.replaying import AnswerReplay, replay_answer
from mainspring.llm.answers.watching import AnswerWatch, watch_answers
from mainspring.operations.answer_gates import measured, question_set
from mainspring.operations.answer_versions import declaration, declared_name, version_with
from mainspring.operations.auditing import audit
from mainspring.operations.collections import opened
from mainspring.operations.open_answers import Models, local_call, open_answers, open_chain, run
from mainspring.operations.prediction import REVEAL, reveal
from mainspring.project import Project
from mainspring.security.model import Principal
from mainspring.vectors.declaring import DOCUMENT
from mainspring.vectors.evaluation.evaluating import Figure
from mainspring.vectors.evaluation.judgements import read_judgements

_WORST = 10
_HELD = 5_000  # vectors of a collection, of which cells are made


class AnswersReport(msgspec.Struct, frozen=True, kw_only=True):
    """A declared chain of answers. `version` is its number, or before `apply` the beginning of its digest."""

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
            name=each.name,
            collection=each.retriever.collection.name,
            model=each.model_name,
            version=declared_name(project, each),
        )
        for _, each in sorted(project.definitions.answers.items())
    ]


def ask(
    project: Project,
    name: str,
    question: Question,
) -> CitedAnswer:
    """Return the answer of a chain, which is in the prediction log then.

    Raises:
        NotFound: The chain is not declared, no version passed its gates, or its collection was never built.
        Invalid: The question is empty or too long, keys or tenant are missing, or a condition is not possible.
        UpstreamError: The language model does not answer.
        Unavailable: The profile has no upstream for it.
    """
    declared = project.definitions.answer_chain(name)

    async def asked(models: Models) -> CitedAnswer:
        chain = open_answers(project, name, models)
        try:
            return await chain.answer(question, local_call(declared))
        finally:
            await chain.close()

    return run(project, asked, declared)


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
    answer = recorded.answer
    declared = project.definitions.answer_chain(answer.answers)
    version = version_with(project, answer.answers, recorded.digest)
    if version is not None:
        declared = declaration(project, answer.answers, version.version)

    async def replayed(models: Models) -> AnswerReplay:
        chain = open_chain(project, declared, models)
        return await replay_answer(recorded, chain, local_call(declared), ask=ask_model)

    return run(project, replayed)


def evaluate_chain(project: Project, name: str, set_name: str = "", version: str = "") -> AnswersEvaluation:
    """Return the measures of a chain's answers. They are not recorded.

    Args:
        set_name: By default its own evaluation set, or that of its collection.
        version: Number or alias; by default the chain as it is declared.

    Raises:
        NotFound: Chain or set is not declared, or the set has no rows.
        Invalid: There is no set, or it differs from the collection in having tenants.
        UpstreamError: The language model does not answer.
    """
    declared = declaration(project, name, version)
    chosen = question_set(project, declared, set_name)
    judgements = read_judgements(project.lake, chosen, now=project.clock.now())

    async def evaluated(models: Models) -> AnswersEvaluation:
        found = await measured(project, declared, judgements, models)
        worst = tuple(
            LostQuestion(
                question=each.text, values=dict(zip(found.metrics, each.values, strict=True)), documents=each.found
            )
            for each in found.worst(_WORST)
        )
        return AnswersEvaluation(
            answers=name,
            version=version or declared_name(project, declared),
            set=found.set,
            set_version=found.set_version,
            questions=len(found.queries),
            figures=found.figures,
            by_tag=found.by_tag,
            worst=worst,
        )

    return run(project, evaluated)


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
    entries = index.get(index.ids(count=_HELD))
    held, documents = entries.vectors, {str(each) for each in entries.fields[DOCUMENT]}
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
            documents=documents if until == now else (),
        )

    last = watched(now - length, before=False)
    return watched(now, before=last.drift is not None and last.drift.verdict.drifted)
