"""Messages about incidents: queued with the change, delivered at least once, retried, bounded in number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from kit.console import flights
from kit.incidents import incident
from mainspring.core.errors import Unavailable
from mainspring.core.settings import Receiver
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, ManualClock
from mainspring.monitoring.adapters.notify_memory import MemoryNotifier
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.incidents.model import Incident, Judged
from mainspring.monitoring.notify import declaring as notify
from mainspring.monitoring.notify.declaring import Target
from mainspring.monitoring.signals import CONTRACT, Signal
from mainspring.operations import watching
from mainspring.operations.incidents import close, listed, own
from mainspring.operations.notifying import Delivery, targets

ENDPOINT = "late-arrival"
OPS, PAGER = notify.webhook("ops", most_an_hour=3), notify.slack("pager", level="page")


def watched(*receivers: Target) -> flights.Project:
    monitors = {ENDPOINT: Monitor(ENDPOINT, notify=receivers)}
    clocks = {name: ManualClock(flights.NOW) for name in ("clock", "wall")}
    return flights.Project(definitions=replace(flights.definitions(), monitors=monitors), **clocks)


def later(project: flights.Project, us: int) -> None:
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(us)


def signals(project: flights.Project, *columns: str, page: bool = True) -> None:
    """Let a channel see columns that are null."""
    now = project.clock.now()
    seen = [
        Signal(
            channel=CONTRACT, endpoint=ENDPOINT, statistic="nulls", column=column, start=now - HOUR, end=now,
            severity=2.0, page=page, detail=f"{column} is null.",
        )
        for column in columns
    ]  # fmt: skip
    watching.settle(project, [Judged(ENDPOINT, CONTRACT, ((now - HOUR, now),), tuple(seen))], now)


class World:
    """A project, and receivers that keep what they are sent."""

    def __init__(self, *receivers: Target) -> None:
        self.project = watched(*receivers)
        self.inboxes = {target.name: MemoryNotifier() for target in receivers}
        self.delivery = Delivery(self.project, lambda target: self.inboxes[target.name])

    def deliver(self) -> dict[str, list[list[str]]]:
        """Deliver what is due; return the events of each delivery by receiver."""
        before = {name: len(inbox.sent) for name, inbox in self.inboxes.items()}
        self.delivery.run()
        return {
            name: [[each.event for each in sent.notices] for sent in inbox.sent[before[name] :]]
            for name, inbox in self.inboxes.items()
        }


def test_an_incident_is_told_once_and_its_end_too() -> None:
    world = World(OPS)
    signals(world.project, "Weather.gust")
    assert world.deliver() == {"ops": [["opened"]]}
    signals(world.project, "Weather.gust")
    assert world.deliver() == {"ops": []}
    [made] = world.project.incidents.open()
    own(world.project, made.id)
    close(world.project, made.id)
    assert world.deliver() == {"ops": [["closed"]]}
    [report] = listed(world.project, ended=True)
    assert sorted((each.event, each.state) for each in report.messages) == [("closed", "sent"), ("opened", "sent")]


def test_a_ticket_goes_to_who_wants_all_and_a_page_to_both() -> None:
    world = World(OPS, PAGER)
    signals(world.project, "Weather.gust", page=False)
    assert world.deliver() == {"ops": [["opened"]], "pager": []}
    signals(world.project, "Weather.gust")
    assert world.deliver() == {"ops": [["escalated"]], "pager": [["escalated"]]}


def test_a_message_that_fails_is_tried_again_later_with_the_same_id_and_shown() -> None:
    world = World(OPS)
    inbox = world.inboxes["ops"]
    signals(world.project, "Weather.gust")
    inbox.error = Unavailable("The receiver 'ops' answered 503.")
    [first] = world.delivery.run()
    assert (first.state, first.attempts, first.due_at - flights.NOW) == ("waiting", 1, 30 * SECOND)
    assert listed(world.project)[0].messages[0].error == "The receiver 'ops' answered 503."
    assert world.delivery.run() == []
    waits = []
    for _ in range(9):
        later(world.project, HOUR)
        [again] = world.delivery.run()
        waits.append((again.due_at - world.project.wall.now()) // MINUTE)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    inbox.error = None
    later(world.project, HOUR)
    [sent] = world.delivery.run()
    assert (sent.state, sent.id, inbox.sent[0].id) == ("sent", first.id, first.id)


def test_a_message_is_given_up_after_a_day_and_named() -> None:
    world = World(OPS)
    world.inboxes["ops"].error = Unavailable("Down.")
    signals(world.project, "Weather.gust")
    later(world.project, DAY + 1)
    [lost] = world.delivery.run()
    assert (lost.state, lost.error) == ("failed", "Down.")
    later(world.project, DAY)
    assert world.delivery.run() == []


def test_a_receiver_that_is_down_delays_no_other() -> None:
    world = World(OPS, PAGER)
    world.inboxes["ops"].error = Unavailable("Down.")
    signals(world.project, "Weather.gust")
    assert world.deliver() == {"ops": [], "pager": [["opened"]]}


def test_a_fault_of_an_adapter_is_a_try_that_failed() -> None:
    world = World(OPS)
    signals(world.project, "Weather.gust")
    broken = Delivery(world.project, lambda _: None)  # type: ignore[arg-type, return-value]
    [tried] = broken.run()
    assert (tried.state, "AttributeError" in tried.error) == ("waiting", True)


def test_a_receiver_without_settings_is_named() -> None:
    world = World(OPS)
    signals(world.project, "Weather.gust")
    [tried] = Delivery(world.project).run()
    assert "The receiver 'ops' has no url in profile 'local'. Fix: set MAINSPRING_NOTIFY_OPS_URL" in tried.error


def test_a_worker_that_died_after_it_claimed_a_message_loses_none() -> None:
    world = World(OPS)
    signals(world.project, "Weather.gust")
    [claimed] = world.project.incidents.claim("ops", flights.NOW, flights.NOW + 2 * MINUTE, 10)
    assert world.deliver() == {"ops": []}
    later(world.project, 2 * MINUTE)
    assert world.deliver() == {"ops": [["opened"]]}
    assert world.inboxes["ops"].sent[0].id == claimed.id


def test_many_incidents_at_once_are_one_message() -> None:
    world = World(OPS)
    made = [incident(ENDPOINT, flights.NOW, source=f"s{number}", told="") for number in range(50)]
    changes = [watching.Change(each, "opened") for each in made]
    world.project.incidents.save(made, watching.outgoing(world.project, changes))
    assert world.deliver() == {"ops": [["opened"] * 50]}


def test_deliveries_an_hour_are_bounded_and_pages_may_use_as_many_again() -> None:
    world = World(OPS)

    def storm(count: int, page: bool) -> int:
        total = 0
        for _ in range(count):
            made = incident(ENDPOINT, flights.NOW, source=f"s{world.project.wall.now()}", page=page)
            world.project.incidents.save([made], watching.outgoing(world.project, [watching.Change(made, "opened")]))
            total += len(world.deliver()["ops"])
            later(world.project, SECOND)
        return total

    assert storm(9, page=False) == 3
    assert storm(9, page=True) == 3
    later(world.project, 2 * HOUR)
    assert world.deliver() == {"ops": [["opened"] * 12]}


def test_of_one_incident_only_the_newest_change_is_told() -> None:
    world = World(OPS)
    signals(world.project, "Weather.gust")
    later(world.project, SECOND)
    close(world.project, world.project.incidents.open()[0].id)
    assert world.deliver() == {"ops": [["closed"]]}
    assert {each.state for each in world.project.incidents.outgoing()} == {"sent"}


def test_a_storm_of_a_thousand_signals_is_one_message() -> None:
    world = World(OPS)
    signals(world.project, *(f"Weather.c{number}" for number in range(1_000)), *("Weather.wind", "Weather.gust"))
    assert sum(map(len, world.deliver()["ops"])) <= 100
    assert len(world.inboxes["ops"].sent) == 1


def test_open_incidents_are_repeated_to_a_receiver_that_forgets_them() -> None:
    world = World(notify.alertmanager("am"))
    signals(world.project, "Weather.gust")
    assert world.deliver() == {"am": [["opened"], ["open"]]}
    assert world.deliver() == {"am": []}
    later(world.project, 10 * MINUTE)
    assert world.deliver() == {"am": [["open"]]}


def test_messages_to_a_receiver_that_is_not_declared_any_more_are_given_up() -> None:
    world = World(OPS)
    signals(world.project, "Weather.gust")
    without = world.project.having(definitions=flights.definitions())
    assert Delivery(without).run() == []
    later(world.project, DAY + 1)
    Delivery(without).run()
    [message] = without.incidents.outgoing()
    assert (message.state, message.error) == ("failed", "Its receiver is not declared any more.")


@pytest.mark.parametrize(
    ("kind", "given", "problem"),
    [
        ("email", {"url": "https://example.org", "sender": "a@b.c", "to": ("d@e.f",)}, "does not fit its kind"),
        ("webhook", {"url": "smtp://example.org"}, "does not fit its kind"),
        ("email", {"url": "smtp://example.org"}, "has no sender"),
        ("pagerduty", {}, "has no secret"),
    ],
)
def test_settings_that_do_not_fit_are_named(kind: str, given: dict[str, Any], problem: str) -> None:
    project = watched(getattr(notify, kind)("ops"))
    settings = replace(project.settings, receivers={"OPS": Receiver("ops", **given)})
    signals(project, "Weather.gust")
    [tried] = Delivery(project.having(settings)).run()
    assert problem in tried.error


def test_receivers_of_an_incident_are_those_of_its_endpoints() -> None:
    project = watched(OPS, PAGER)
    assert targets(project, ["elsewhere"]) == []
    assert targets(project) == targets(project, [ENDPOINT]) == [OPS, PAGER]
    installation: Incident = msgspec.structs.replace(incident("", flights.NOW), endpoints=())
    found = watching.outgoing(project, [watching.Change(installation, "opened")])
    assert [each.target for each in found] == ["ops", "pager"]
