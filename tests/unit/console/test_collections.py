"""The pages of collections, the search in one, and their API."""

from __future__ import annotations

from typing import Any

import pytest

import mainspring as ms
from kit.console.client import Client
from kit.console.flights import NOW, Project, declared, populated
from kit.encoders import WordEncoder
from mainspring.console.app import create_app
from mainspring.core.time import DAY, to_datetime
from mainspring.llm.answers.model import Question
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import Signal
from mainspring.operations.access import add_account, grant_role, parse_grant
from mainspring.operations.answers import ask
from mainspring.operations.apply import apply
from mainspring.operations.collection_evaluation import evaluate_collection
from mainspring.operations.collections import build_collection
from mainspring.operations.ingest import land
from mainspring.operations.keys import create_key
from mainspring.operations.watching import settle
from mainspring.security.model import KeyScope, Kind
from mainspring.vectors.declaring import Encoder

PAGES = ms.Source("pages", schema={"path": ms.String, "body": ms.String, "team": ms.String}, event_time="at", id="path")
LETTERS = ms.Source("letters", schema={"path": ms.String, "body": ms.String}, event_time="at", id="path", pii=["body"])
ASKED = ms.Source("asked", schema={"q": ms.String, "doc": ms.String}, event_time="at")
QUESTIONS = ms.EvaluationSet("questions", source=ASKED, query="q", relevant="doc")
WORDS = ms.Encoder("words")
DOCS = ms.Collection(
    "docs", source=PAGES, text="body", key="path", chunk=ms.chunks.markdown(64), encoder=WORDS, fields=["team"],
    evaluation=QUESTIONS,
)  # fmt: skip
MAIL = ms.Collection("mail", source=LETTERS, text="body", key="path", chunk=ms.chunks.sentences(64), encoder=WORDS)
NEVER = ms.Collection("never", source=PAGES, text="body", key="path", chunk=ms.chunks.sentences(64), encoder=WORDS)
SHARED = ms.Collection(
    "shared", source=PAGES, text="body", key="path", chunk=ms.chunks.sentences(64), encoder=WORDS, tenant="team",
    words=True,
)  # fmt: skip
ENCODER = WordEncoder(64)
OPENED_FOR_QUERIES: list[bool] = []
JUDGE = ms.Reranker("judge")  # which is not registered
JUDGED = ms.Answers("judged", retriever=ms.Retriever("docs-judged", collection=DOCS, k=2, rerank=JUDGE))
HELP = ms.Answers("help", retriever=ms.Retriever("docs-search", collection=DOCS, k=2))
REFUNDS = "# Refunds\n\nRefunds are <b>paid</b> to the card within two weeks."
SECRET = "Ana lives in the tower."


class _Project(Project):
    def encoder(self, declared: Encoder, digest: str | None = None, *, for_queries: bool = False) -> WordEncoder:
        OPENED_FOR_QUERIES.append(for_queries)
        return ENCODER


@pytest.fixture(scope="module")
def project() -> Project:
    definitions = declared(
        sources={each.name: each for each in (PAGES, LETTERS, ASKED)},
        collections={each.name: each for each in (DOCS, MAIL, NEVER, SHARED)},
        evaluation_sets={"questions": QUESTIONS},
        encoders={"words": WORDS},
        answers={"help": HELP, "judged": JUDGED},
        monitors={"docs": ms.Monitor(collection="docs")},
    )
    made = _Project(definitions=definitions)
    apply(made)
    rows: dict[str, list[dict[str, Any]]] = {
        "pages": [
            {"path": "refunds", "body": REFUNDS, "team": "money"},
            {"path": "hours", "body": "The shop opens early on weekdays.", "team": "desk"},
            {"path": "blank", "body": "  ", "team": "desk"},
        ],
        "letters": [{"path": "ana", "body": SECRET}],
        "asked": [{"q": "refunds to the card", "doc": "refunds"}],
    }
    for source, given in rows.items():
        land(made, source, [{**row, "at": to_datetime(NOW)} for row in given])
    for name in ("docs", "mail", "shared"):
        build_collection(made, name)
    evaluate_collection(made, "docs")
    return made


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_a_watched_collection_shows_its_incidents_and_incidents_link_it(project: Project) -> None:
    end = project.clock.now()
    signal = Signal(
        channel="surprise", endpoint="docs", statistic="mean", column="found", start=end - DAY, end=end, severity=3.0,
        detail="The share of searches with an answer is 0.2.",
    )  # fmt: skip
    client = Client(create_app(project), project.key())
    assert "Nothing is unusual" in client.page("/collections/docs").text
    assert "Nobody watches it" in client.page("/collections/never").text
    (change,) = settle(project, [Judged("docs", "surprise", ((end - DAY, end),), (signal,))], end)
    shown = client.page("/collections/docs").text
    assert "share of searches with an answer is 0.2" in shown
    assert f"/incidents/{change.incident.id}" in shown
    assert "share of searches with an answer is 0.2" in client.page("/incidents?endpoint=docs").text
    assert "found of docs" in client.page(f"/incidents/{change.incident.id}").text
    assert client.get("/endpoints/docs").headers["location"] == "/collections/docs"


def test_the_list_has_counts_recall_and_state(client: Client) -> None:
    found = client.page("/collections").text
    for told in ('<a href="/collections/docs"', "recall@10", "Current", "Never built", "markdown"):
        assert told in found
    assert "No collections yet" in Client(create_app(other := populated()), other.key()).page("/collections").text


def test_a_collection_shows_what_it_is_of_what_was_left_out_and_how_well_it_is_searched(client: Client) -> None:
    found = client.page("/collections/docs").text
    for told in ("64 dimensions", "1 document: empty", "ndcg@10", "mainspring collections show docs", 'name="q"'):
        assert told in found
    assert "mainspring collections build never" in client.page("/collections/never").text
    assert client.get("/collections/nothing").status_code == 404


def test_a_search_shows_why_a_hit_is_a_hit_and_runs_no_markup_of_a_document(client: Client) -> None:
    found = client.page("/collections/docs/search?q=refunds+paid+to+the+card").text
    for told in ("<mark>Refunds</mark>", "&lt;b&gt;<mark>paid</mark>&lt;/b&gt;", "shares refunds, paid, the, card"):
        assert told in found
    assert found.index("<h3>refunds") < found.index("<h3>hours")
    assert "team: money" in found
    assert "was never built" in client.page("/collections/never/search?q=refunds").text
    assert client.page("/collections/docs/search?q=+").status_code == 200


def test_a_search_is_by_words_too_where_the_collection_has_them(client: Client) -> None:
    assert '<option value="hybrid" selected>' in client.page("/collections/shared").text
    assert 'value="hybrid"' not in client.page("/collections/docs").text
    asked = "/collections/shared/search?q=refunds&tenant=money"
    assert client.get(f"/api{asked}").json()["hits"][0]["places"].keys() == {"vectors", "words"}
    assert OPENED_FOR_QUERIES[-1]
    assert not client.get(f"/api{asked}&mode=vectors").json()["hits"][0]["places"]
    assert '<option value="vectors" selected>' in client.page(f"{asked}&mode=vectors").text


def test_the_api_has_the_same(client: Client) -> None:
    names = [each["name"] for each in client.get("/api/collections").json()["collections"]]
    assert names == ["docs", "mail", "never", "shared"]
    assert client.get("/api/collections/docs").json()["documents"] == 2
    hits = client.get("/api/collections/docs/search?q=refunds").json()["hits"]
    assert hits[0]["document"] == "refunds"
    assert hits[0]["text"] == REFUNDS
    assert client.get("/api/collections/never/search?q=refunds").status_code == 404


def test_the_trace_of_an_answer_shows_each_step_and_its_texts_only_when_asked_for(
    client: Client, project: Project
) -> None:
    answer = ask(project, "help", Question("refunds are paid to the card"))
    address = f"/predictions/{answer.id}"
    project.predictions.compact()
    assert f'<a href="{address}/answer"' in client.page(address).text
    hidden = client.page(f"{address}/answer").text
    for told in ("Answered", "2 passages of index docs-", "1 citation", "Show them", "quotes"):
        assert told in hidden, told
    assert "to the card" not in hidden
    shown = client.page(f"{address}/answer?reveal=true").text
    for told in ("refunds are paid to the card", "Refunds are", "[1] refunds, characters", "<summary>system</summary>"):
        assert told in shown, told
    assert client.get(f"/api{address}/answer").json()["texts"] is None
    texts = client.get(f"/api{address}/answer?reveal=true").json()["texts"]
    assert texts["answer"]["citations"][0]["document"] == "refunds"
    reveals = [each for each in project.audit.read() if each.action == "predictions.reveal"]
    assert [each.resource for each in reveals] == [f"prediction/{answer.id}"] * 2
    assert "Not reranked" not in hidden
    judged = ask(project, "judged", Question("refunds are paid to the card"))
    lost = ask(project, "help", Question("zebra zebra zebra"))
    project.predictions.compact()
    told = client.page(f"/predictions/{judged.id}/answer").text
    assert "Not reranked, in the order in which they were found. Reranker" in told
    assert "Not found" in client.page(f"/predictions/{lost.id}/answer").text
    assert client.get("/predictions/nothing/answer").status_code == 404


def test_a_text_of_a_person_is_searched_only_when_asked_for_with_an_event(client: Client, project: Project) -> None:
    refused = client.get("/api/collections/mail/search?q=tower")
    assert refused.status_code == 400
    assert "column.reveal on column/letters/body" in refused.json()["fix"]
    hidden = client.page("/collections/mail/search?q=tower")
    assert 'class="chunks"' not in hidden.text
    assert "identifies a person" in hidden.text
    assert 'name="reveal" value="true"' in hidden.text
    assert client.get("/api/collections/mail/search?q=tower&reveal=true").json()["hits"][0]["text"] == SECRET
    (event,) = [each for each in project.audit.read() if each.action == "collections.reveal"]
    assert event.resource == "collection/mail"


def test_who_may_not_see_a_text_cannot_tell_by_a_search_which_words_it_has(project: Project) -> None:
    reading = Client(create_app(project), project.key(KeyScope.VIEW, name="reader"))
    told = set()
    for words in ("tower", "zebra", "Ana"):
        for more in ("", "&reveal=true"):
            found = reading.get(f"/api/collections/mail/search?q={words}{more}")
            assert found.status_code in (400, 403)
            told.add((more, found.status_code, found.text))
    assert len(told) == 2
    assert reading.get("/api/collections/docs/search?q=refunds").status_code == 200


def test_a_tenant_is_searched_for_those_who_may_have_it_searched(client: Client, project: Project) -> None:
    asked = "/api/collections/shared/search?q=refunds&tenant="
    assert [hit["document"] for hit in client.get(f"{asked}money").json()["hits"]] == ["refunds"]
    account = add_account(project, Kind.SERVICE, "desk")
    for resource in ("table/pages", "tenant/desk"):
        grant_role(project, parse_grant(project, "analyst", "service:desk", resource))
    key = create_key(project, "desk", [KeyScope.VIEW, KeyScope.PREDICT], DAY, owner=account.id)
    desk = Client(create_app(project), key)
    assert [hit["document"] for hit in desk.get(f"{asked}desk").json()["hits"]] == ["hours"]
    for other in ("money", "nobody"):
        assert desk.get(f"{asked}{other}").status_code == 403


def test_a_key_that_may_not_see_rows_may_not_search(project: Project) -> None:
    scraping = Client(create_app(project), project.key(KeyScope.SCRAPE, name="scraper"))
    assert scraping.get("/api/collections/docs/search?q=refunds").status_code == 403
