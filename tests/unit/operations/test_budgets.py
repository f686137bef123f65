"""Budgets at work: an incident, a message, actions that are noted and hold until the month ends; nothing is silent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

import mainspring as ms
from kit import documents
from kit.console import flights
from mainspring.cli import exits
from mainspring.cli.exits import exit_code
from mainspring.core.errors import MainspringError
from mainspring.core.money import MixedCurrencies, Money
from mainspring.core.settings import OwnPrices
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock, parse_instant
from mainspring.cost.budgets.declaring import QUEUE, STOP_SEARCHES, Budget
from mainspring.cost.budgets.judging import EXCEEDED, WARNED, WITHIN
from mainspring.cost.usage import CAPACITY, IDLE, MACHINE, OWN, Subject, Usage
from mainspring.jobs.model import NewJob, Status
from mainspring.jobs.runner import Runner
from mainspring.operations.budgets.acting import BudgetExceeded, check_hold
from mainspring.operations.budgets.reporting import budgets
from mainspring.operations.budgets.standing import notices, standings
from mainspring.operations.defending import in_words
from mainspring.operations.doctor import examine
from mainspring.operations.incidents import end_shed, silence
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.promote import publish_routes
from mainspring.operations.train import train
from mainspring.operations.watching import watch
from mainspring.security.model import AccountGroup, AuditFilter
from mainspring.serving.model import Shed

ENDPOINT = MODEL = "late-arrival"
NOW = parse_instant("2013-09-20T10:30:00Z")
MONTHS_END = parse_instant("2013-10-01T00:00:00Z")
HOURS = 2  # of the machine, each day


def project_with(*budgets: Budget, prices: OwnPrices | None = None) -> flights.Project:
    """Return a project whose machine cost 2 EUR each day of September: a quarter the endpoint's, a quarter a run's."""
    base = flights.populated(ENDPOINT)
    settings = replace(base.settings, prices=prices or OwnPrices(machine=Money("EUR", 10**9)))
    endpoint = replace(flights.definitions().endpoints[ENDPOINT], executors=(1, 4))
    definitions = replace(
        flights.definitions(), endpoints={ENDPOINT: endpoint}, budgets={each.name: each for each in budgets},
        monitors={ENDPOINT: ms.Monitor(ENDPOINT, notify=[ms.notify.webhook("ops")])},
    )  # fmt: skip
    made = base.having(settings=settings, definitions=definitions, wall=ManualClock(NOW), clock=ManualClock(NOW))
    used = Subject("endpoint", ENDPOINT, "2", MODEL, "key-1", ("risk", "web"))
    cores, memory = made_of(made)
    for measure, whole in (("cpu", cores * HOUR * HOURS), ("memory", memory * 3600 * HOURS)):
        amounts = {
            Subject(MACHINE, CAPACITY): whole, Subject(MACHINE, IDLE): whole // 2, Subject(MACHINE, OWN): 0,
            used: whole // 4, Subject("run", "r1", model=MODEL): whole // 4,
        }  # fmt: skip
        usages = [
            Usage(machine="m", start=day, subject=subject, measure=measure, amount=amount)
            for day in range(NOW - 19 * DAY, NOW, DAY)
            for subject, amount in amounts.items()
        ]
        made.usage.add(f"test-{measure}", 1, usages)
    return made


def made_of(_: flights.Project) -> tuple[int, int]:
    from mainspring.operations.prices import this_machine

    cores, memory, *_rest = this_machine()
    return round(cores), round(memory * 2**30)


def passed(project: flights.Project) -> None:
    """Let the monitor look, after the time in which it judges budgets once."""
    project.wall.set(project.wall.now() + 5 * MINUTE)  # type: ignore[attr-defined]
    watch(project, endpoints=[], windows=False)


def budget_incidents(project: flights.Project) -> list[Any]:
    return [each for each in project.incidents.open() if each.cause.kind == "budget"]


def events(project: flights.Project) -> list[str]:
    return [each.event.detail for each in project.audit.search(AuditFilter(action="budget.action"), limit=50)]


@pytest.fixture(scope="module")
def spent() -> flights.Project:
    return project_with(
        ms.Budget("whole", project=True, month="40 EUR"),
        ms.Budget("endpoint", endpoint=ENDPOINT, month="40 EUR"),
        ms.Budget("model", model=MODEL, month="20 EUR"),
        ms.Budget("risk", team="risk", month="5 EUR"),
        ms.Budget("nobody", team="other", month="5 EUR"),
    )


def test_each_scope_spends_its_part_and_teams_share(spent: flights.Project) -> None:
    """20 days (the last of them not over) cost 2 EUR each: a quarter is the endpoint's, half of that each team's."""
    found = {each.budget: each for each in standings(spent)}
    assert {name: round(each.spent.units, 6) for name, each in found.items()} == {
        "whole": 38.0, "endpoint": 9.5, "model": 19.0, "risk": 4.75, "nobody": 0.0,
    }  # fmt: skip
    assert {name: each.level for name, each in found.items()} == {
        "whole": WARNED, "endpoint": WITHIN, "model": WARNED, "risk": WARNED, "nobody": WITHIN,
    }  # fmt: skip
    assert list(found)[-1] == "nobody"
    assert len([each for each in notices(spent) if "is warned" in each]) == 3
    assert "the team 'other', which is neither declared nor a group" in notices(spent)[1]
    spent.definitions.teams["other"] = ms.Team("other")  # type: ignore[index]
    spent.accounts.add_group(AccountGroup("risk"))
    assert not [each for each in notices(spent) if "neither declared" in each]


def test_an_exceeded_budget_opens_an_incident_tells_people_and_acts_until_the_month_ends() -> None:
    acts = ["queue", "stop-searches", "shed", "scale-down"]
    project = project_with(ms.Budget("late", model=MODEL, month="10 EUR", act=acts, share=0.3))
    publish_routes(project)
    assert project.routes.current()[ENDPOINT].executors == (1, 4)
    assert "It begins with queue, stop-searches, shed, scale-down" in notices(project)[0]
    passed(project)
    [incident] = budget_incidents(project)
    assert incident.page
    assert "19.00 EUR of 10.00 EUR (190%) are spent by the model late-arrival" in incident.symptoms[0].detail
    assert [(each.action, each.until) for each in incident.actions] == [
        (f"{words} {ENDPOINT}", MONTHS_END) for words in ("queue work for", "stop searches for", "shed", "scale down")
    ]
    assert len(events(project)) == 4
    assert "19.00 EUR of 10.00 EUR" in events(project)[0]
    assert [each.target for each in project.incidents.outgoing(incidents=[incident.id])] == ["ops"]
    route = project.routes.current()[ENDPOINT]
    assert (route.executors, route.shed and route.shed.share) == ((1, 1), 0.3)
    [report] = budgets(project)
    documents.check(["budgets"], msgspec.to_builtins([report]))
    assert report.holds == [each.action for each in incident.actions]
    assert (report.incident, report.level, report.spent, report.currency) == (incident.id, EXCEEDED, 19.0, "EUR")
    for act in (QUEUE, STOP_SEARCHES):
        with pytest.raises(BudgetExceeded, match="is held back until 2013-10-01"):
            check_hold(project, act, "The work", MODEL)
        check_hold(project, act, "The work", "another")
    with pytest.raises(BudgetExceeded, match="end the hold: mainspring incidents end-shed") as held:
        train(project, MODEL)
    assert exit_code(held.value) == exits.FULL, "no defect"
    passed(project)
    assert len(events(project)) == 4, "a second look does nothing again"

    project.wall.set(MONTHS_END)  # type: ignore[attr-defined]
    check_hold(project, QUEUE, "The work", MODEL)
    passed(project)
    assert project.routes.current()[ENDPOINT].executors == (1, 4)
    assert project.routes.current()[ENDPOINT].shed is None


def test_a_teams_budget_sheds_its_requests_to_every_endpoint_until_a_person_ends_it() -> None:
    budget = ms.Budget("risk", team="risk", month="3 EUR", act=["shed"], share=0.4)
    project = project_with(budget)
    passed(project)
    [incident] = budget_incidents(project)
    assert [each.action for each in incident.actions] == ["shed team risk"]
    route = project.routes.current()[ENDPOINT]
    assert (route.shed, route.executors) == (None, (1, 4))
    assert route.team_sheds == (Shed(share=0.4, until=MONTHS_END, salt=incident.id, team="risk"),)
    assert "40% of the requests of the group risk are refused on purpose" in in_words(project, ENDPOINT)
    end_shed(project, incident.id, reason="a deadline", by="local:ana")
    passed(project)
    assert project.routes.current()[ENDPOINT].team_sheds == ()


def test_a_job_waits_without_losing_attempts_and_says_why() -> None:
    project = project_with(ms.Budget("whole", project=True, month="10 EUR", act=["queue"]))
    passed(project)
    [job] = project.jobs.enqueue([NewJob("train", {"model": MODEL})], project.wall.now())
    runner = Runner(project.jobs, handlers(project), project.wall, holder="h", stopping=lambda: False)
    for _ in range(3):
        back = runner.run_one()
        assert back is not None
        assert (back.id, back.status, back.attempts) == (job.id, Status.QUEUED, 0)
        assert back.due_at == project.wall.now() + 5 * MINUTE
        assert back.progress is not None
        assert "is held back until 2013-10-01" in back.progress.note
        project.wall.set(back.due_at)  # type: ignore[attr-defined]


def test_a_raised_budget_a_removed_one_and_a_person_end_what_holds() -> None:
    budget = ms.Budget("whole", project=True, month="10 EUR", act=["queue"])
    project = project_with(budget)
    passed(project)
    [incident] = budget_incidents(project)
    end_shed(project, incident.id, reason="a deadline", by="local:ana")
    check_hold(project, QUEUE, "The work")
    passed(project)
    check_hold(project, QUEUE, "The work")

    for other in ({"whole": ms.Budget("whole", project=True, month="99 EUR", act=["queue"])}, {}):
        project = project_with(budget)
        passed(project)
        with pytest.raises(BudgetExceeded):
            check_hold(project, QUEUE, "The work")
        project.definitions.budgets.clear()  # type: ignore[attr-defined]
        project.definitions.budgets.update(other)  # type: ignore[attr-defined]
        passed(project)
        check_hold(project, QUEUE, "The work")
        [incident] = budget_incidents(project)
        assert "Ended: the budget is not" in incident.actions[0].detail
        project.wall.set(project.wall.now() + 3 * HOUR)  # type: ignore[attr-defined]
        project.clock.set(project.wall.now())  # type: ignore[attr-defined]
        passed(project)
        assert not budget_incidents(project)


def test_an_action_follows_what_the_budget_asks_for_and_what_is_spent() -> None:
    """A raised budget that is spent as well holds again; one that asks for less holds less."""

    def declare(month: str, act: list[str], share: float = 0.1) -> None:
        budget = ms.Budget("whole", project=True, month=month, act=act, share=share)
        project.definitions.budgets["whole"] = budget  # type: ignore[index]
        passed(project)

    def holds() -> list[tuple[str, float]]:
        [incident] = budget_incidents(project)
        return [(each.action, each.share) for each in incident.actions if each.holds(project.wall.now())]

    project = project_with(ms.Budget("whole", project=True, month="10 EUR", act=["queue"]))
    passed(project)
    declare("39 EUR", ["queue"])
    assert holds() == []
    check_hold(project, QUEUE, "The work")
    declare("38 EUR", ["queue"])
    with pytest.raises(BudgetExceeded, match=r"38.00 EUR of 38.00 EUR"):
        check_hold(project, QUEUE, "The work")
    declare("38 EUR", ["shed"], share=0.3)
    check_hold(project, QUEUE, "The work")
    assert holds() == [(f"shed {ENDPOINT}", 0.3)]
    declare("38 EUR", ["shed"], share=0.2)
    assert holds() == [(f"shed {ENDPOINT}", 0.2)]
    shed = project.routes.current()[ENDPOINT].shed
    assert shed is not None
    assert shed.share == 0.2
    [incident] = budget_incidents(project)
    end_shed(project, incident.id, by="local:ana")
    declare("38 EUR", ["shed", "queue"], share=0.4)
    assert holds() == [("queue work for the project", 0.0)], "a person ended the shed for this month"
    ends = [each.event.detail for each in project.audit.search(AuditFilter(action="budget.end"), limit=50)]
    assert len(ends) == 3
    assert len([each for each in ends if "does not ask for it any more" in each]) == 2


def test_while_an_incident_is_silenced_nothing_is_begun() -> None:
    project = project_with(ms.Budget("whole", project=True, month="36 EUR", act=["queue"], warn=0.5))
    budget = project.definitions.budgets["whole"]
    project.definitions.budgets["whole"] = ms.Budget("whole", project=True, month="50 EUR")  # type: ignore[index]
    project.wall.set(NOW - MINUTE)  # type: ignore[attr-defined]
    passed(project)
    [incident] = budget_incidents(project)
    assert not incident.page, "38 of 50 EUR are spent, and 58 are forecast"
    silence(project, incident.id, "2d", by="local:ana")
    project.definitions.budgets["whole"] = budget  # type: ignore[index]
    passed(project)
    [incident] = budget_incidents(project)
    assert (incident.page, incident.actions) == (True, ())
    check_hold(project, QUEUE, "The work")


def test_doctor_says_what_budgets_cannot_count_and_how_old_a_price_is() -> None:
    budget = ms.Budget("whole", project=True, month="10 EUR")
    details = {
        "exceeded": project_with(budget),
        "count nothing without prices": project_with(budget, prices=OwnPrices()),
        "two currencies": project_with(budget, prices=OwnPrices(machine=Money("USD", 10**9))),
    }
    for said, project in details.items():
        [found] = [each for each in examine(project, "prices") if not each.ok]
        assert said in found.detail
    listed = project_with(prices=OwnPrices(instance="aws/us-east-1/m5.large"))
    listed.wall.set(parse_instant("2027-01-01T00:00:00Z"))  # type: ignore[attr-defined]
    [found] = examine(listed, "prices")
    assert found.ok
    assert "is of 2026-09-06, 117 days old" in found.detail
    assert not examine(project_with(prices=OwnPrices()), "prices")


def test_currencies_and_prices_that_are_missing_are_said() -> None:
    dollars = ms.Budget("dollars", project=True, month="10 USD")
    project = project_with(dollars)
    with pytest.raises(MixedCurrencies):
        standings(project)
    assert "cannot be judged" in notices(project)[0]
    rates = OwnPrices(machine=Money("EUR", 10**9), exchange={"EUR": Money("USD", 2 * 10**9)})
    [found] = standings(project_with(dollars, prices=rates))
    assert (found.spent.currency, round(found.spent.units, 6), found.level) == ("USD", 76.0, EXCEEDED)
    [free] = standings(project_with(dollars, prices=OwnPrices()))
    assert (free.level, free.unpriced) == (WITHIN, True)
    assert "counts only what has a price" in notices(project_with(dollars, prices=OwnPrices()))[0]


def test_while_budgets_cannot_be_judged_what_holds_goes_on() -> None:
    project = project_with(ms.Budget("whole", project=True, month="10 EUR", act=["queue"]))
    passed(project)
    object.__setattr__(project, "settings", replace(project.settings, prices=OwnPrices(machine=Money("USD", 10**9))))
    passed(project)
    with pytest.raises(MainspringError, match="is held back"):
        check_hold(project, QUEUE, "The work")
    [part] = [each for each in project.incidents.parts() if each.part == "budgets"]
    assert "two currencies" in part.error
