"""Incidents over HTTP: who may see them, who may change them, and that each change is audited."""

from __future__ import annotations

from typing import Any

import pytest

from kit.console import flights
from kit.console.client import Client
from kit.incidents import incident
from mainspring.console.app import create_app
from mainspring.monitoring.incidents.model import Incident
from mainspring.security.model import KeyScope

ENDPOINT = "late-arrival"


@pytest.fixture
def project() -> flights.Project:
    return flights.Project(definitions=flights.definitions())


@pytest.fixture
def there(project: flights.Project) -> Incident:
    [made] = project.incidents.save([incident(ENDPOINT, flights.NOW)])
    return made


def changed(client: Client, made: Incident, action: str, **body: Any) -> tuple[int, Any]:
    answer = client("POST", f"/api/incidents/{made.id}/{action}", json=body)
    return answer.status_code, answer.json()


def test_incidents_are_listed_and_shown_to_who_may_view(project: flights.Project, there: Incident) -> None:
    client = Client(create_app(project), project.key(KeyScope.VIEW))
    [listed] = client.get(f"/api/incidents?endpoint={ENDPOINT}").json()["incidents"]
    assert (listed["id"], listed["cause"], listed["level"]) == (there.id, "source weather", "page")
    shown = client.get(f"/api/incidents/{there.id}").json()["incident"]
    assert [each["column"] for each in shown["symptoms"]] == ["Weather.visibility", "Weather.wind"]
    assert client.get("/api/incidents?endpoint=nowhere").status_code == 404
    assert client.get("/api/incidents/nothing").status_code == 404
    assert changed(client, there, "close")[0] == 403
    assert Client(create_app(project)).get("/api/incidents").status_code == 401


def test_changes_are_on_behalf_of_the_caller_and_audited(project: flights.Project, there: Incident) -> None:
    client = Client(create_app(project), project.key(KeyScope.VIEW, KeyScope.MANAGE, name="ana"))
    status, answer = changed(client, there, "own")
    assert (status, answer["incident"]["owner"].split()[0]) == (200, "ana")
    assert changed(client, there, "silence", until="2h", reason="a test")[1]["incident"]["status"] == "silenced"
    answer = changed(client, there, "verdict", verdict="expected")[1]["incident"]
    assert (answer["status"], answer["verdict"]) == ("closed", "expected")
    assert client.get("/api/incidents").json()["incidents"] == []
    assert [each["id"] for each in client.get("/api/incidents?ended=true").json()["incidents"]] == [there.id]
    events = [each for each in project.audit.read(50) if each.action.startswith("incident.")]
    assert [each.action for each in events] == ["incident.verdict", "incident.silence", "incident.own"]
    assert all(each.actor.startswith("ana (") and each.resource == f"incident/{there.id}" for each in events)


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("paint", {}, 404),
        ("close", {"more": 1}, 400),
        ("silence", {}, 400),
        ("silence", {"until": "400d"}, 400),
        ("verdict", {"verdict": "maybe"}, 400),
    ],
)
def test_what_is_not_valid_changes_nothing(
    project: flights.Project, there: Incident, action: str, body: dict[str, Any], status: int
) -> None:
    client = Client(create_app(project), project.key())
    assert changed(client, there, action, **body)[0] == status
    assert project.incidents.get([there.id]) == [there]
