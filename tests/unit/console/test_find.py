"""Search over everything that has a page."""

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project
from kit.console.registered import MODEL, registered
from kit.incidents import incident
from mainspring.console.app import create_app
from mainspring.console.find import Found, find
from mainspring.jobs.model import NewJob
from mainspring.operations.runs import describe_run
from mainspring.registry.runs import NAME
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
    hits = find(project, MODEL).hits
    assert {hit.name for hit in hits[:2]} == {MODEL}
    assert hits[-1].name != MODEL


def test_every_word_must_be_there_and_none_finds_nothing(client: Client, project: Project) -> None:
    assert find(project, "  ") == Found()
    assert find(project, f"{MODEL} nowhere") == Found()
    assert "Nothing has all of these words" in text_of(client.page("/find?q=%3Cb%3Enobody").text)
    assert "<b>nobody" not in client.page("/find?q=%3Cb%3Enobody").text


def test_the_number_of_each_kind_is_told_where_not_all_are_shown(client: Client, project: Project) -> None:
    for number in range(11):
        project.tracking.start(MODEL, {NAME: f"glacier {number}"}, number + 1)
    reply = client.get("/api/find?q=glacier").json()
    assert reply["kinds"] == [{"kind": "run", "found": 11, "shown": 8}]
    assert "11 runs, 8 shown" in text_of(client.page("/find?q=glacier").text)
    versions = sum(each.model == MODEL for each in project.versions.all())
    assert f"{versions} versions, 8 shown" in text_of(client.page(f"/find?q={MODEL}").text)


def test_runs_are_found_by_their_notes(client: Client, project: Project) -> None:
    run = project.tracking.start(MODEL, {NAME: "deeper"}, 1)
    describe_run(project, run, note="Beyond the first page.\nThe <b>outliers</b> of JANUARY weigh too much.", by="ana")
    [hit] = client.get("/api/find?q=january+outliers").json()["found"]
    assert (hit["kind"], hit["name"], hit["address"]) == ("run note", "deeper", f"/runs/{run}")
    assert "JANUARY weigh" in hit["note"]
    assert "&lt;b&gt;outliers" in client.page("/find?q=outliers").text


def test_closed_incidents_are_found(client: Client, project: Project) -> None:
    made = incident(MODEL, NOW, source="barometer", id="i-gone", closed_at=NOW, closed_through=NOW)
    project.incidents.save([made])
    hits = client.get("/api/find?q=barometer").json()["found"]
    assert [(hit["kind"], hit["address"]) for hit in hits] == [("incident", "/incidents/i-gone")]
    assert hits[0]["note"].endswith("closed")


def test_predictions_are_found_by_the_beginning_of_their_id(client: Client, project: Project) -> None:
    newest = project.predictions.recent(limit=1)[0].id
    begun = newest[:10]
    alike = [each.id for each in project.predictions.recent(limit=1_000) if each.id.startswith(begun)]
    reply = client.get(f"/api/find?q={begun}").json()
    hits = [hit["name"] for hit in reply["found"] if hit["kind"] == "prediction"]
    assert hits == alike[: len(hits)]
    assert newest in hits
    assert client.get(f"/api/find?q={begun[:-1]}zzzz").json()["found"] == []


def test_the_page_says_what_the_api_says(client: Client) -> None:
    page = client.page(f"/find?q={MODEL}").text
    for hit in client.get(f"/api/find?q={MODEL}").json()["found"]:
        assert f'href="{hit["address"]}"' in page
