"""Language models and chains of answers at a glance."""

from __future__ import annotations

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.ledger.model import Selection
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.usage import FOLDER
from mainspring.llm.usage_table import rows
from mainspring.project import Project

_FEW = 200  # answers that are read one by one


class LanguageModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One language model at a glance.

    Attributes:
        upstreams: Those that it is asked of, the first choice first.
        answers_today: Answers of this machine's gateways since midnight UTC, earlier ones of the cache included.
    """

    model: str
    upstreams: list[str]
    answers_today: int


class AnswersStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One chain of answers at a glance.

    Attributes:
        versions: Version -> share of the questions; empty where the chain answers as it is declared, or not at all.
        answers_today: Answers in the prediction log since midnight UTC by the domain's clock.
        not_found_today: Those of them that say that the documents have none.
        problem: Reason why it does not answer, with the fix.
    """

    answers: str
    model: str
    collection: str
    versions: dict[str, float]
    answers_today: int = 0
    not_found_today: int = 0
    problem: str = ""


def model_statuses(project: Project) -> list[LanguageModelStatus]:
    """Return the declared language models at a glance, by name."""
    declared = sorted(project.definitions.language_models.items())
    if not declared:
        return []
    counts: dict[str, int] = {}
    today = project.wall.now() // DAY * DAY
    for row in rows(project.settings.state / FOLDER, today):
        counts[row.model] = counts.get(row.model, 0) + row.used.requests
    return [
        LanguageModelStatus(
            model=name, upstreams=[of.upstream for of in each.upstreams], answers_today=counts.get(name, 0)
        )
        for name, each in declared
    ]


def answers_statuses(project: Project) -> list[AnswersStatus]:
    """Return the declared chains of answers at a glance, by name."""
    return [_answers(project, each) for _, each in sorted(project.definitions.answers.items())]


def _answers(project: Project, declared: Answers) -> AnswersStatus:
    from mainspring.operations.answer_versions import route_of

    answers, not_found = _today(project, declared.name)
    found = AnswersStatus(
        answers_today=answers,
        not_found_today=not_found,
        answers=declared.name,
        model=declared.model_name,
        collection=declared.retriever.collection.name,
        versions={},
    )
    try:
        route = route_of(project, declared.name)
    except NotFound as error:
        return msgspec.structs.replace(found, problem=str(error))
    if route is None:
        return found
    return msgspec.structs.replace(found, versions={arm.version: arm.weight for arm in route.arms})


def _today(project: Project, name: str) -> tuple[int, int]:
    """Return the numbers of today's answers and of those without one: of few from the log as it is, of many from its
    compacted part, which is seconds behind."""
    since = project.clock.now() // DAY * DAY
    page = project.predictions.newest(Selection(endpoint=name, since=since), _FEW)
    few = (len(page.predictions), sum(not each.outputs.get("found") for each in page.predictions))
    if page.next is None and page.searched is None:
        return few
    arrivals = project.predictions.arrivals(name, since, columns=["score"])
    scores = [batch.column("score").to_numpy() for batch in arrivals.batches] if arrivals is not None else []
    many = sum(map(len, scores))
    return max(few, (many, many - sum(int((each > 0).sum()) for each in scores)))
