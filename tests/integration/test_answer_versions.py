"""Versions of an answer chain: what makes one, which answers, gates with rules and judges, and what people say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mainspring as ms
from kit.answered import Help, chain, help_project, local, ratings, strict
from kit.answered import replied as _replied
from kit.console.client import Client
from kit.people import known
from kit.scripted_upstream import Heard, Script
from mainspring.console.app import create_app
from mainspring.core.errors import Conflict, Denied, Invalid, NotFound
from mainspring.core.time import DAY
from mainspring.delivery.rollout.model import RolloutState
from mainspring.operations.answer_feedback import rate
from mainspring.operations.answer_gates import judge_agreement, labels_of
from mainspring.operations.answer_judging import judge_answers
from mainspring.operations.answer_versions import answer_versions
from mainspring.operations.answers import evaluate_chain, replay, watch
from mainspring.operations.keys import create_key
from mainspring.operations.models import curating, waiving
from mainspring.operations.promote import promote, rollback
from mainspring.operations.rollout import interventions
from mainspring.registry.processes import local_user
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope

GATES = [ms.gates.at_least("answered", 0.9), ms.gates.beats("answered", sure=0.9, margin=0.4)]


@pytest.fixture
def help_(tmp_path: Path) -> Iterator[Help]:
    with help_project(tmp_path) as made:
        yield made


def test_whatever_decides_an_answer_makes_a_version_and_nothing_else_does(help_: Help) -> None:
    help_.declare(chain())
    for other in (
        chain("Answer in one sentence."),
        chain(max_tokens=99),
        chain(model=strict),
        chain(retriever=ms.Retriever("nearest", collection=chain().retriever.collection, k=1)),
    ):
        help_.declare(other)
    project = help_.declare(chain(gates=GATES, keys="customer"))
    found = answer_versions(project, "help")
    assert [each.version for each in found] == ["5", "4", "3", "2", "1"]
    assert [each.declared for each in found] == [False] * 4 + [True]
    assert [(each.part, each.before, each.after) for each in found[3].changed] == [
        ("prompt.messages[0].text", "Answer well.", "Answer in one sentence.")
    ]
    parts = {"prompt.messages[0].text", "max_tokens", "model.name", "model.upstreams[0]"}
    assert {each.part for each in found[1].changed} <= parts
    with pytest.raises(NotFound, match="a chain of answers, no endpoint"):
        project.definitions.endpoint("help")
    with pytest.raises(NotFound, match="no version has passed"):
        help_.ask(project, keys={"customer": "c"})


def test_the_champion_answers_whatever_is_declared_since_and_a_rollback_brings_it_back(help_: Help) -> None:
    first = help_.declare(chain(gates=GATES))
    made = promote(first, "help")
    assert (made.version, made.promoted, [each.passed for each in made.results]) == ("1", True, [True, True])
    bad = help_.declare(chain("Answer badly.", gates=GATES))
    refused = promote(bad, "help")
    assert (refused.version, refused.promoted) == ("2", False)
    assert refused.results[1].against == "version 1"
    answer = help_.ask(bad)
    assert (answer.found, answer.version) == (True, "1")
    asked = len(help_.upstream.heard)
    assert replay(bad, answer.id).fine
    assert len(help_.upstream.heard) == asked + 1
    good = help_.declare(chain("Answer well, please.", gates=GATES))
    assert promote(good, "help").promoted
    assert help_.ask(good).version == "3"
    assert rollback(good, "help").version == "1"
    help_.clock.advance(2_000_000)
    assert help_.ask(good).version == "1"
    assert evaluate_chain(good, "help", version="2").figures["answered"].value == 0
    said = [each.detail for each in good.audit.read() if each.resource == "model/help" and each.action == "promote"]
    assert any("refused: answered at least 0.9" in each for each in said)
    moved = [each.detail for each in good.audit.read() if each.action == "rollback"]
    assert moved == [f"version 3 -> version 1, bundle {good.versions.get('help', '1').digest[:12]}"]
    assert [each.promoted for each in good.evaluations.newest("help", count=9)] == [True, False, True]


def test_a_version_needs_the_approvals_and_waivers_that_any_model_needs(help_: Help) -> None:
    gates = [ms.gates.at_least("answered", 0.9), ms.gates.approved(1)]
    project = help_.declare(chain("Answer badly.", gates=gates))
    assert [each.passed for each in promote(project, "help").results] == [False, False]
    known(project, local_user(), "local:ben")
    key = create_key(project, "ben", ["manage"], DAY, created_by="local:ben")
    curating.approve(project, "help:1", key=key)
    assert [each.passed for each in promote(project, "help").results] == [False, True]
    with pytest.raises(Denied, match="is the author of help:1"):
        waiving.waive(project, "help:1", "answered at least 0.9", reason="a test", until="1d")
    waiving.waive(project, "help:1", "answered at least 0.9", reason="a test", until="1d", key=key)
    made = promote(project, "help")
    assert (made.promoted, bool(made.results[0].waived)) == (True, True)


def test_a_collection_that_is_declared_otherwise_since_is_shown_and_refused(help_: Help) -> None:
    project = help_.declare(chain())
    promote(project, "help")
    other = ms.Collection(
        "docs", source=chain().retriever.collection.source, text="body", key="path",
        chunk=ms.chunks.sentences(tokens=8), encoder=ms.Encoder("words"),
    )  # fmt: skip
    changed = chain(retriever=ms.Retriever("nearest", collection=other, k=2))
    project = help_.declare(changed)
    now, before = answer_versions(project, "help")
    assert {each.part for each in now.changed} >= {"retriever.collection.chunker", "retriever.collection.chunks"}
    assert {each.part for each in before.elsewhere} == {each.part for each in now.changed}
    promote(project, "help", "2")
    with pytest.raises(Conflict, match="was recorded with"):
        promote(project, "help", "1")


def test_a_gate_on_a_judge_is_refused_until_people_agree_with_it(help_: Help) -> None:
    judge = ms.Judge("faithful", model=strict, labels=ratings.supported, agreement=0.3)
    gates = [ms.gates.at_least("faithful", 0.5)]
    declared = chain(gates=gates, judges=[judge], feedback=ratings.helpful)
    project = help_.declare(declared)
    (result,) = promote(project, "help").results
    assert not result.passed
    assert "never measured" in result.note
    plain = help_.declare(chain(judges=[judge], feedback=ratings.helpful))
    with pytest.raises(NotFound, match="ratings"):
        judge_agreement(plain, "help", "faithful")
    for number in range(12):
        question = "When are refunds paid to the card?" if number % 2 else "How are parcels shipped abroad?"
        rate(plain, help_.ask(plain, question).id, ["supported=true"])
    unsure = judge_agreement(plain, "help", "faithful")
    assert (unsure.kappa, unsure.fine, unsure.cases) == (None, False, 12)
    assert "agrees too little" in promote(help_.declare(declared), "help").results[0].note
    help_.upstream.usual = _mistaken
    for number in range(12):
        rate(plain, help_.ask(plain).id, ["supported=no", "helpful=false"][: 1 + number % 2])
    sure = judge_agreement(plain, "help", "faithful")
    assert sure.kappa == 1
    assert sure.low is not None
    assert sure.low > 0.3
    help_.upstream.usual = _replied
    project = help_.declare(declared)
    made = promote(project, "help")
    assert made.promoted, made
    another = ms.Judge("faithful", model=local, labels=ratings.supported, agreement=0.3)
    (other,) = promote(help_.declare(chain("Other.", gates=gates, judges=[another])), "help").results
    assert "never measured" in other.note


def test_a_rating_is_a_row_of_its_source_by_the_answers_id(help_: Help) -> None:
    project = help_.declare(chain(feedback=ratings.helpful))
    answer = help_.ask(project)
    assert rate(project, answer.id, ["helpful=yes"]).said == {"helpful": True}
    rate(project, answer.id, ["helpful=no"])
    assert labels_of(project, ratings.helpful) == {answer.id: False}
    assert [each.resource for each in project.audit.read() if each.action == "ingest"][:2] == ["source/ratings"] * 2
    for wrong in ("helpful=perhaps", "supported=yes", "helpful"):
        with pytest.raises(Invalid):
            rate(project, answer.id, [wrong])
    with pytest.raises(NotFound):
        rate(project, "01JZ0000000000000000000000", ["helpful=yes"])


def _mistaken(heard: Heard) -> Script:
    """Answer with a mistake, which the judge sees."""
    found = _replied(heard)
    return found if heard.json["model"] == "judge" else Script(words=("A mistake. [1]",))


def test_a_judge_scores_logged_answers_once_each(help_: Help) -> None:
    judge = ms.Judge("faithful", model=strict, labels=ratings.supported, scores=ratings.helpful)
    project = help_.declare(chain(judges=[judge]))
    first = help_.ask(project)
    help_.upstream.usual = _mistaken
    second = help_.ask(project)
    found = judge_answers(project, "help", "faithful")
    assert (found.judged, found.unjudged, found.mean) == (2, 0, 0.5)
    assert labels_of(project, ratings.helpful) == {first.id: True, second.id: False}
    assert judge_answers(project, "help", "faithful").judged == 0
    help_.clock.advance(2_000_000)
    assert judge_answers(project, "help", "faithful", window="1s").judged == 0
    found_now = watch(project, "help", window="1d", reference="1d")
    assert (found_now.documents, found_now.never) == (4, 2)
    assert {*found_now.unseen} < {"refunds", "shipping", "hours", "staff"}
    plain = help_.declare(chain(judges=[ms.Judge("faithful", model=strict, labels=ratings.supported)]))
    with pytest.raises(Invalid, match="no column for its judgements"):
        judge_answers(plain, "help", "faithful")


def test_pages_of_a_chain_as_a_model_ask_no_language_model(help_: Help) -> None:
    gates = [ms.gates.at_least("answered", 0.5)]
    promote(help_.declare(chain(gates=gates)), "help")
    project = help_.declare(chain("Answer in one sentence.", gates=gates), ms.Rollout("help"))
    state = interventions.start(project, "help")
    assert isinstance(state, RolloutState)
    key = issue(
        project.key_store,
        name="all",
        scopes=tuple(KeyScope),
        lifetime_us=DAY,
        clock=project.wall,
        pepper=project.pepper,
    )
    client, asked = Client(create_app(project), key), len(help_.upstream.heard)
    for page in ("/models/help", "/models/help/versions/1", "/models/help/versions/2/promote", f"/rollouts/{state.id}"):
        found = client.page(page)
        assert found.status_code == 200, page
    assert "answered at least 0.5" in client.page("/models/help/versions/1").text
    assert client.page("/endpoints/help").headers["location"] == "/answers/help"
    assert len(help_.upstream.heard) == asked
