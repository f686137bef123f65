"""Questions to a chain over a collection: without a language model, and with a server of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.document_shop import BODIES, Shop
from kit.encoders import WordEncoder
from kit.scripted_upstream import Script, scripted
from mainspring.core.errors import Invalid, NotFound, Unavailable
from mainspring.core.settings import UpstreamServer
from mainspring.core.time import DAY
from mainspring.ledger.model import Log
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.answers.model import Question
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.model import UpstreamError
from mainspring.operations.answers import answer_chains, ask, evaluate_chain, replay, revealed_answer, watch
from mainspring.project.settings import load_settings
from mainspring.security.policy_files import PolicyFiles

MODEL = LanguageModel("local", upstreams=[UpstreamModel("here", "tiny", price=TokenPrice(prompt=2.0, completion=10.0))])


def shop(model: LanguageModel | None = None, *, tenant: bool = False, words: bool = False, **more: Any) -> Shop:
    made = Shop(tenant, words=words)
    retriever = Retriever("docs", collection=made.declared, k=3, min_score=0.2)
    made.answers["help"] = Answers("help", retriever=retriever, model=model, log=Log(sync=True), **more)
    made.build(WordEncoder(64))
    return made


def test_a_chain_without_a_language_model_quotes_and_cites() -> None:
    found = ask(shop(), "help", Question("When are refunds paid to the card?"))
    assert found.text == "Refunds are paid within two weeks to the card. [1]"
    assert [each.document for each in found.citations] == ["refunds"]
    assert (found.model, found.cost_micros, found.found) == ("quotes", 0, True)


@pytest.mark.parametrize("question", ["zebra moon lottery", "Which zebra opens the lottery on the moon?"])
def test_what_no_document_says_is_not_found(question: str) -> None:
    found = ask(shop(), "help", Question(question))
    assert (found.found, found.citations) == (False, ())
    assert found.reason in ("nothing retrieved", "declined")


def test_an_answer_is_in_the_log_and_replays_until_the_collection_changes() -> None:
    made = shop(keys="customer")
    found = ask(made, "help", Question("When are refunds paid to the card?", keys={"customer": "c1"}))
    made.predictions.compact()
    assert revealed_answer(made, found.id).answer.text == found.text
    assert made.events[-1].action == "predictions.reveal"
    again = replay(made, found.id)
    assert (again.fine, again.why) == (True, ())
    assert replay(made, found.id, ask_model=False).reply == "cannot"
    made.land({"refunds": "Refunds are paid within three weeks"})
    made.build()
    moved = replay(made, found.id)
    assert (moved.retrieved, moved.prompt, moved.reply) == ("cannot", "cannot", "identical")
    assert made.predictions.erase({"customer": "c1"}) == 1
    with pytest.raises(NotFound):
        replay(made, found.id)


def test_a_collection_with_words_is_searched_by_both_and_the_least_score_is_one_of_vectors() -> None:
    made = shop(words=True)
    made.land({"code": "Write to desk Q17 by post."})
    made.build()
    found = ask(made, "help", Question("When are refunds paid to the card?"))
    assert found.citations[0].document == "refunds"
    assert found.passages[0].score < 0.04 < 0.2 <= min(each.similarity for each in found.passages)
    assert replay(made, found.id).fine
    weak = ask(made, "help", Question("Q17 zebra moon lottery weekend"))
    assert weak.reason == "nothing retrieved", "its word is not enough"
    retriever = Retriever("docs", collection=made.declared, k=3, mode="vectors")
    made.answers["help"] = Answers("help", retriever=retriever)
    vectors = ask(made, "help", Question("When are refunds paid to the card?"))
    assert vectors.passages[0].score == vectors.passages[0].similarity == found.passages[0].similarity


def test_a_question_searches_the_documents_of_its_tenant() -> None:
    made = shop(tenant=True)
    made.land({"secret": "Refunds are paid in gold to the card."}, team="b")
    made.build()
    question = "Refunds are paid to the card?"
    assert [each.document for each in ask(made, "help", Question(question, tenant="b")).citations] == ["secret"]
    assert "secret" not in {each.document for each in ask(made, "help", Question(question, tenant="a")).passages}
    with pytest.raises(Invalid, match="of several tenants"):
        ask(made, "help", Question(question))


def test_a_server_of_a_language_model_answers(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\n')
    with scripted() as upstream:
        upstream.usual = Script(words=("Within ", "two ", "weeks ", "[1], ", "or never [9]."), usage=(100, 0, 9, 0))
        made = shop(MODEL)
        servers = {"HERE": UpstreamServer("here", upstream.url)}
        made.settings = replace(load_settings(tmp_path, environment={}), upstreams=servers)
        found = ask(made, "help", Question("When are refunds paid to the card?"))
        assert found.text == "Within two weeks [1], or never."
        assert (found.unknown_citations, found.cost_micros) == (1, 100 * 2 + 9 * 10)
        sent = upstream.heard[-1].json
        assert sent["model"] == "tiny"
        assert (sent["temperature"], sent["seed"]) == (0, 0)
        assert "Refunds are paid within two weeks" in sent["messages"][-1]["content"]
        made.predictions.compact()
        assert replay(made, found.id).fine
        upstream.usual = Script(status=500)
        with pytest.raises(UpstreamError):
            ask(made, "help", Question("When are refunds paid to the card?"))


def test_a_guard_of_the_language_model_holds_for_answers(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\n')
    guarded = replace(MODEL, guard=Guard(personal={"email": "redact"}))
    with scripted() as upstream:
        upstream.usual = Script(words=("Ask bob@", "x.example or up-key-1234567890 [1]."))
        made = shop(guarded)
        server = UpstreamServer("here", upstream.url, key="up-key-1234567890")
        made.settings = replace(load_settings(tmp_path, environment={}), upstreams={"HERE": server})
        made.pepper, made.policy_files = b"p" * 32, PolicyFiles(tmp_path / "policies", tmp_path / "kept")
        found = ask(made, "help", Question("When are refunds paid to the card?"))
        assert found.text == "Ask [email] or [key of upstream HERE] [1]."
        assert "never repeat it" in str(upstream.heard[-1].json)


def test_a_chain_with_a_reranker_replays_too() -> None:
    made = Shop()
    retriever = Retriever("docs", collection=made.declared, k=2, candidates=4, rerank="words")
    made.answers["help"] = Answers("help", retriever=retriever, log=Log(sync=True))
    made.build(WordEncoder(64))
    found = ask(made, "help", Question("When are refunds paid to the card?"))
    assert (found.passages[0].document, found.index.endswith("+words-2")) == ("refunds", True)
    made.predictions.compact()
    assert replay(made, found.id).fine


def test_a_model_without_an_upstream_says_what_to_write() -> None:
    with pytest.raises(Unavailable, match=r"llm\.upstreams\.here"):
        ask(shop(MODEL), "help", Question("When are refunds paid?"))


def test_a_chain_is_measured_by_the_set_of_its_collection() -> None:
    made = shop()
    found = evaluate_chain(made, "help")
    assert (found.questions, found.set, found.version) == (5, "questions", made.answers["help"].digest[:12])
    assert found.figures["answered"].value == 1.0
    assert found.figures["false_hits"].value == 0.0
    assert found.figures["overlap"].value == 1.0
    assert [each.name for each in answer_chains(made)] == ["help"]


def test_questions_of_two_windows_that_differ_from_those_before_alert() -> None:
    made = shop()
    rng = np.random.default_rng(1)

    def asked(paths: Sequence[str], many: int) -> None:
        made.clock.advance(DAY // 2)
        for number in range(many):
            words = BODIES[paths[number % len(paths)]].rstrip(".").split()
            ask(made, "help", Question(" ".join(rng.choice(words, 5, replace=False))))
        made.clock.advance(DAY // 2)

    made.land(
        {f"{path} {n}": " ".join(rng.permutation(body.split())) for path, body in BODIES.items() for n in range(60)}
    )
    made.build()
    asked(("refunds", "hours"), 200)
    asked(("refunds", "hours"), 60)
    asked(("shipping", "staff"), 60)
    first = watch(made, "help", window="1d", reference="1d")
    assert first.drift is not None
    assert (first.drift.verdict.drifted, first.drift.verdict.alert, first.questions) == (True, False, 60)
    assert first.example
    assert made.events[-1].action == "predictions.reveal"
    asked(("shipping", "staff"), 60)
    second = watch(made, "help", window="1d", reference="2d")
    assert second.drift is not None
    assert second.drift.verdict.alert
    with pytest.raises(Invalid, match="longer than nothing"):
        watch(made, "help", window=0)
