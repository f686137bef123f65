"""The pages of language models, prompts, chains of answers and held calls, and their API."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.console.answering import answering
from kit.console.client import Client
from kit.console.flights import Project, populated
from mainspring.console.app import create_app
from mainspring.console.prompts.word_changes import changes, marked
from mainspring.security.model import KeyScope
from unit.console.test_access_pages import log_in


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return answering(tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_prompts_have_versions_aliases_and_uses(client: Client) -> None:
    found = client.page("/prompts").text
    for told in ('href="/prompts/desk"', "live: 2, 10.0% of keys 3", 'href="/answers/help"', "<code>sources</code>"):
        assert told in found, told
    (prompt,) = client.get("/api/prompts").json()["prompts"]
    assert (prompt["name"], prompt["version"]) == ("desk", 3)


def test_a_prompt_shows_two_versions_side_by_side_word_by_word(client: Client) -> None:
    found = client.page("/prompts/desk").text
    assert "<ins>, or write NOT FOUND</ins>" in found
    assert "live: canary, 10.0% of keys" in found
    assert "live, 90.0% of keys" in found
    assert re.search(r'data-label="Answers" class="num">3<', found), "the answers of the newest version are counted"
    other = client.page("/prompts/desk?before=1&after=2").text
    assert "<ins> alone, and cite them as [1]</ins>" in other
    assert "Both are the same" in client.page("/prompts/desk?before=2&after=2").text
    assert client.get("/prompts/desk?before=9").status_code == 404
    assert client.get("/prompts/desk?before=x").status_code == 400
    assert client.get("/prompts/nothing").status_code == 404
    assert [each["version"] for each in client.get("/api/prompts/desk").json()["versions"]] == [3, 2, 1]
    lines = client.get("/api/prompts/desk/difference?before=1&after=2").json()["lines"]
    assert "+Answer from the sources alone, and cite them as [1]." in lines


WORDS = st.text(st.sampled_from("ab <&\n{}."), max_size=30)


@given(WORDS, WORDS)
def test_changes_make_both_texts_and_no_markup_of_theirs(before: str, after: str) -> None:
    pieces = changes(before, after)
    assert "".join(each.text for each in pieces if each.kind != "added") == before
    assert "".join(each.text for each in pieces if each.kind != "removed") == after
    for text, without in ((before, "added"), (after, "removed")):
        shown = str(marked(pieces, without))  # type: ignore[arg-type]
        bare = re.sub("</?(ins|del)>", "", shown)
        assert "<" not in bare
        assert bare.replace("&lt;", "<").replace("&amp;", "&") == text


def test_language_models_show_upstreams_use_and_budgets(client: Client) -> None:
    found = client.page("/language-models").text
    for told in ("Not in this profile", "235,580", "97.0%", "109 of 300 in money a month", "research", "all together"):
        assert told in found, told
    assert 'id="chart-tokens"' in found
    one = client.page("/language-models/assistant?days=7").text
    for told in ("0.05 in, 0.2 out", "A guard, with 1 tool", "Earlier answers are given for 1d", "qwen3-8b"):
        assert told in one, told
    assert client.get("/language-models/nothing").status_code == 404
    assert client.get("/language-models?days=0").status_code == 400
    models = client.get("/api/language-models").json()["models"]
    assert [each["name"] for each in models] == ["assistant", "coder", "embedder"]
    assert client.get("/api/language-models/coder").json()["upstreams"][0]["state"] is None
    assert {each["who"] for each in client.get("/api/language-model-usage?by=key").json()["usage"]} == {
        "k0",
        "k1",
        "k2",
    }
    assert client.get("/api/language-model-budgets").json()["budgets"][0]["spent"] == 97_000
    rows = list(csv.DictReader(io.StringIO(client.get("/language-models.csv?by=team&days=30").text)))
    assert {each["who"] for each in rows} == {"", "research"}


def test_chains_of_answers_have_figures_and_link_to_their_answers(client: Client) -> None:
    assert 'href="/answers/help"' in client.page("/answers").text
    found = client.page("/answers/help").text
    assert "33.3% not found" in found
    (first, *_) = re.findall(r"/predictions/[0-9a-z]+/answer", found)
    trace = client.page(first).text
    for told in ('class="waterfall"', "Check and record", 'href="/prompts/desk"', ", version 3"):
        assert told in trace, told
    assert client.get("/api/answers/help").json()["figures"]["answers"] == 3
    assert client.get("/answers/nothing").status_code == 404
    assert "None yet" in client.page("/answers/desk").text


def test_held_calls_are_decided_once_with_an_event_and_show_no_markup(tmp_path: Path) -> None:
    project = answering(tmp_path)
    client = Client(create_app(project), project.key(name="deciding"))
    found = client.page("/held-calls").text
    assert "2 calls wait" in found
    assert "&lt;b&gt;late" in found
    assert client("POST", "/api/held-calls/call-0/keep", json={}).status_code == 404
    assert client("POST", "/api/held-calls/nothing/approve", json={}).status_code == 404
    made = client("POST", "/api/held-calls/call-0/approve", json={"reason": "it is right"})
    assert (made.status_code, made.json()["status"]) == (200, "approved")
    assert made.json()["decided_by"].endswith(":deciding")
    assert client("POST", "/api/held-calls/call-0/deny", json={}).status_code == 409
    (event,) = [each for each in project.audit.read() if each.action == "llm.approve"]
    assert event.actor.endswith(":deciding")
    assert event.resource == "call/call-0"
    viewer = Client(create_app(project), project.key(KeyScope.VIEW))
    refused = viewer("POST", "/api/held-calls/call-1/approve", json={})
    assert refused.status_code == 403
    assert "manage" in refused.json()["fix"]
    assert viewer.get("/api/held-calls").json()["calls"] == []
    assert "No call waits" in viewer.page("/held-calls").text
    assert [each["id"] for each in client.get("/api/held-calls").json()["calls"]] == ["call-1"]
    assert len(client.get("/api/held-calls?all=true").json()["calls"]) == 3


def test_a_decision_in_the_browser_needs_its_token_and_confirmation(project: Project) -> None:
    browser = Client(create_app(project))
    log_in(browser, project.key(name="ben"))
    csrf = re.search(r'name="csrf" value="([^"]+)"', browser.page("/held-calls").text)
    assert csrf is not None
    address, whole = "/held-calls/call-1/deny", {"csrf": csrf[1], "confirm": "yes", "reason": "no"}
    for lacking in ("csrf", "confirm"):
        given = {name: value for name, value in whole.items() if name != lacking}
        assert browser("POST", address, data=given, headers={"accept": "text/html"}).status_code in (400, 403)
    assert project.held_calls.get("call-1").status == "waiting"  # type: ignore[union-attr]
    assert browser("POST", address, data=whole, headers={"accept": "text/html"}).status_code == 303
    assert "Denied" in browser.page("/held-calls").text


def test_without_anything_each_page_says_how_to_begin() -> None:
    client = Client(create_app(other := populated()), other.key())
    for path, told in (
        ("/prompts", "ms.Prompt"), ("/answers", "ms.Answers"), ("/language-models", "ms.LanguageModel"),
        ("/held-calls", "approval=True"),
    ):  # fmt: skip
        assert told in client.page(path).text, path


def test_a_collection_has_its_builds_and_charts_of_its_measures(client: Client) -> None:
    found = client.page("/collections/docs").text
    for told in ("Searched", "recall@10 at least 0.5: 1", 'id="chart-measure-0"', 'name="mode"'):
        assert told in found, told
    (built,) = client.get("/api/collections/docs").json()["build"]["history"]
    assert built["gates"] == [{"gate": "recall@10 at least 0.5", "passed": True, "value": 1.0}]
    hits = client.page("/collections/docs/search?q=refunds&mode=hybrid").text
    assert "meaning: place 1" in hits
    assert "words: place 1" in hits


def test_the_search_finds_them(client: Client) -> None:
    found = {(each["kind"], each["address"]) for each in client.get("/api/find?q=desk").json()["found"]}
    assert {("prompt", "/prompts/desk"), ("answers", "/answers/desk")} <= found
    assert ("page", "/held-calls") in {
        (each["kind"], each["address"]) for each in client.get("/api/find?q=held").json()["found"]
    }
