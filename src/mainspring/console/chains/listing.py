"""View models of chains of answers: their list, and one with its newest answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mainspring.console import formats
from mainspring.console.chains.figures import (
    MODEL,
    NEWEST,
    PROMPT,
    AnswerFigures,
    figures,
    grouped,
    is_answer,
)
from mainspring.console.charts import Chart, Line, Table
from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.ledger.model import Prediction
from mainspring.llm.answers.declaring import Answers
from mainspring.operations.answer_versions import declared_name
from mainspring.operations.answers import AnswersReport, answer_chains
from mainspring.project import Project
from mainspring.security.quota import MILLIONTHS

SHOWN = 50  # answers of a page


@dataclass(frozen=True, slots=True)
class ChainRow:
    """A chain in the list, with the figures of its newest answers; `None` without any."""

    chain: AnswersReport
    prompt: str
    figures: AnswerFigures | None


@dataclass(frozen=True, slots=True)
class Variant:
    """Figures of the answers that one version of a chain has made.

    Attributes:
        version: Beginning of the chain's digest. `current`: whether it is declared now.
        prompt: Name and version of its prompt, or the beginning of its digest.
        model: As the upstream called it.
    """

    version: str
    current: bool
    prompt: str
    model: str
    figures: AnswerFigures


@dataclass(frozen=True, slots=True)
class ChainPage:
    """One chain. `answers` are its newest, at most `SHOWN`."""

    name: str
    declared: Answers | None
    version: str
    figures: AnswerFigures | None
    variants: tuple[Variant, ...]
    answers: tuple[Prediction, ...]
    charts: tuple[Chart, ...]


def chain_rows(project: Project, names: Collection[str]) -> list[ChainRow]:
    """Return some chains, by name."""
    found = []
    for each in answer_chains(project):
        if each.name in names:
            prompt = project.definitions.answer_chain(each.name).prompt
            found.append(ChainRow(each, prompt.name, figures(newest_answers(project, each.name))))
    return found


def chain_page(project: Project, name: str) -> ChainPage:
    """Return the page of a chain, which may be declared no more.

    Raises:
        NotFound: It is not declared, and has no answer.
    """
    declared = project.definitions.answers.get(name)
    made = newest_answers(project, name)
    if declared is None and not made:
        raise NotFound(f"There is no chain of answers {name!r}.", fix="run `mainspring answers list`.")
    version = "" if declared is None else declared_name(project, declared)
    prompts = _prompts(project)
    variants = []
    for of, some in grouped(made, lambda each: each.version).items():
        if (found := figures(some)) is not None:
            prompt, model = str(some[0].features.get(PROMPT, "")), str(some[0].features.get(MODEL, ""))
            variants.append(Variant(of, of == version, prompts.get(prompt, prompt[:12]), model, found))
    return ChainPage(
        name, declared, version, figures(made), tuple(variants), tuple(made[:SHOWN]), _charts(made, project.clock.now())
    )


def newest_answers(project: Project, name: str) -> list[Prediction]:
    """Return the newest answers of a chain, the newest first."""
    return [each for each in project.predictions.recent(name, NEWEST) if is_answer(each)]


def _prompts(project: Project) -> dict[str, str]:
    """Return digest -> name and version of the recorded prompts."""
    return {
        version.digest: f"{version.name}:{version.version}"
        for each in project.prompts.newest()
        for version in project.prompts.all(each.name)
    }


def _charts(made: Sequence[Prediction], now: int) -> tuple[Chart, ...]:
    """Return charts of the last 30 days, those with answers among them."""
    if not made:
        return ()
    first = max(min(each.at for each in made), now - 29 * DAY)
    days = list(range(first - first % DAY, now + 1, DAY))
    by_day = grouped(made, lambda each: str(each.at - each.at % DAY))
    found = [figures(by_day.get(str(day), ())) for day in days]
    counts = tuple(None if each is None else float(each.answers - each.not_found) for each in found)
    missing = tuple(None if each is None else float(each.not_found) for each in found)
    costs = tuple(None if each is None else each.cost for each in found)
    starts, ends = tuple(days), tuple(day + DAY for day in days)
    told = [("0", "0", "0") if each is None else (str(each.answers), str(each.not_found), f"{each.cost:.4g}")
            for each in found]  # fmt: skip
    rows = tuple((formats.day(day), *cells) for day, cells in reversed(list(zip(days, told, strict=True))))
    table = Table(("Day", "Answers", "Not found", "Cost"), rows)
    note = f"of the newest {NEWEST:,}" if len(made) >= NEWEST else "a day, UTC"
    answers = Chart(
        "answers", "Answers", "bars", "count", starts, ends,
        (Line("found", counts), Line("not found", missing, "second")), table, note=note, stacked=True, pieces="days",
    )  # fmt: skip
    if not any(costs):
        return (answers,)
    cost = Chart(
        "cost", "Cost", "bars", "number", starts, ends, (Line("cost", costs),), table,
        note="a day, in the project's currency", pieces="days",
    )  # fmt: skip
    return (answers, cost)


def cost_of(made: Prediction) -> float:
    """Return an answer's cost in the project's currency."""
    micros = made.outputs.get("cost_micros")
    return micros / MILLIONTHS if isinstance(micros, int) else 0.0
