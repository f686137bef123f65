"""Rollouts of an answer chain's versions: worse ones end by themselves, equal ones do not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.answer_gateway import answer_gateway
from kit.answered import QUESTIONS, Help, chain, help_project, ratings
from kit.answering import CALL, ScriptedModel
from kit.depth import examples
from mainspring.core.errors import DeadlineExceeded, Invalid
from mainspring.core.settings import UpstreamServer
from mainspring.core.time import SECOND, to_datetime
from mainspring.delivery.rollout.model import RolloutState, Status
from mainspring.ledger.model import Selection
from mainspring.llm.answers.model import Question
from mainspring.llm.model import ChatRequest, UpstreamError
from mainspring.operations.answer_versions import answer_versions
from mainspring.operations.ingest import land
from mainspring.operations.open_answers import open_answers
from mainspring.operations.promote import promote
from mainspring.operations.rollout import interventions
from mainspring.operations.rollout.carrying_out import controller
from mainspring.project import Project

PLAN = {"kind": "canary", "steps": (0.5,), "hold": "1m", "least_requests": 20, "longest": "6h"}
FOUND = ms.guards.output("found", tolerance=0.1, higher_is_better=True)


@pytest.fixture
def help_(tmp_path: Path) -> Iterator[Help]:
    with help_project(tmp_path) as made:
        yield made


def begun(help_: Help, candidate: ms.Answers, **plan: Any) -> Project:
    """Return a project whose first version is champion beside the given candidate, in a rollout that has begun."""
    promote(help_.declare(chain(keys=candidate.keys, feedback=candidate.feedback)), "help")
    project = help_.declare(candidate, ms.Rollout("help", **{**PLAN, **plan}))
    state = interventions.start(project, "help")
    assert isinstance(state, RolloutState), state
    controller(project).tick()
    return project


def lived(
    help_: Help,
    project: Project,
    reply: Callable[[ChatRequest], str],
    number: int,
    each: Callable[[Any], None] = lambda _: None,
    keys: Callable[[int], str] | None = None,
) -> tuple[RolloutState, list[Any]]:
    """Ask so many questions, a second apart, with a look after each tenth; return the rollout and the answers."""
    looking, model, found = controller(project), ScriptedModel(reply), []

    async def live() -> None:
        asked = open_answers(project, "help", lambda _: model)
        asked.fresh_us = 0
        for place in range(number):
            help_.clock.advance(SECOND)
            named = {} if keys is None else {"customer": keys(place)}
            try:
                found.append(await asked.answer(Question([*QUESTIONS][place % 4], keys=named), CALL))
                each(found[-1])
            except UpstreamError:
                pass
            if place % 10 == 9:
                await asked.close()
                project.predictions.compact()
                await asyncio.to_thread(looking.tick)
        await asked.close()

    asyncio.run(live())
    (state,) = project.rollouts.find(endpoints=["help"], limit=1)
    return state, found


def well(request: ChatRequest) -> str:
    return "It is so [1]."


def badly(request: ChatRequest) -> str:
    return "No idea." if "badly" in request.messages[0].text else well(request)


def test_a_worse_prompt_is_rolled_back_by_itself_and_its_answers_name_their_versions(help_: Help) -> None:
    project = begun(help_, chain("Answer badly."), guards=[ms.guards.errors(), FOUND])
    state, answers = lived(help_, project, badly, 300)
    assert state.status is Status.ROLLED_BACK, state.why
    assert "output found" in state.why
    assert {(each.version, each.found) for each in answers} == {("1", True), ("2", False)}
    assert sum(each.version == "2" for each in answers) < 150
    assert [each.version for each in answers[-20:]] == ["1"] * 20
    assert [(each.version, each.champion, each.candidate) for each in answer_versions(project, "help")] == [
        ("2", False, False),
        ("1", True, False),
    ]
    assert any(each.action == "rollout.roll-back" for each in project.audit.read())


def sometimes(seed: int, share: float = 0.8) -> Callable[[ChatRequest], str]:
    """Return a model that answers so many of its questions, whatever the version."""
    chance = random.Random(seed)
    return lambda _: "It is so [1]." if chance.random() < share else "NOT FOUND"


def test_an_equal_prompt_is_promoted_on_evidence(help_: Help) -> None:
    project = begun(
        help_, chain("Answer well, please."), guards=[ms.guards.output("found", tolerance=0.5, higher_is_better=True)]
    )
    state, answers = lived(help_, project, sometimes(1), 500)
    assert state.status is Status.DONE, state.why
    assert answers[-1].version == "2"
    (move,) = [each for each in project.versions.moves("help", "champion") if each.new == "2"]
    assert state.id in move.reason


@pytest.mark.parametrize("seed", range(examples(gate=2, deep=30)))
def test_equal_prompts_are_hardly_ever_rolled_back(help_: Help, seed: int) -> None:
    guards = [
        ms.guards.errors(),
        ms.guards.latency(slower=9.0),
        ms.guards.score(),
        ms.guards.output("found", higher_is_better=True),
    ]
    project = begun(help_, chain("Answer well, please."), guards=guards)
    state, _ = lived(help_, project, sometimes(seed), 300)
    assert state.status is Status.RUNNING, state.why


def test_a_candidate_whose_model_fails_is_rolled_back_by_its_failures(help_: Help) -> None:
    def failing(request: ChatRequest) -> str:
        if "badly" in request.messages[0].text:
            raise UpstreamError("It is broken.", kind="failed", upstream="local")
        return well(request)

    project = begun(help_, chain("Answer badly."), guards=[ms.guards.errors()])
    state, answers = lived(help_, project, failing, 200)
    assert state.status is Status.ROLLED_BACK, state.why
    assert {each.version for each in answers} == {"1"}


def test_a_dearer_candidate_is_rolled_back_by_its_tokens(help_: Help) -> None:
    def longer(request: ChatRequest) -> str:
        return "It is so [1]." + " And so on." * (40 if "badly" in request.messages[0].text else random.randrange(3))

    project = begun(help_, chain("Answer badly."), guards=[ms.guards.output("completion_tokens", tolerance=0.5)])
    state, _ = lived(help_, project, longer, 300)
    assert state.status is Status.ROLLED_BACK, state.why
    assert "completion_tokens" in state.why


def test_a_customer_stays_in_one_version_with_a_known_probability(help_: Help) -> None:
    project = begun(
        help_, chain("Other.", keys="customer"), guards=[ms.guards.errors()], assign="customer", steps=(0.3,)
    )
    lived(help_, project, well, 100, keys=lambda place: f"c{place % 20}")
    by_customer: dict[str, set[str]] = {}
    logged = [row for part in project.predictions.scan(Selection(endpoint="help")) for row in part]
    for each in logged:
        by_customer.setdefault(str(project.predictions.revealed(each).keys["customer"]), set()).add(each.version)
    assert len(by_customer) == 20
    assert {len(versions) for versions in by_customer.values()} == {1}
    assert {(each.version, round(each.weight, 6)) for each in logged if each.rollout} == {("1", 0.7), ("2", 0.3)}
    assert len({each.unit for each in logged}) == 20


def test_what_people_say_decides(help_: Help) -> None:
    guards = [ms.guards.outcome(ratings.helpful, within="30s", tolerance=0.1)]
    project = begun(help_, chain("Answer badly.", feedback=ratings.helpful), guards=guards)
    chance = random.Random(2)

    waiting: list[dict[str, Any]] = []

    def said(answer: Any) -> None:  # as `rate` does, of which each is a version of the table
        helpful = chance.random() < (0.8 if answer.version == "1" else 0.1)
        at = to_datetime(help_.clock.now() + 1)
        waiting.append({"answer": answer.id, "helpful": helpful, "supported": None, "at": at})
        if len(waiting) == 40:
            land(project, "ratings", waiting)
            waiting.clear()

    state, _ = lived(help_, project, well, 320, said)
    assert state.status is Status.ROLLED_BACK, state.why
    assert "outcome helpful" in state.why


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"kind": "shadow", "steps": None}, "not asked again"),
        ({"assign": "parcel"}, "no key of the model"),
        ({"guards": [ms.guards.outcome("helpful")]}, "declares no label"),
        ({"guards": [ms.guards.quality("brier")]}, "declares no label"),
    ],
)
def test_a_plan_that_cannot_be_of_answers_is_refused(help_: Help, plan: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        begun(help_, chain("Other.", keys="customer"), **plan)


def test_a_gateway_answers_by_the_rollout_and_keeps_a_customer_in_its_version(help_: Help) -> None:
    project = begun(help_, chain("Answer better.", keys="customer"), assign="customer")

    async def asked_by_customers() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        local = {"LOCAL": UpstreamServer("local", help_.upstream.url)}
        async with answer_gateway(project, local) as asked:
            for number in range(24):
                customer = f"c{number % 8}"
                body = {"question": "When are refunds paid to the card?", "keys": {"customer": customer}}
                answer = await asked.post("/answers/help", body)
                assert answer.status_code == 200, answer.text
                found.setdefault(customer, set()).add(answer.json()["version"])
        return found

    versions = asyncio.run(asked_by_customers())
    assert {len(each) for each in versions.values()} == {1}
    assert set.union(*versions.values()) == {"1", "2"}
    project.predictions.compact()
    kept = [each for part in project.predictions.scan(Selection(endpoint="help")) for each in part]
    assert len(kept) == 24
    assert all(each.rollout for each in kept)


def test_an_answer_that_is_late_is_a_failure_of_its_arm(help_: Help) -> None:
    project = begun(help_, chain("Answer better."))

    async def late() -> None:
        opened = open_answers(project, "help", lambda _: ScriptedModel("x [1]."))
        with pytest.raises(DeadlineExceeded, match="'help' gave no answer within"):
            await opened.answer(Question("When are refunds paid?"), CALL, within_us=1)
        await opened.close()

    asyncio.run(late())
    project.predictions.compact()
    (rollout,) = project.rollouts.live()
    assert [each.kind for each in project.predictions.failures(rollout.id)] == ["DeadlineExceeded"]
