"""The monitor on an answer chain: days that differ from its own history become incidents, by the worker's own pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import mainspring as ms
from kit.answered import QUESTIONS, Help, chain, help_project, ratings
from kit.answering import CALL, ScriptedModel
from mainspring.core.time import DAY, HOUR, to_datetime
from mainspring.llm.answers.model import Question
from mainspring.operations.collections import build_collection
from mainspring.operations.distributions import Kept
from mainspring.operations.ingest import land
from mainspring.operations.open_answers import open_answers
from mainspring.operations.watching import watch
from mainspring.project import Project

DAYS, A_DAY = 63, 36
WORDS = ["refunds", "card", "parcels", "abroad", "shop", "weekdays", "staff", "kitchen"]


@pytest.fixture
def help_(tmp_path: Path) -> Iterator[Help]:
    with help_project(tmp_path) as made:
        yield made


def live(
    help_: Help, project: Project, days: int, texts: list[str], found: float, seed: int, a_day: int = A_DAY
) -> None:
    """Ask so many questions on so many days, of which a share is answered."""
    chance, said = random.Random(seed), list[dict[str, object]]()
    model = ScriptedModel(lambda _: "It is so [1]." if chance.random() < found else "NOT FOUND")

    async def asking() -> None:
        asked = open_answers(project, "help", lambda _: model)
        for _ in range(days):
            for _ in range(a_day):
                help_.clock.advance(DAY // a_day)
                answer = await asked.answer(Question(chance.choice(texts)), CALL)
                at = to_datetime(answer.at + 1)
                said.append({"answer": answer.id, "helpful": chance.random() < found, "supported": None, "at": at})
        await asked.close()

    asyncio.run(asking())
    project.predictions.compact()
    land(project, "ratings", said)


def unusual(project: Project) -> set[str]:
    """Return the columns of open incidents that fewer answers change: of 36 questions a day that are drawn, another
    column is unusual now and then, and more often or less as the latency of a busy machine is."""
    return {name for each in project.incidents.open() for name in each.columns} & {"found", "helpful"}


def test_a_day_with_other_questions_and_fewer_answers_is_an_incident_that_ends(help_: Help) -> None:
    project = help_.declare(chain(feedback=ratings.helpful), monitors=[ms.Monitor("help", clean_windows=1)])
    chance = random.Random(0)
    at = "2024-01-01T00:00:00Z"
    many = [
        {"path": f"p{n}", "body": f"{chance.choice(WORDS)} {chance.choice(WORDS)} {n % 7}.", "at": at}
        for n in range(120)
    ]
    land(project, "pages", many)
    build_collection(project, "docs")
    usual = [*QUESTIONS, *(f"Where is the {word} of {other}?" for word in WORDS[:3] for other in WORDS[:3])]
    live(help_, project, DAYS, usual, 0.8, 1)
    kept: dict[str, Kept] = {}
    watch(project, kept=kept)
    assert not unusual(project)
    live(help_, project, 1, ["staff kitchen weekdays", "kitchen staff"], 0.2, 2)
    help_.clock.advance(HOUR)
    (change, *_) = [each for each in watch(project, kept=kept) if "found" in each.incident.columns]
    incident = change.incident
    assert (incident.endpoints, incident.channels) == (("help",), ("surprise",))
    (found,) = [each for each in incident.symptoms if each.column == "found" and each.statistic == "mean"]
    assert "share of questions with an answer is 0." in found.detail
    (helpful, *_) = [each for one in project.incidents.open() for each in one.symptoms if each.column == "helpful"]
    assert "The mean of helpful is 0." in helpful.detail
    every = [each for one in project.incidents.open() for each in one.symptoms]
    (asked, *_) = [each for each in every if each.column == "asked"]
    assert "other kinds than usual" in asked.detail
    assert "Such as answer " in asked.detail
    assert not any(word in each.detail for each in every for word in WORDS)
    revealed = [each for each in project.audit.read(1_000) if each.action == "predictions.reveal"]
    assert {(each.actor, each.resource) for each in revealed} == {("monitor", "endpoint/help")}
    assert not [each for each in watch(project, kept=kept) if each.event]
    live(help_, project, 2, usual, 0.8, 3)
    watch(project, kept={})
    assert not unusual(project)


def test_a_chain_that_nobody_asks_any_more_is_silent(help_: Help) -> None:
    for part in ("predictions", "prediction_log"):  # the project's own, whose compaction counts answers
        del help_.parts[part]
    project = help_.declare(chain())
    live(help_, project, 15, [*QUESTIONS], 0.8, 1, a_day=12)
    help_.clock.advance(HOUR)
    assert watch(project) == []
    help_.clock.advance(2 * DAY)
    causes = {change.incident.cause.key for change in watch(project)}
    assert "traffic:help:" in causes
