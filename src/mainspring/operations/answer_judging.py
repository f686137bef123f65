"""Judgements of logged answers by a chain's judge, as rows like those of people: for rollouts, and for the monitor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import parse_duration, to_datetime
from mainspring.ledger.model import Selection
from mainspring.llm.answers.feedback import ANSWER
from mainspring.llm.answers.judges import Judge
from mainspring.llm.answers.judging import ModelJudge
from mainspring.llm.answers.model import CitedAnswer
from mainspring.operations.answer_gates import declared_judge, labels_of, readable
from mainspring.operations.ingest import land
from mainspring.operations.open_answers import Models, local_call, run
from mainspring.project import Project


class JudgedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Judgements of logged answers. `mean` is of those that could be judged; `None` without any."""

    answers: str
    judge: str
    judged: int
    unjudged: int
    mean: float | None


def judge_answers(
    project: Project, name: str, judge_name: str, *, window: str | int = "1d", most: int = 100
) -> JudgedAnswers:
    """Judge a sample of the answers of the last time that have no judgement yet, and keep what the judge says as rows.
    The answers' texts are decrypted, which is audited.

    Args:
        window: Duration of that time.
        most: Number of answers.

    Raises:
        NotFound: Chain or judge is not declared.
        Invalid: The judge has no column for its judgements.
        UpstreamError: The judge does not answer; nothing is kept.
    """
    declared = project.definitions.answer_chain(name)
    judge = declared_judge(declared, judge_name)
    scores = judge.scores
    if scores is None:
        raise Invalid(f"Judge {judge_name!r} has no column for its judgements.", fix="declare scores=SOURCE.COLUMN.")
    project.predictions.compact()
    now = project.clock.now()
    known = {} if project.lake.version(scores.source.name) is None else labels_of(project, scores)
    ids = project.predictions.sample(Selection(endpoint=name, since=now - parse_duration(window)), most + len(known))
    answers = [each for id_ in ids if id_ not in known and (each := readable(project, name, id_)) is not None][:most]

    async def asked(models: Models) -> Sequence[float]:
        own = ModelJudge(judge.name, models(judge.model), judge.model.name, judge.instructions)
        call = msgspec.structs.replace(local_call(declared), deadlines=judge.model.deadlines)
        return [await own.judge(each, call) for each in answers]

    values = run(project, asked) if answers else []
    said = [(each, value) for each, value in zip(answers, values, strict=True) if not math.isnan(value)]
    if said:
        land(project, scores.source.name, [_row(judge, each, value, now) for each, value in said])
    mean = sum(value for _, value in said) / len(said) if said else None
    return JudgedAnswers(answers=name, judge=judge_name, judged=len(said), unjudged=len(answers) - len(said), mean=mean)


def _row(judge: Judge, answer: CitedAnswer, value: float, now: int) -> dict[str, object]:
    column = judge.scores or judge.labels
    source, boolean = column.source, column.source.schema[column.column] is DType.Boolean
    times = dict.fromkeys(source.times, to_datetime(max(now, answer.at + 1)))
    return {**dict.fromkeys(source.schema), ANSWER: answer.id, column.column: value > 0 if boolean else value, **times}
