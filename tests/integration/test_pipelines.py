"""Pipelines run as jobs: graph, fan-out, conditions, approvals, retries, time-outs, cache, logs, and steps again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kit.depot import gone
from kit.waiting import wait_until
from mainspring.core.errors import Conflict, Denied, Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.jobs.model import NewJob, Status
from mainspring.jobs.runner import Runner
from mainspring.operations.access import add_account, bind_name
from mainspring.operations.jobs.children import Children
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.opened import OpenedProject
from mainspring.operations.pipelines import control
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import local_user
from mainspring.security.model import Kind

pytestmark = pytest.mark.usefixtures("forked")
FLOWS = '''
"""Pipelines of the tests."""
import os
import time
from pathlib import Path

import mainspring as ms

HERE = Path(__file__).parent


def note(word):
    with (HERE / "effects").open("a") as log:
        log.write(word + "\\n")


@ms.step
def load(days):
    print("loading", days, "days")
    note("load")
    return {"folds": list(range(days)), "big": days > 2}


@ms.step(retries=1, limit=1)
def fit(fold, run, *, seed=0):
    run.progress(1, 2, "half")
    if (HERE / f"fail-{fold}").exists():
        raise ValueError(f"fold {fold} is bad")
    note(f"fit {fold}")
    return {"fold": fold, "auc": fold / 10 + seed}


@ms.step
def choose(fits, project):
    note("choose")
    return {"best": max(fits, key=lambda each: each["auc"]), "project": project.name}


@ms.step
def promote(best):
    note("promote")
    return best["fold"]


@ms.step
def report(big):
    note("report")


@ms.step(timeout="300ms", retries=0)
def hang():
    time.sleep(600)


@ms.step(retries=0)
def die():
    os.kill(os.getpid(), 9)


@ms.step
def sleep():
    (HERE / "pid").write_text(str(os.getpid()))
    time.sleep(600)


@ms.step
def chatter():
    for number in range(40_000):
        print(number, "x" * 90)


@ms.step(cache=True)
def costly(number):
    note("costly")
    return number * 2


@ms.step(cache=True)
def reads(project, data=None):
    return 1


@ms.pipeline
def nightly(days: int = 2, bar: float = 0.05):
    """Train each night."""
    data = load(days)
    best = choose(fit.map(data["folds"], seed=0))
    with ms.only_if(best["best"]["auc"] > bar), ms.approval("go-live"):
        done = promote(best["best"])
    with ms.only_if(data["big"]):
        report(data["big"])
    return {"best": best["best"], "project": best["project"]}


@ms.pipeline
def hangs():
    hang()


@ms.pipeline
def sleeps():
    sleep()


@ms.step(retries=0)
def turn(name):
    if not (HERE / f"may-{name}").exists():
        raise ValueError(f"{name} may not")
    note(name)


@ms.pipeline(priority=3)
def turns(name: str = "a"):
    turn(name)


@ms.step(cpu=4, memory="1Gi")
def heavy():
    note("heavy")


@ms.pipeline
def heavier():
    heavy()


@ms.pipeline
def chatters():
    chatter()


@ms.pipeline
def dies():
    die()


@ms.pipeline(limit=None)
def cached(number: int = 1):
    return [costly(number), reads(), reads(data=ms.task("snapshot", sources=[]))]
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["flows"]\n')
    return tmp_path


@pytest.fixture
def project(root: Path) -> Iterator[Project]:
    made = open_project(load_settings(root, environment={}))
    yield made
    made.close()


def effects(project: Project) -> list[str]:
    return (project.settings.root / "effects").read_text().split("\n")[:-1]


def steps(project: Project, run: str) -> dict[str, str]:
    return {step.name: str(step.status) for step in control.state(project, run).steps}


def test_a_run_goes_through_its_graph_and_waits_for_approval(project: Project) -> None:
    run = control.start(project, "nightly", by="ana").id
    assert set(steps(project, run).values()) == {"waiting"}
    assert control.run_here(project, run).status is Status.WAITING
    assert steps(project, run) == {
        "load": "done", "fit": "done", "fit[0]": "done", "fit[1]": "done", "choose": "done", "go-live": "waiting",
        "promote": "waiting", "report": "skipped",
    }  # fmt: skip
    assert sorted(effects(project)) == ["choose", "fit 0", "fit 1", "load"]
    assert [step.name for step in control.asked(control.state(project, run))] == ["go-live"]
    assert control.approve(project, run, "go-live", by="bob").approved_by == ("bob",)
    done = control.run_here(project, run)
    assert (done.status, done.result) == (Status.DONE, {"best": {"fold": 1, "auc": 0.1}, "project": "own"})
    assert effects(project)[-1] == "promote"
    found = control.state(project, run)
    assert found.counts == {"done": 5, "skipped": 1}
    assert next(step.result for step in found.steps if step.name == "go-live") == {"approved_by": ["bob"]}
    assert control.logs(project, run, "load") == {"load": "loading 2 days\n"}
    assert [job.id for job in control.runs(project, "nightly")] == [run]
    assert [event.action for event in project.audit.read()] == ["pipelines.end", "pipelines.approve", "pipelines.run"]


def test_a_false_condition_skips_steps_and_what_follows(project: Project) -> None:
    run = control.start(project, "nightly", {"bar": 9.0}).id
    done = control.run_here(project, run)
    assert done.status is Status.DONE
    found = steps(project, run)
    assert (found["go-live"], found["promote"], found["report"]) == ("skipped", "skipped", "skipped")
    error = {step.name: step.error for step in control.state(project, run).steps}["go-live"]
    assert error == "The condition choose['best']['auc'] > bar is false."


def test_a_failed_item_is_retried_alone_and_run_locally(project: Project) -> None:
    bad = project.settings.root / "fail-1"
    bad.touch()
    run = control.start(project, "nightly").id
    # An attempt comes 2 s after the failed one.
    failed = control.run_here(project, run)
    assert failed.status is Status.FAILED
    assert "fit" in (failed.error or "")
    found = steps(project, run)
    assert (found["fit[0]"], found["fit[1]"], found["fit"]) == ("done", "failed", "failed")
    assert (found["choose"], found["promote"]) == ("skipped", "skipped")
    told = {step.name: step.error for step in control.state(project, run).steps}
    assert (told["choose"], told["promote"]) == (
        "The step fit that it needs has failed.",
        "The step choose that it needs was skipped.",
    )
    assert "ValueError: fold 1 is bad" in control.logs(project, run, "fit[1]")["fit[1]"]
    with pytest.raises(ValueError, match="fold 1 is bad") as raised:
        control.run_step(project, run, "fit[1]")
    line = FLOWS[: FLOWS.index("raise ValueError")].count("\n") + 1
    assert f"flows.py:{line}: ValueError: fold 1 is bad" in str(control.failed(project, "fit[1]", raised.value))
    bad.unlink()
    before = effects(project)
    assert control.run_step(project, run, "fit[1]") == {"fold": 1, "auc": 0.1}
    assert steps(project, run)["fit[1]"] == "failed"
    with pytest.raises(Conflict, match="needs 'fit', which is not done"):
        control.run_step(project, run, "choose")
    with pytest.raises(Invalid, match=r"name an item: 'fit\[0\]'"):
        control.run_step(project, run, "fit")
    with pytest.raises(NotFound, match="no step 'fitt'"):
        control.retry(project, run, "fitt")
    with pytest.raises(Conflict, match="is done"):
        control.retry(project, run, "load")
    control.retry(project, run, "fit[1]")
    assert control.run_here(project, run).status is Status.WAITING
    assert effects(project)[len(before) :] == ["fit 1", "fit 1", "choose"]  # here, then recorded
    assert {step.name: step.error for step in control.state(project, run).steps}["promote"] is None


def test_a_step_that_never_returns_is_ended(project: Project) -> None:
    done = control.run_here(project, control.start(project, "hangs").id)
    assert done.status is Status.FAILED
    assert "took longer than 300ms" in (done.error or "")


def test_a_step_that_kills_its_process_fails(project: Project) -> None:
    done = control.run_here(project, control.start(project, "dies").id)
    assert done.status is Status.FAILED
    assert "killed by signal 9" in (done.error or "")


def test_the_process_of_a_cancelled_step_is_ended(project: Project) -> None:
    run = control.start(project, "sleeps").id
    pid = project.settings.root / "pid"
    with closing(Children(project.settings)) as children:
        runner = Runner(project.jobs, handlers(project, children), project.wall, holder="h", lease_us=SECOND)
        runner.run_one()  # the run itself, which then waits
        step = threading.Thread(target=runner.run_one)
        step.start()
        wait_until(lambda: pid.exists() and pid.read_text().isdigit(), "the step to run")
        assert control.cancel(project, run).status is Status.CANCELLED
        step.join()
    assert steps(project, run) == {"sleep": "cancelled"}
    wait_until(lambda: gone(int(pid.read_text())), "the end of the forked process")


def test_what_a_step_prints_is_kept_up_to_two_megabytes(project: Project) -> None:
    run = control.start(project, "chatters").id
    assert control.run_here(project, run).status is Status.DONE
    text = control.logs(project, run)["chatter"]
    assert text.endswith(f"39999 {'x' * 90}\n")
    assert 1 << 20 < len(text) <= (2 << 20) + 1
    folder = project.settings.state / "logs" / "pipelines" / run
    assert sorted(path.name for path in folder.iterdir()) == ["chatter.log", "chatter.old.log"]


def test_a_cached_step_runs_once_for_the_same_inputs_and_source(project: Project) -> None:
    def cache(run: str) -> list[str]:
        return [step.cache for step in control.state(project, run).steps]

    unnamed = "not cached: it gets the project, and no input names the version of its data"
    one = control.start(project, "cached").id
    assert control.run_here(project, one).result == [2, 1, 1]
    assert cache(one) == ["miss", unnamed, "", unnamed]  # no source, so no version
    two = control.start(project, "cached").id
    assert control.run_here(project, two).result == [2, 1, 1]
    assert cache(two)[0] == "hit"
    assert effects(project) == ["costly"]
    for again in (control.start(project, "cached", {"number": 2}), control.start(project, "cached", cache=False)):
        control.run_here(project, again.id)
    assert effects(project) == ["costly"] * 3
    flows = project.settings.root / "flows.py"
    flows.write_text(flows.read_text().replace("number * 2", "number * 3"))
    three = control.start(project, "cached").id
    assert control.run_here(project, three).result == [3, 1, 1]
    assert cache(three)[0] == "miss"


def test_who_may_approve(project: Project) -> None:
    import dataclasses

    project.settings = dataclasses.replace(project.settings, approvals=1)
    run = control.start(project, "nightly", by="ana").id
    with pytest.raises(Conflict, match="not asked for"):
        control.approve(project, run, "go-live", by="bob")
    control.run_here(project, run)
    with pytest.raises(Denied, match="ana started the run"):
        control.approve(project, run, "go-live", by="ana")
    with pytest.raises(Invalid, match="not an approval"):
        control.approve(project, run, "load", by="bob")
    control.approve(project, run, "go-live", by="bob")


def test_the_user_of_a_machine_approves_as_the_account_that_it_is(project: Project) -> None:
    run = control.start(project, "nightly", by="ana").id
    control.run_here(project, run)
    account = add_account(project, Kind.USER, "viewer")
    bind_name(project, account, local_user(), by="local:somebody")
    with pytest.raises(Denied, match=r"may not pipeline\.approve"):
        control.approve(project, run, "go-live")


def test_one_run_at_a_time_and_a_cancelled_one_gives_way(project: Project) -> None:
    first, second = control.start(project, "nightly").id, control.start(project, "nightly").id
    control.run_here(project, first)
    assert control.state(project, second).job.status is Status.WAITING
    assert control.cancel(project, first).status is Status.CANCELLED
    assert set(steps(project, first).values()) == {"done", "skipped", "cancelled"}
    assert control.run_here(project, second).status is Status.WAITING
    assert steps(project, second)["choose"] == "done"
    with pytest.raises(Conflict, match="has not ended"):
        control.retry(project, second)


def test_a_retried_run_and_its_steps_wait_for_its_place(project: Project) -> None:
    (project.settings.root / "may-b").touch()
    first = control.start(project, "turns").id
    assert control.run_here(project, first).status is Status.FAILED
    (project.settings.root / "may-a").touch()
    second = control.start(project, "turns", {"name": "b"}).id
    with closing(Children(project.settings)) as children:
        runner = Runner(project.jobs, handlers(project, children), project.wall, holder="h")
        runner.run_one()  # the second run, which now has the only place
        [again] = control.retry_jobs(project, [first])
        assert again.status is Status.WAITING
        assert steps(project, first) == {"turn": "waiting"}
        while runner.run_one() is not None:
            pass
    assert control.find_run(project, first).status is control.find_run(project, second).status is Status.DONE
    assert effects(project) == ["b", "a"]


def test_a_job_of_a_pipeline_is_retried_as_the_pipeline_does_it(project: Project) -> None:
    run = control.start(project, "turns").id
    assert control.run_here(project, run).status is Status.FAILED
    (project.settings.root / "may-a").touch()
    [step] = control.state(project, run).steps
    [again] = control.retry_jobs(project, [step.job])
    assert again.status is control.find_run(project, run).status is Status.QUEUED
    assert control.run_here(project, run).status is Status.DONE
    with pytest.raises(Conflict, match="is done"):
        control.retry_jobs(project, [step.job])


def test_a_run_and_its_steps_have_the_pipelines_priority_or_their_own(project: Project) -> None:
    for given, priority in ((None, 3), (-7, -7)):
        run = control.start(project, "turns", priority=given).id
        control.run_here(project, run)
        parts = project.jobs.find(parent=run)
        assert [job.priority for job in (control.find_run(project, run), *parts)] == [priority] * 2
    with pytest.raises(Invalid, match="priority is 101"):
        control.start(project, "turns", priority=101)


def test_resources_that_nobody_gives_out_are_refused(project: Project) -> None:
    with pytest.raises(Invalid, match=r"heavy.*cpu and memory.*a process of the worker's machine"):
        control.start(project, "heavier")
    [job] = project.jobs.enqueue([NewJob("pipeline:heavier")], 0)  # as a schedule or an event does
    done = control.run_here(project, job.id)
    assert done.status is Status.FAILED
    assert "cpu and memory" in (done.error or "")


def test_what_cannot_be_started_is_refused(project: Project) -> None:
    with pytest.raises(NotFound, match="no pipeline 'nightl'"):
        control.start(project, "nightl")
    with pytest.raises(Invalid, match="no parameter 'day'"):
        control.start(project, "nightly", {"day": 1})
    for value in ("two", True, 2.5):
        with pytest.raises(Invalid, match=f"'days' of pipeline 'nightly' is {value!r}"):
            control.start(project, "nightly", {"days": value})
    with pytest.raises(NotFound, match="There is no job"):
        control.state(project, "nobody")
    opened = OpenedProject(project)
    with pytest.raises(Invalid, match="no parameter 'day'"):
        opened.run_pipeline("nightly", day=1)
    assert opened.pipeline_run(opened.run_pipeline("nightly", days=1)).parameters == {"days": 1, "bar": 0.05}
    same = control.start(project, "nightly", key="commit-1")
    assert control.start(project, "nightly", key="commit-1").id == same.id
