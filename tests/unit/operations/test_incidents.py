"""Interventions of people in incidents: stored with a note, audited, and seen by the next pass."""

from __future__ import annotations

import msgspec
import pytest

from kit.console import flights
from kit.incidents import incident
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import HOUR, WEEK
from mainspring.monitoring.incidents.model import FAILED, Incident, Outgoing, Part
from mainspring.operations.incidents import close, judge, listed, own, report, silence
from mainspring.operations.monitor_checks import check_monitor
from mainspring.operations.status import status

ENDPOINT = "late-arrival"


@pytest.fixture
def project() -> flights.Project:
    return flights.Project(definitions=flights.definitions())


@pytest.fixture
def there(project: flights.Project) -> Incident:
    [made] = project.incidents.save([incident(ENDPOINT, flights.NOW)])
    return made


def notes(changed: Incident) -> list[str]:
    return [f"{each.by}: {each.text}" for each in changed.notes]


def test_an_incident_has_an_owner_a_silence_and_a_verdict(project: flights.Project, there: Incident) -> None:
    own(project, there.id, by="ana")
    silence(project, there.id, "8h", reason="moving", by="ana")
    made = judge(project, there.id, "real", by="ben")
    assert (made.owner, made.silenced_until, made.verdict, made.is_open) == (
        "ana",
        flights.NOW + 8 * HOUR,
        "real",
        True,
    )
    assert notes(made) == [
        "ana: owned by ana",
        "ana: silenced until 2013-09-02T07:20:00Z: moving",
        "ben: verdict: real",
    ]
    assert report(project, made).status == "silenced"
    assert [(each.action, each.actor) for each in project.audit.read(9)][::-1] == [
        ("incident.own", "ana"),
        ("incident.silence", "ana"),
        ("incident.verdict", "ben"),
    ]


@pytest.mark.parametrize("verdict", ["false alarm", "expected"])
def test_a_dismissed_incident_is_closed(project: flights.Project, there: Incident, verdict: str) -> None:
    made = judge(project, there.id, verdict, by="ana")
    assert (made.verdict, made.is_open, made.closed_through) == (verdict, False, flights.NOW)
    assert listed(project) == []
    assert [each.id for each in listed(project, ended=True)] == [there.id]


def test_a_closed_incident_cannot_be_closed_or_silenced_and_may_be_judged(
    project: flights.Project, there: Incident
) -> None:
    close(project, there.id, reason="the feed is back", by="ana")
    with pytest.raises(Invalid, match="is closed"):
        close(project, there.id)
    with pytest.raises(Invalid, match="is closed"):
        silence(project, there.id, "8h")
    assert judge(project, there.id, "real").verdict == "real"


@pytest.mark.parametrize("until", ["31d", "2013-01-01T00:00:00Z", "soon"])
def test_a_silence_ends_within_thirty_days(project: flights.Project, there: Incident, until: str) -> None:
    with pytest.raises(Invalid):
        silence(project, there.id, until)


def test_what_is_not_there_is_named(project: flights.Project, there: Incident) -> None:
    with pytest.raises(NotFound, match="no incident 'nothing'"):
        own(project, "nothing")
    with pytest.raises(NotFound, match="no endpoint"):
        listed(project, "nowhere")
    with pytest.raises(Invalid, match="no verdict 'maybe'"):
        judge(project, there.id, "maybe")


def test_pages_come_first_then_the_effect_on_the_score_then_severity(project: flights.Project) -> None:
    def made(source: str, page: bool, rank: float | None, severity: float) -> Incident:
        return incident(ENDPOINT, flights.NOW, source=source, page=page, rank=rank, severity=severity)

    given = [made("a", False, 0.9, 9), made("b", True, None, 2), made("c", True, 0.1, 1), made("d", True, None, 5)]
    project.incidents.save(given)
    assert [each.cause for each in listed(project)] == ["source c", "source d", "source b", "source a"]


def test_status_names_open_incidents_with_their_worst_symptom(project: flights.Project, there: Incident) -> None:
    [found] = status(project).incidents
    assert (found.id, found.level, found.cause) == (there.id, "page", "source weather")
    assert found.detail == "All values of visibility are null."
    close(project, there.id)
    assert status(project).incidents == []


def test_doctor_names_a_failed_part_a_lost_message_and_a_monitor_that_is_silent(project: flights.Project) -> None:
    [found] = check_monitor(project)
    assert found.ok
    now = project.wall.now()
    message = Outgoing(
        id="m", target="ops", incident="", event="opened", level="page", made_at=now, due_at=now, state=FAILED,
        error="Refused.",
    )  # fmt: skip
    [made] = project.incidents.save([incident(ENDPOINT, flights.NOW)])
    project.incidents.save([made], [msgspec.structs.replace(message, incident=made.id)])
    project.incidents.record([Part(endpoint=ENDPOINT, part="silence", ran_at=now - 3 * WEEK, error="Damaged.")])
    project.predictions.append(flights._predictions(ENDPOINT, "d", "2", "desk"))
    details = [each.detail for each in check_monitor(project) if not each.ok]
    assert details == [
        "the monitor has not looked at late-arrival for 21d",
        "silence of late-arrival failed in the last pass: Damaged.",
        "1 messages to 'ops' could not be delivered within a week: Refused.",
    ]
