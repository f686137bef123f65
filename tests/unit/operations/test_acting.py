"""Actions of incidents: once each, within a budget, never while silenced, and done if the worker died in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

import mainspring as ms
from kit.console import flights
from kit.incidents import incident
from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, HOUR, MINUTE, WEEK, ManualClock
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.monitoring.incidents.actions import Action, restrict, roll_back, shed, start
from mainspring.monitoring.incidents.model import Incident, Symptom, Taken
from mainspring.monitoring.signals import CALLERS, CONTRACT, SURPRISE
from mainspring.operations.acting import act
from mainspring.operations.incidents import close, end_shed, report
from mainspring.operations.promote import rollback
from mainspring.registry.model import AliasMove

ENDPOINT = "late-arrival"
MODEL = "late-arrival"


@ms.step
def fit() -> None:
    """Train again."""


@ms.pipeline
def retrain() -> None:
    fit()


def made(*actions: Action) -> flights.Project:
    """Return a project with a champion, version 2, since an hour before the incidents, and its previous version."""
    project = flights.populated(ENDPOINT)
    monitors = {ENDPOINT: ms.Monitor(ENDPOINT, actions=actions)}
    assert isinstance(retrain, Pipeline)
    definitions = replace(flights.definitions(), monitors=monitors, pipelines={"retrain": retrain})
    return project.having(definitions=definitions)


def opened(project: flights.Project, **changes: Any) -> Incident:
    [stored] = project.incidents.save([incident(ENDPOINT, _champion_since(project) + 2 * HOUR, **changes)])
    return stored


def _champion_since(project: flights.Project) -> int:
    return project.versions.moves(MODEL, "champion")[0].at


def champion(project: flights.Project) -> str:
    return project.versions.get(MODEL, "champion").version


def run(project: flights.Project) -> list[str]:
    return [f"{each.action}: {each.state}" for each in act(project, project.incidents.open())]


def noted_incident(project: flights.Project, of: Incident) -> Incident:
    [found] = project.incidents.get([of.id])
    assert found is not None
    return found


def noted(project: flights.Project, of: Incident) -> list[Taken]:
    return list(noted_incident(project, of).actions)


def test_a_page_rolls_back_the_version_that_is_new_once() -> None:
    project = made(roll_back())
    there = opened(project)
    assert champion(project) == "2"
    assert run(project) == ["roll back late-arrival: done"]
    assert champion(project) == "1"
    assert noted(project, there)[0].detail == "version 1 is champion instead of version 2"
    assert (run(project), champion(project)) == ([], "1")
    events = [each for each in project.audit.read(20) if each.actor == "monitor"]
    assert [each.action for each in events] == ["incident.action", "rollback", "incident.action"]


def test_a_version_that_was_champion_for_long_is_hardly_the_cause() -> None:
    project = made(roll_back(newest="30m"))
    there = opened(project)
    assert run(project) == ["roll back late-arrival: refused"]
    assert champion(project) == "2"
    assert "had been champion for" in noted(project, there)[0].detail


def test_a_pipeline_is_started_once_for_an_incident() -> None:
    project = made(start("retrain", channels=[CONTRACT]))
    there = opened(project)
    assert run(project) == ["start retrain: done"]
    [job] = project.jobs.find()
    assert noted(project, there)[0].detail == f"run {job.id}"
    assert run(project) == []


def test_the_budget_of_a_week_and_the_cool_down_hold_over_incidents() -> None:
    project = made(start("retrain", channels=[CONTRACT], most_a_week=2))
    assert isinstance(project.wall, ManualClock)
    opened(project, source="a")
    assert run(project) == ["start retrain: done"]
    second = opened(project, source="b")
    assert run(project) == ["start retrain: refused"]
    assert noted(project, second)[0].detail == "it was taken within 1d"
    project.wall.advance(2 * DAY)
    opened(project, source="c")
    assert run(project) == ["start retrain: done"]
    project.wall.advance(2 * DAY)
    last = opened(project, source="d")
    assert run(project) == ["start retrain: refused"]
    assert noted(project, last)[0].detail == "its budget of 2 a week is spent"
    project.wall.advance(WEEK)
    opened(project, source="e")
    assert run(project) == ["start retrain: done"]


def test_nothing_is_done_while_silenced_for_a_ticket_or_for_another_channel() -> None:
    project = made(roll_back(), start("retrain", channels=[SURPRISE]))
    opened(project, source="a", silenced_until=project.clock.now() + DAY)
    opened(project, source="b", page=False)
    assert (run(project), champion(project), project.jobs.find()) == ([], "2", [])


def test_a_dry_run_is_noted_and_changes_nothing() -> None:
    project = made(roll_back(dry_run=True))
    there = opened(project)
    assert run(project) == ["roll back late-arrival: dry run"]
    assert (champion(project), noted(project, there)[0].detail) == ("2", "from version 2")


@pytest.mark.parametrize("before_it_died", [True, False])
def test_a_rollback_that_a_killed_worker_began_is_done_once(before_it_died: bool) -> None:
    project = made(roll_back())
    there = opened(project)
    begun = Taken(action="roll back late-arrival", at=project.wall.now(), state="begun", detail="from version 2")
    project.incidents.save([msgspec.structs.replace(there, actions=(begun,))])
    if before_it_died:
        back = AliasMove(MODEL, "champion", "2", "1", "monitor", "rollback", project.wall.now())
        project.versions.set_alias(back)
    assert run(project) == []  # the other worker may still be at it
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(11 * MINUTE)
    assert run(project) == ["roll back late-arrival: done"]
    assert champion(project) == "1"
    assert run(project) == []


def shares(project: flights.Project) -> list[float]:
    return [0.0 if route.shed is None else route.shed.share for route in project.routes.current().values()]


def test_a_shed_is_in_the_routes_until_its_time_whatever_is_published_meanwhile() -> None:
    project = made(shed(0.25, lasts="15m", channels=[CONTRACT]))
    there = opened(project)
    assert run(project) == ["shed late-arrival: done"]
    assert noted(project, there)[0].detail.startswith("25% of the requests are refused until ")
    assert shares(project) == [0.25]
    rollback(project, MODEL, reason="by hand")
    assert (champion(project), shares(project)) == ("1", [0.25])
    another = opened(project, source="b")
    assert run(project) == ["shed late-arrival: refused"]
    assert noted(project, another)[0].detail == "it was taken within 1h"
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(15 * MINUTE)
    assert (run(project), shares(project)) == ([], [0.0])
    assert [each.until for each in report(project, noted_incident(project, there)).actions] == [None]


@pytest.mark.parametrize("end", [close, end_shed])
def test_a_shed_ends_with_its_incident_or_when_a_person_says_so(end: Callable[..., Incident]) -> None:
    project = made(shed(0.5, channels=[CONTRACT], cool_down="1m", lasts="30m"))
    there = opened(project)
    run(project)
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(2 * MINUTE)
    other = opened(project, source="b")
    assert run(project) == ["shed late-arrival: refused"]
    assert noted(project, other)[0].detail == "requests are shed for another incident"
    [action] = report(project, noted_incident(project, there)).actions
    assert action.until is not None
    end(project, there.id, reason="a new machine", by="ana")
    assert shares(project) == [0.0]
    assert (run(project), shares(project)) == ([], [0.0])
    [action] = report(project, noted_incident(project, there)).actions
    assert (action.state, action.until) == ("done", None)
    with pytest.raises(Invalid, match="sheds no requests, restricts no caller"):
        end_shed(project, there.id)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"lasts": "1s"}, {"lasts": "2d"}])
def test_a_shed_has_a_share_and_an_end(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        shed(**wrong)


def test_an_action_that_fails_is_noted_and_not_repeated() -> None:
    project = made(start("retrain", channels=[CONTRACT]))
    lost = project.having(definitions=replace(project.definitions, pipelines={}))
    there = opened(lost)
    assert run(lost) == ["start retrain: failed"]
    assert "no pipeline 'retrain'" in noted(lost, there)[0].detail
    assert run(lost) == []


@pytest.mark.parametrize(
    "declare",
    [
        lambda: roll_back(channels=["colour"]),
        lambda: roll_back(level="shout"),
        lambda: start("retrain", most_a_week=0),
        lambda: start("re train"),
        lambda: start("retrain", cool_down="soon"),
    ],
)
def test_what_is_wrong_is_named(declare: Any) -> None:
    with pytest.raises(Invalid):
        declare()


def unlike(project: flights.Project, id: str, **changes: Any) -> Incident:
    symptom = Symptom(
        channel=CALLERS, endpoint=ENDPOINT, statistic="unlike others", column=id, caller=id, first=0, last=HOUR,
        severity=1.1,
    )  # fmt: skip
    return opened(project, source=id, channels=(CALLERS,), symptoms=(symptom,), page=False, **changes)


def restricted(project: flights.Project) -> list[tuple[str, str]]:
    [route] = project.routes.current().values()
    return [(each.caller, each.to) for each in route.restricted]


@pytest.mark.parametrize("end", [close, end_shed])
def test_a_caller_is_restricted_until_the_incident_is_closed_or_a_person_says_so(
    end: Callable[..., Incident],
) -> None:
    project = made(restrict("refuse", lasts="7d"))
    one, _ = unlike(project, "k1"), unlike(project, "k2")
    assert run(project) == ["restrict late-arrival: done", "restrict late-arrival: done"]
    assert restricted(project) == [("k1", "refuse"), ("k2", "refuse")]
    assert run(project) == []
    rollback(project, MODEL, reason="test", by="ana")  # publishes the routes from the start
    assert restricted(project) == [("k1", "refuse"), ("k2", "refuse")]
    end(project, one.id, reason="known", by="ana")
    assert restricted(project) == [("k2", "refuse")]
    events = [(each.actor, each.action) for each in reversed(project.audit.read())]
    assert events.count(("monitor", "incident.action")) == 4  # each begun and done
    assert events[-1] == ("ana", "incident.close" if end is close else "incident.end-shed")
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(7 * DAY)
    assert (run(project), restricted(project)) == ([], [])


def test_only_callers_are_restricted_and_a_dry_run_restricts_none() -> None:
    project = made(restrict(dry_run=True))
    opened(project)
    unlike(project, "k1")
    assert run(project) == ["restrict late-arrival: dry run"]
    assert restricted(project) == []


@pytest.mark.parametrize("wrong", [{"to": "less"}, {"lasts": "1m"}, {"lasts": "400d"}, {"level": "some"}])
def test_a_restriction_has_a_kind_and_an_end(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        restrict(**wrong)
