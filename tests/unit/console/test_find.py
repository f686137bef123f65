"""Search over everything that has a page."""

import pytest

from kit.console.client import Client
from kit.console.flights import Project
from kit.console.registered import MODEL, registered
from mainspring.console.app import create_app
from mainspring.console.find import find
from mainspring.jobs.model import NewJob
from mainspring.security.model import AuditEvent
from unit.console.test_pages import text_of


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return registered(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_everything_that_is_found_has_a_page(client: Client, project: Project) -> None:
    newest = project.predictions.recent(limit=1)[0].id
    kinds = set()
    for words in ("late", "WEATHER", "departures", "traffic mean", newest, f"{MODEL}:3"):
        hits = client.get(f"/api/find?q={words}").json()["found"]
        assert hits, words
        for hit in hits:
            kinds.add(hit["kind"])
            assert client.page(hit["address"]).status_code == 200, hit
    assert kinds >= {"endpoint", "model", "version", "feature view", "feature", "source", "run", "prediction"}


def test_jobs_audit_events_and_pages_are_found(client: Client, project: Project) -> None:
    [job] = project.jobs.enqueue([NewJob("collect-garbage")], 1)
    project.audit.append([AuditEvent(2, "ana (k1)", "promote", "model/tidal-wave")])
    for words, kind, address in (
        ("garbage", "job", f"/jobs/{job.id}"),
        ("tidal", "audit event", "/audit?action=promote&resource=model%2Ftidal-wave&actor=ana+%28k1%29"),
        ("rollouts", "page", "/rollouts"),
    ):
        hits = client.get(f"/api/find?q={words}").json()["found"]
        assert (kind, address) in {(hit["kind"], hit["address"]) for hit in hits}, hits
        assert client.page(address).status_code == 200


def test_the_name_itself_comes_before_what_only_has_it_inside(project: Project) -> None:
    hits = find(project, MODEL)
    assert {hit.name for hit in hits[:2]} == {MODEL}
    assert hits[-1].name != MODEL


def test_every_word_must_be_there_and_none_finds_nothing(client: Client, project: Project) -> None:
    assert find(project, "  ") == []
    assert find(project, f"{MODEL} nowhere") == []
    assert "Nothing has all of these words" in text_of(client.page("/find?q=%3Cb%3Enobody").text)
    assert "<b>nobody" not in client.page("/find?q=%3Cb%3Enobody").text


def test_the_page_says_what_the_api_says(client: Client) -> None:
    page = client.page(f"/find?q={MODEL}").text
    for hit in client.get(f"/api/find?q={MODEL}").json()["found"]:
        assert f'href="{hit["address"]}"' in page
