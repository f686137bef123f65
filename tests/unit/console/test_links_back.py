"""Links from where something is made to where it is used, and back."""

import html
import re

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project
from kit.console.shop import shop
from kit.console.troubled import ENDPOINT, Troubled, troubled
from mainspring.console.app import create_app
from mainspring.core.time import DAY
from mainspring.data.model import QUARANTINE_SUFFIX
from unit.console.test_pages import text_of


@pytest.fixture(scope="module")
def made() -> Troubled:
    return troubled()


@pytest.fixture(scope="module")
def client(made: Troubled) -> Client:
    return Client(create_app(made.project), made.project.key())


def links(page: str) -> list[str]:
    return [html.unescape(each) for each in re.findall(r'href="([^"]+)"', page)]


def test_a_commit_leads_to_the_runs_and_versions_that_trained_on_it(client: Client, made: Troubled) -> None:
    commit = made.project.snapshots.log(1)[0].id
    assert "No run names this commit" in client.page(f"/data/commits/{commit}").text
    run = made.project.tracking.start(ENDPOINT, {"dataset_commit": commit}, NOW - DAY)
    other = made.project.tracking.start(ENDPOINT, {"dataset_commit": "f" * 64}, NOW - DAY)
    version = made.project.versions.register(ENDPOINT, "e" * 64, run, {"dataset_commit": commit}, NOW)
    found = links(client.page(f"/data/commits/{commit}").text)
    assert f"/runs/{run}" in found
    assert f"/models/{ENDPOINT}/versions/{version.version}" in found
    assert f"/runs/{other}" not in found
    answer = client.get(f"/api/data/commits/{commit}").json()
    assert [each["id"] for each in answer["runs"]] == [run]


def test_a_view_leads_to_the_drift_of_its_features(client: Client, made: Troubled) -> None:
    page = client.page("/features/Weather").text
    judged = made.project.monitors.windows(ENDPOINT)[-1].columns
    worst = max((each for each in judged if each.column.startswith("Weather.")), key=lambda each: each.ks)
    assert re.search(rf"{worst.column.removeprefix('Weather.')} {ENDPOINT} Drifted {worst.ks:.3f}", text_of(page))
    assert f"/endpoints/{ENDPOINT}/drift?column={worst.column}" in links(page)
    assert not any("column=OriginTraffic" in each for each in links(page))


def test_a_version_and_an_incident_lead_to_their_predictions(client: Client, made: Troubled) -> None:
    assert f"/predictions?endpoint={ENDPOINT}&version=2" in links(client.page(f"/models/{ENDPOINT}/versions/2").text)
    (to,) = [each for each in links(client.page(f"/incidents/{made.weather}").text) if each.startswith("/predictions?")]
    found = client.get(f"/api{to}").json()["predictions"]
    (incident,) = made.project.incidents.get([made.weather])
    assert found
    assert all(incident.started <= each["at"] for each in found)
    closed = [each for each in links(client.page(f"/incidents/{made.closed}").text) if each.startswith("/predictions?")]
    assert "&until=" in closed[0]
    assert client.get(f"/api{closed[0]}").json()["predictions"] == []


def test_an_incident_of_a_source_leads_to_its_rows(client: Client, made: Troubled) -> None:
    found = links(client.page(f"/incidents/{made.weather}").text)
    assert {"/data/tables/weather/rows", "/data/tables/weather/rows?of=quarantine"} <= set(found)
    assert all(client.page(each).status_code == 200 for each in found if each.startswith("/data/tables/"))


def test_a_prediction_and_a_search_lead_to_the_entity_now(client: Client, made: Troubled) -> None:
    newest = made.project.predictions.recent(limit=1)[0]
    wanted = f"/features/Weather?key.origin={newest.keys['origin']}#entity"
    assert wanted in links(client.page(f"/predictions/{newest.id}").text)
    hits = client.get(f"/api/find?q=origin={newest.keys['origin']}").json()["found"]
    assert [hit["address"] for hit in hits if hit["kind"] == "entity"] == [
        wanted.replace("Weather", "OriginTraffic"),
        wanted,
    ]
    (predictions,) = [hit["address"] for hit in hits if hit["kind"] == "predictions"]
    assert newest.id in client.page(predictions).text
    assert client.get("/api/find?q=origin=").json()["found"] == []


def test_a_source_leads_to_its_rows_without_what_identifies_a_person() -> None:
    project: Project = shop()
    client = Client(create_app(project), project.key())
    source = project.definitions.sources["orders"]
    assert "/data/tables/orders/rows" in links(client.page("/data/orders").text)
    page = client.page("/data/tables/orders/rows").text
    rows = client.get("/api/data/tables/orders/rows?limit=50").json()["rows"]
    assert len(rows) == 50
    assert set(rows[0]) <= set(source.columns)
    assert all(re.fullmatch("~[0-9a-f]{16}", row["email"]) for row in rows if row["email"])  # to an administrator
    assert page.count("<tr>") == 51
    assert all(isinstance(row[source.event_time], int) for row in rows)
    assert page.count("<time ") >= 50
    scan = project.lake.scan("orders")
    assert scan.rows is None or "@" not in page
    assert client.get("/api/data/tables/orders/rows?of=all").status_code == 400
    quarantined = client.get("/api/data/tables/orders/rows?of=quarantine").json()["rows"]
    held = project.lake.version(f"orders{QUARANTINE_SUFFIX}") is not None
    assert bool(quarantined) == held
