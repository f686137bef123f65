"""Teams that pay: by definition, by who started the work, by name; and budgets of teams that hold it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mainspring as ms
from mainspring.core.errors import Denied, Invalid, InvalidDefinition
from mainspring.core.time import HOUR, MINUTE
from mainspring.cost.budgets.declaring import QUEUE, STOP_SEARCHES
from mainspring.cost.paying import DECLARED, NAMED, PROFILE, STARTER, Payers, paid_by
from mainspring.cost.usage import RUN, STEP, VIEW, Subject, Usage
from mainspring.deploy.engines.asking import asked, value
from mainspring.jobs.model import JobHeld, NewJob, Status
from mainspring.jobs.pipelines.ports import StepCall
from mainspring.jobs.runner import Runner
from mainspring.monitoring.incidents.model import DONE, Cause, Incident, Taken
from mainspring.monitoring.signals import BUDGET
from mainspring.operations.budgets.acting import BudgetExceeded, check_hold
from mainspring.operations.budgets.reporting import budgets
from mainspring.operations.cost.focus import export
from mainspring.operations.cost.reporting import cost_parts, report
from mainspring.operations.cost.teams import charging, groups_of, named
from mainspring.operations.incidents import end_shed
from mainspring.operations.jobs.children import Children
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.jobs.queue import begin, run_here
from mainspring.operations.pipelines import control, elsewhere
from mainspring.operations.promote import publish_routes
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import TEAM, TEAM_WHY, local_user, process_tags
from mainspring.security.model import Account, AccountGroup, AuditFilter, BoundName, Kind
from unit.operations import test_budgets as of_budgets
from unit.operations.test_budgets import MODEL, passed, project_with

WORK = '''
import mainspring as ms
from mainspring.cost.paying import payers


@ms.job
def rates(run, project):
    """Refresh the rates."""
    return [*payers().teams, payers().why]


@ms.job
def other(run, project):
    """Do something else, and start a pipeline."""
    return [*payers().teams, payers().why, project.run_pipeline("nightly")]


@ms.step
def fit():
    return [*payers().teams, payers().why]


@ms.step
def train(project):
    from mainspring.cost.budgets.declaring import QUEUE
    from mainspring.operations.budgets.acting import check_hold

    check_hold(project.services, QUEUE, "The training of late", "late")  # as a training does first
    return "trained"


@ms.pipeline()
def retraining():
    return train()


@ms.pipeline()
def nightly():
    return fit()


@ms.pipeline()
def weekly():
    return fit()


ms.Team("data", jobs=["rates"], pipelines=["weekly"])
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("teams")
    (root / "team_work.py").write_text(WORK)
    (root / "mainspring.toml").write_text('name = "teams"\nmodules = ["team_work"]\n[profiles.local]\nteam = "rest"\n')
    made = open_project(load_settings(root, environment={}))
    for name in ("risk", "web"):
        made.accounts.add_group(AccountGroup(name))
    for name, groups in (("ana", ("web", "risk")), ("ben", ("risk",)), ("cem", ())):
        made.accounts.add(Account(name, Kind.USER, name.title()))
        for group in groups:
            made.accounts.add_member(group, name)
    yield made
    made.close()


def ran(project: Project, name: str, **given: str) -> object:
    return run_here(project, begin(project, name, **given).id).result  # type: ignore[arg-type]


def test_a_job_is_paid_by_its_name_its_definition_its_starter_or_the_profile(project: Project) -> None:
    assert ran(project, "rates", by="user:ana") == ["data", DECLARED]
    assert ran(project, "rates", by="user:ana", team="web") == ["web", NAMED]
    assert ran(project, "other", by="user:ana")[:3] == ["risk", "web", STARTER]  # type: ignore[index]
    assert ran(project, "other", by="user:cem")[:2] == ["rest", PROFILE]  # type: ignore[index]
    [scheduled] = project.jobs.enqueue([NewJob("other", schedule="nightly")], project.wall.now())
    found = run_here(project, scheduled.id).result
    assert found[:2] == ["rest", PROFILE], "a schedule has no starter, not even the user of the worker"
    assert groups_of(project, "user:gone") == groups_of(project, "key:gone:k") == groups_of(project, "webhook:w") == ()

    with named(project, "web"):  # `jobs run --here --team`: other jobs that are due are not charged to it
        [due] = project.jobs.enqueue([NewJob("other")], project.wall.now())
        assert ran(project, "rates") == ["web", NAMED]
        assert run_here(project, due.id).result[:2] == ["rest", PROFILE]
    *_, run = ran(project, "other", by="user:cem", team="risk")  # type: ignore[misc]
    assert control.find_run(project, str(run)).team == "risk", "a name counts for all that the work begins"
    events = project.audit.search(AuditFilter(action="pipelines.run"), limit=50)
    assert f"{run}, charged to risk" in [each.event.detail for each in events]
    one, again = (control.start(project, "nightly", key="k", team=team) for team in ("risk", "web"))
    assert (again.id, again.team) == (one.id, "risk")
    told = [each.event.detail for each in project.audit.search(AuditFilter(action="pipelines.run"), limit=50)]
    assert [each for each in told if each.startswith(one.id)] == [f"{one.id}, charged to risk"]
    control.cancel(project, one.id)
    used = {(each.subject.id, each.subject.teams) for each in project.usage.read(0, 10**18, kinds=["job"])}
    assert used == {
        ("rates", ("data",)), ("rates", ("web",)), ("other", ("risk", "web")), ("other", ("rest",)),
        ("other", ("risk",)),
    }  # fmt: skip


@pytest.mark.slow
def test_the_steps_of_a_run_are_paid_as_the_run_was_when_it_began(project: Project) -> None:
    """In child processes; also after a kill between two attempts, when the person has left the group."""
    first = control.start(project, "nightly", by="user:ben").id
    killed = Runner(project.jobs, handlers(project), project.wall, holder="h")
    while not project.jobs.steps(first):
        assert killed.run_one() is not None
    project.accounts.remove_member("risk", "ben")
    assert control.run_here(project, first).result == ["risk", STARTER]
    assert control.run_here(project, control.start(project, "nightly", by="user:ben").id).result == ["rest", PROFILE]
    assert control.run_here(project, control.start(project, "weekly", by="user:ana").id).result == ["data", DECLARED]
    project.accounts.add_member("risk", "ben")
    used = {(each.subject.id, each.subject.teams) for each in project.usage.read(0, 10**18, kinds=[STEP])}
    assert used == {("nightly/fit", ("risk",)), ("nightly/fit", ("rest",)), ("weekly/fit", ("data",))}
    state = control.state(project, first)
    assert (state.teams, state.teams_why) == (("risk",), STARTER)


@pytest.mark.slow
def test_a_step_in_which_a_budget_refuses_waits_and_says_why(project: Project) -> None:
    """Its run, of the held team, gives its place to the same of another team. A step elsewhere is put off as well."""
    now = project.wall.now()
    cause = Cause(kind=BUDGET, name="of-risk", key="budget of-risk")
    taken = Taken(
        action="queue work for team risk", at=now, state=DONE, detail="6 EUR of 5 EUR are spent.", until=now + 9 * HOUR
    )
    incident = Incident(
        id="i1", cause=cause, endpoints=(), channels=(BUDGET,), symptoms=(), severity=2.0, page=True, opened_at=now,
        updated_at=now, actions=(taken,),
    )  # fmt: skip
    project.incidents.save([incident])
    held = control.start(project, "retraining", by="user:ben").id
    done = control.run_here(project, control.start(project, "retraining", by="user:cem").id)
    assert done.result == "trained"
    children = Children(project.settings)
    runner = Runner(project.jobs, handlers(project, children), project.wall, holder="h", stopping=lambda: False)
    while runner.run_one() is not None:
        pass
    children.close()
    [step] = control.state(project, held).steps
    assert (step.status, step.attempts) == (Status.QUEUED, 0)
    assert "The training of late is held back until" in step.note
    assert "6 EUR of 5 EUR are spent" in step.note

    call = StepCall("retraining", held, "train", "team_work:train", {}, Path("log"), {}, "user:ben", ("risk",), STARTER)
    with pytest.raises(JobHeld) as put_off:
        value(elsewhere.answer(asked(project.settings, call, "job")), "job")
    assert (put_off.value.note, put_off.value.again_after_us) == (step.note, 5 * MINUTE)


def test_a_user_of_this_machine_pays_and_names_as_the_account_that_it_is(project: Project) -> None:
    with named(project, "web"):  # not bound: who may change the folder's files may name each
        pass
    with pytest.raises(Invalid, match="There is no team 'wep'"), named(project, "wep"):
        pass
    project.accounts.bind(BoundName(local_user(), "ben", 1, "local:root"))
    with charging(project, VIEW, "v") as found:
        assert found == Payers(("risk",), STARTER)
    with named(project, "risk"), charging(project, VIEW, "v") as found:
        assert found == Payers(("risk",), NAMED)
        tags = process_tags()
        assert (tags[TEAM], tags[TEAM_WHY]) == ("risk", NAMED)
    for other in ("web", "wep"):
        with pytest.raises(Denied, match=f"may not team.charge on group/{other}"), named(project, other):
            pass
    assert TEAM not in process_tags()


def test_what_nobody_declares_and_what_two_pay_for_is_said_by_its_line(tmp_path: Path) -> None:
    more = 'ms.Team("web", jobs=["ratez"], pipelines=["weekly"])\n'
    more += 'ms.Budget("b", team="web", month="1 EUR", act=["scale-down"])\n'
    (tmp_path / "team_mistakes.py").write_text(WORK + more)
    (tmp_path / "mainspring.toml").write_text('name = "teams"\nmodules = ["team_mistakes"]\n')
    made = open_project(load_settings(tmp_path, environment={}))
    with pytest.raises(InvalidDefinition) as refused:
        made.definitions  # noqa: B018
    made.close()
    for said in (
        "pays for the job 'ratez', which is not declared. Fix: did you mean 'rates'",
        "pays for the pipeline 'weekly', as the team 'data' does",
        "has no models whose endpoints could be scaled down",
    ):
        assert said in str(refused.value)


def spent_by(
    *teams: str, acts: tuple[str, ...] = ("queue", "stop-searches", "scale-down")
) -> of_budgets.flights.Project:
    """Return a project whose runs cost the first team 9.50 EUR this month and the second nothing; each may spend 5."""
    made = project_with(*(ms.Budget(f"of-{each}", team=each, month="5 EUR", act=acts) for each in teams))
    made.definitions.teams[teams[0]] = ms.Team(teams[0], models=[MODEL])  # type: ignore[index]
    cores, memory = of_budgets.made_of(made)
    whole = of_budgets.HOURS
    for measure, amount in (("cpu", cores * HOUR * whole // 4), ("memory", memory * 3600 * whole // 4)):
        days = range(of_budgets.NOW - 19 * of_budgets.DAY, of_budgets.NOW, of_budgets.DAY)
        subject = Subject(RUN, "r2", model=MODEL, teams=(teams[0],))
        made.usage.add(
            f"more-{measure}", 1,
            [Usage(machine="m", start=day, subject=subject, measure=measure, amount=amount) for day in days],
        )  # fmt: skip
    publish_routes(made)
    return made


def test_a_teams_budget_holds_its_work_and_no_other_teams() -> None:
    made = spent_by("ours", "theirs")
    passed(made)
    [incident] = of_budgets.budget_incidents(made)
    assert [each.action for each in incident.actions] == [
        "queue work for team ours", "stop searches for team ours", f"scale down {of_budgets.ENDPOINT}",
    ]  # fmt: skip
    assert len(of_budgets.events(made)) == 3
    assert [each.target for each in made.incidents.outgoing(incidents=[incident.id])] == ["ops"]
    assert made.routes.current()[of_budgets.ENDPOINT].executors == (1, 1)
    assert {each.budget: (each.spent, len(each.holds)) for each in budgets(made)} == {
        "of-ours": (9.5, 3), "of-theirs": (0.0, 0),
    }  # fmt: skip
    for act in (QUEUE, STOP_SEARCHES):
        for teams in (("ours",), ("ours", "theirs")):
            with paid_by(Payers(teams, DECLARED)), pytest.raises(BudgetExceeded) as held:
                check_hold(made, act, "The work", "another model")
            assert "is held back until 2013-10-01" in str(held.value)
            assert "Another team may pay for it: --team NAME" in (held.value.fix or "")
        for others in (("theirs",), ()):
            with paid_by(Payers(others, DECLARED)):
                check_hold(made, act, "The work", MODEL)

    [job] = made.jobs.enqueue([NewJob("train", {"model": MODEL})], made.wall.now())
    [free] = made.jobs.enqueue([NewJob("train", {"model": MODEL}, team="theirs")], made.wall.now())
    runner = Runner(made.jobs, handlers(made), made.wall, holder="h", stopping=lambda: False)
    back = runner.run_one()
    assert back is not None
    assert (back.id, back.status, back.attempts) == (job.id, Status.QUEUED, 0)
    assert back.progress is not None
    assert "is held back until 2013-10-01" in back.progress.note
    begun = runner.run_one()
    assert begun is not None
    assert begun.id == free.id
    assert begun.progress is None or "held back" not in begun.progress.note

    end_shed(made, incident.id, reason="a deadline", by="local:ana")
    with paid_by(Payers(("ours",), DECLARED)):
        check_hold(made, QUEUE, "The work", MODEL)


def test_costs_by_team_add_up_with_runs_and_old_use_that_is_nobodys(tmp_path: Path) -> None:
    """By hand: of 2 EUR a day a quarter each is a run's of nobody, a run's of the team, an endpoint's of two teams."""
    made = spent_by("ours", acts=("queue",))
    found = report(made, "team", since=of_budgets.NOW - 40 * of_budgets.DAY)
    lines = {each.name: round(each.cost or 0.0, 6) for each in found.lines}
    assert lines["ours"] == lines["(no team)"] == 9.5
    assert lines["risk"] == lines["web"] == 4.75
    assert sum(each.cost or 0.0 for each in found.lines) == pytest.approx(found.total.cost, abs=1e-12)
    assert found.total.cost == report(made, "kind", since=of_budgets.NOW - 40 * of_budgets.DAY).total.cost
    done = export(made, tmp_path / "costs.parquet", since=of_budgets.NOW - 40 * of_budgets.DAY)
    rows = pq.read_table(tmp_path / "costs.parquet").to_pylist()
    nanos = sum(part.nanos or 0 for part in cost_parts(made, 0, of_budgets.NOW + 1)[0])
    assert sum(int(row["BilledCost"].scaleb(9)) for row in rows) == nanos
    assert done.cost == nanos / 1e9
    tagged = {team: sum(row["BilledCost"] for row in rows if f'"team":"{team}"' in row["Tags"]) for team in lines}
    assert {team: round(float(cost), 6) for team, cost in tagged.items() if cost} == {
        "ours": 9.5,
        "risk": 4.75,
        "web": 4.75,
    }
