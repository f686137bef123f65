"""Gates of answer chains: a version beside the champion on the same questions, by rules and by judges that people
agree with.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn
from mainspring.delivery.model import Evaluation, GateResult, nothing
from mainspring.delivery.retrieval import gate_metrics, judge_retrieval
from mainspring.delivery.routing import CHAMPION
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.evaluating import evaluate_answers
from mainspring.llm.answers.feedback import ANSWER
from mainspring.llm.answers.judges import Judge
from mainspring.llm.answers.judging import ModelJudge
from mainspring.llm.answers.model import CitedAnswer
from mainspring.llm.answers.prompting import shown_texts
from mainspring.llm.answers.recording import RecordedAnswer, recorded_answer
from mainspring.llm.answers.versions import elsewhere_changed
from mainspring.operations.answer_versions import declaration, recipe_of
from mainspring.operations.collection_measures import check_tenants
from mainspring.operations.models.curating import actor
from mainspring.operations.open_answers import Models, local_call, open_chain, run
from mainspring.operations.prediction import reveal
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.training.gate_kinds import Gate
from mainspring.vectors.evaluation.declaring import EvaluationSet
from mainspring.vectors.evaluation.evaluating import SearchEvaluation
from mainspring.vectors.evaluation.judgements import Judgements, read_judgements

_MOST_LABELLED = 1_000  # answers that a judge is measured by, the last ones


class JudgeAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of a judge with people on the same answers.

    Attributes:
        kappa, low, high: Cohen's kappa and its interval of 95 %; `None` where all cases are of one class.
        agreed: Share of the answers on which both say the same.
        cases: Number of answers.
        unreadable: Number of labelled answers whose texts are not in the log any more, or that found nothing.
        needed: Least `low` by which gates use the judge.
        fine: Whether it is reached.
    """

    answers: str
    judge: str
    kappa: float | None
    low: float | None
    high: float | None
    agreed: float
    cases: int
    unreadable: int
    needed: float
    fine: bool


def question_set(project: Project, declared: Answers, name: str = "") -> EvaluationSet:
    """Return the evaluation set of a chain, by default its own.

    Raises:
        NotFound: It is not declared.
        Invalid: The chain has none, or the set differs from the collection in having tenants.
    """
    chosen = project.definitions.evaluation_set(name) if name else declared.questions
    if chosen is None:
        raise Invalid(f"The answers {declared.name!r} have no evaluation set of their own.", fix="name one with --set.")
    check_tenants(declared.retriever.collection, chosen.tenant)
    return chosen


async def measured(
    project: Project, declared: Answers, judgements: Judgements, models: Models, metrics: Sequence[str] = ()
) -> SearchEvaluation:
    """Return the measures of a version's answers by rules, its judges and metrics of retrieval. None is recorded.

    Raises:
        UpstreamError: A model does not answer.
    """
    judges = [ModelJudge(each.name, models(each.model), each.model.name, each.instructions) for each in declared.judges]
    chain = open_chain(project, declared, models)
    return await evaluate_answers(judgements, chain, local_call(declared), judges=judges, metrics=metrics)


def gate_results(project: Project, version: ModelVersion) -> list[GateResult]:
    """Return the results of a version's gates on metrics now; the champion answers the same questions for `beats`.

    Raises:
        NotFound: The version needs what is not declared any more, or its collection was never built.
        Conflict: Its collection or its language model is declared otherwise than it was recorded with.
        UpstreamError: A model does not answer.
    """
    declared = project.definitions.answer_chain(version.model)
    gates = [gate for gate in declared.gates if isinstance(gate, Gate) and gate.on_metric]
    candidate = declaration(project, version.model, version.version)
    expect_as_recorded(project, version, candidate)
    if not gates:
        return []
    metrics = gate_metrics(gates, f"The answers {declared.name!r}", declared.judgements)
    judgements = read_judgements(project.lake, question_set(project, declared), now=project.clock.now())
    champion = _champion(project, version.model) if any(gate.kind == "beats" for gate in gates) else None

    async def both(models: Models) -> tuple[SearchEvaluation, SearchEvaluation | None]:
        found = await measured(project, candidate, judgements, models, metrics)
        if champion is None:
            return found, None
        live = declaration(project, version.model, champion.version)
        return found, await measured(project, live, judgements, models, metrics)

    found, served = run(project, both)
    results = judge_retrieval(gates, found, served, "" if champion is None else champion.version)
    judges = {each.name: each for each in declared.judges}
    return [
        result if gate.metric not in judges else _if_agreed(project, declared, judges[gate.metric], gate, result)
        for gate, result in zip(gates, results, strict=True)
    ]


def expect_as_recorded(project: Project, version: ModelVersion, now: Answers) -> None:
    """Raise if the collection or the language model of a version is declared otherwise by now: it would be judged, and
    answer, as no version was recorded.

    Raises:
        Conflict: That is so.
    """
    changed = elsewhere_changed(recipe_of(project, version), now)
    if changed:
        first = changed[0]
        raise Conflict(
            f"Version {version.version} of {version.model!r} was recorded with {first.part} {first.before!r}, which is "
            f"declared as {first.after!r} now.",
            fix="run `mainspring apply` and use its version; to compare two, declare two collections or two models.",
        )


def _champion(project: Project, name: str) -> ModelVersion | None:
    try:
        return project.versions.get(name, CHAMPION)
    except NotFound:
        return None


def _if_agreed(project: Project, declared: Answers, judge: Judge, gate: Gate, result: GateResult) -> GateResult:
    """Return the result of a gate on a judge; none counts while the judge's agreement with people is not shown."""
    stored = project.evaluations.newest(_of(declared, judge), judge.digest)
    fix = f"run `mainspring answers agreement {declared.name} {judge.name}`."
    if not stored:
        return nothing(gate, result.against, f"the agreement of judge {judge.name!r} was never measured.", fix)
    (known,) = stored[0].results
    low = None if known.interval is None else known.interval[0]
    if low is None or low < judge.agreement:
        shown = "unknown" if low is None else f"{known.value:.2f}, at least {low:.2f}"
        note = f"judge {judge.name!r} agrees too little with people: kappa is {shown}, of {known.rows} answers; "
        return nothing(gate, result.against, f"{note}{judge.agreement:g} is needed.", "improve it, or label more.")
    return result


def declared_judge(declared: Answers, name: str) -> Judge:
    """Return a judge of a chain.

    Raises:
        NotFound: The chain has none of this name.
    """
    found = next((each for each in declared.judges if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in declared.judges) or "it has none"
        raise NotFound(f"The answers {declared.name!r} have no judge {name!r}.", fix=f"its judges: {known}.")
    return found


def judge_agreement(project: Project, name: str, judge_name: str) -> JudgeAgreement:
    """Measure a judge against what people say of logged answers, and keep the result for gates. The answers' texts are
    decrypted, which is audited.

    Raises:
        NotFound: Chain or judge is not declared, or no labelled answer is in the log.
        UpstreamError: The judge does not answer.
    """
    declared = project.definitions.answer_chain(name)
    judge = declared_judge(declared, judge_name)
    said = labels_of(project, judge.labels)
    project.predictions.compact()
    answers = [(found, label) for id_, label in said.items() if (found := readable(project, name, id_)) is not None]
    if not answers:
        raise NotFound(
            f"No answer of {name!r} in the log is labelled in {judge.labels.name}.",
            fix=f"label some: `mainspring answers rate ANSWER {judge.labels.column}=true`.",
        )

    async def asked(models: Models) -> JudgeAgreement:
        own = ModelJudge(judge.name, models(judge.model), judge.model.name, judge.instructions)
        call = msgspec.structs.replace(local_call(declared), deadlines=judge.model.deadlines)
        found = await own.agreement(answers, call)
        low, high = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
        return JudgeAgreement(
            answers=name,
            judge=judge.name,
            kappa=None if found.interval is None else found.kappa,
            low=low,
            high=high,
            agreed=found.agreed,
            cases=found.cases,
            unreadable=len(said) - len(answers),
            needed=judge.agreement,
            fine=low is not None and low >= judge.agreement,
        )

    agreed = run(project, asked)
    project.evaluations.add(_kept(project, declared, judge, agreed))
    return agreed


def _kept(project: Project, declared: Answers, judge: Judge, found: JudgeAgreement) -> Evaluation:
    short = None if found.low is None else max(0.0, found.needed - found.low)
    result = GateResult(
        gate=f"kappa of judge {judge.name}",
        against=f"people, {judge.labels.name}",
        value=found.kappa,
        needed=found.needed,
        passed=found.fine,
        short_by=short,
        interval=None if found.low is None or found.high is None else (found.low, found.high),
        sure=0.975,
        rows=found.cases,
    )
    return Evaluation(
        model=_of(declared, judge),
        version=judge.digest,
        champion=None,
        promoted=False,
        results=(result,),
        actor=actor(project),
        at=project.wall.now(),
    )


def _of(declared: Answers, judge: Judge) -> str:
    """Return the name under which a judge's agreement is kept; no model has it."""
    return f"{declared.name}/{judge.name}"


def labels_of(project: Project, column: SourceColumn) -> dict[str, bool]:
    """Return the id of an answer -> the newest Boolean that people say of it, of the last answers that were labelled.

    Raises:
        NotFound: Nothing was ingested.
    """
    names = [ANSWER, column.column, VISIBLE_AT, SEQUENCE]
    rows = [row for batch in duck.batches(project.lake.scan(column.source.name), names) for row in batch.to_pylist()]
    rows.sort(key=lambda row: (row[VISIBLE_AT], row[SEQUENCE]))
    found: dict[str, bool] = {}
    for row in rows:
        found.pop(row[ANSWER], None)
        if row[column.column] is not None:
            found[row[ANSWER]] = row[column.column]
    return dict([*found.items()][-_MOST_LABELLED:])


def readable(project: Project, name: str, id_: str) -> CitedAnswer | None:
    """Return a recorded answer with the texts of its passages; `None` if it is gone, or found nothing."""
    try:
        recorded = recorded_answer(reveal(project, id_))
    except (NotFound, Invalid, Conflict):
        return None
    return with_texts(recorded) if recorded.answer.answers == name and recorded.answer.found else None


def with_texts(recorded: RecordedAnswer) -> CitedAnswer:
    """Return a recorded answer whose passages have the texts that the model was shown."""
    texts = {} if recorded.request is None else shown_texts(recorded.request)
    numbered = enumerate(recorded.answer.passages, start=1)
    passages = tuple(msgspec.structs.replace(each, text=texts.get(number, "")) for number, each in numbered)
    return msgspec.structs.replace(recorded.answer, passages=passages)
