"""Jobs that a project declares: queued, scheduled and run as Mainspring's own are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from mainspring.core.errors import Invalid, InvalidDefinition, MainspringError, NotFound
from mainspring.jobs.model import NewJob, Status
from mainspring.operations.jobs.child import Line, run_job
from mainspring.operations.jobs.queue import begin, cancel, run_here
from mainspring.operations.pipelines.control import retry_jobs
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import local_user

JOBS = '''
import mainspring as ms

DONE = []


@ms.job
def refresh_rates(run, project):
    """Refresh the rates."""
    run.step("once", lambda: DONE.append(run.argument["n"]))
    if run.argument.get("fails"):
        raise ms.MainspringError("no rates today")
    return {"project": project.name, "done": run.step("count", lambda: len(DONE))}


@ms.job
def work(run, project):
    """Say whose work it is."""
    from mainspring.registry.processes import STARTER, process_tags

    return [run.started_by, process_tags().get(STARTER)]
'''


class Heard(Line):
    """A parent that hears everything and asks nothing."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def tell(self, **what: Any) -> None:
        self.heard.append(what)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "own_jobs.py").write_text(JOBS)
    (tmp_path / "mainspring.toml").write_text(
        'name = "own"\nmodules = ["own_jobs"]\n[profiles.local.schedules]\nrefresh-rates = "1h"\n'
    )
    return tmp_path


@pytest.fixture
def project(root: Path) -> Iterator[Project]:
    made = open_project(load_settings(root, environment={}))
    yield made
    made.close()


def test_an_own_job_runs_with_its_argument_and_the_project(project: Project) -> None:
    assert project.definitions.jobs["refresh-rates"].about == "Refresh the rates."
    done = run_here(project, begin(project, "refresh-rates", {"n": 1}).id)
    assert (done.status, done.result) == (Status.DONE, {"project": "own", "done": 1})
    with pytest.raises(NotFound, match="There is no job named 'refresh'") as refused:
        begin(project, "refresh")
    assert "refresh-rates" in (refused.value.fix or "")


def test_who_starts_a_job_is_an_author_of_what_it_trains(project: Project) -> None:
    """In a process of the worker too, and a schedule has no starter."""
    job = begin(project, "work", by="user:ana")
    assert run_here(project, job.id).result == ["user:ana", "user:ana"]
    assert begin(project, "work").started_by == local_user()
    begun = [begin(project, "work", key="once").id for _ in range(2)]
    assert [each.resource for each in project.audit.read() if each.action == "jobs.run"].count(f"job/{begun[0]}") == 1
    assert begun[0] == begun[1]
    [scheduled] = project.jobs.enqueue([NewJob("work", schedule="nightly")], project.wall.now())
    assert run_here(project, scheduled.id).result == ["", None]
    line = Heard()
    run_job(
        project, line, {"id": "1", "argument": None, "finished": {}, "handler": "work", "name": "w", "by": "user:ben"}
    )
    assert line.heard == [{"done": ["user:ben", "user:ben"]}]


def test_what_people_do_to_jobs_is_in_the_audit_log(project: Project) -> None:
    job = begin(project, "refresh-rates", {"n": 1}, by="user:ana")
    cancel(project, [job.id], by="user:ben")
    retry_jobs(project, [job.id])
    events = [(each.actor, each.action, each.resource, each.detail) for each in reversed(project.audit.read(3))]
    named = (f"job/{job.id}", "refresh-rates")
    assert events == [
        ("user:ana", "jobs.run", *named),
        ("user:ben", "jobs.cancel", *named),
        (local_user(), "jobs.retry", *named),
    ]


def test_a_schedule_may_name_it_and_nothing_that_is_not_there(root: Path, project: Project) -> None:
    assert [each.job for each in project.settings.schedules if each.name == "refresh-rates"] == ["refresh-rates"]
    assert project.definitions.jobs
    (root / "mainspring.toml").write_text(
        'name = "own"\nmodules = ["own_jobs"]\n[profiles.local.schedules]\nsweep = "1h"\n'
    )
    with pytest.raises(Invalid, match=r"schedules\.sweep is not valid: there is no job named 'sweep'"):
        _ = open_project(load_settings(root, environment={})).definitions


def test_what_cannot_be_a_job_is_refused_where_it_is_declared(root: Path) -> None:
    with pytest.raises(Invalid, match="must take a run and a project"):
        ms.job(name="nothing")(lambda: None)
    with pytest.raises(Invalid, match=r"A job is made of 'refresh-rates'.*name="):
        ms.job("refresh-rates")  # type: ignore[call-overload]
    with pytest.raises(MainspringError):
        ms.job(name="no name")(lambda run, project: None)
    for name in ("tidy", "pipeline-step", "pipeline-approval"):
        (root / "own_jobs.py").write_text(JOBS.replace("@ms.job", f'@ms.job(name="{name}")'))
        with pytest.raises(InvalidDefinition, match=f"'{name}' has the name of a built-in job"):
            _ = open_project(load_settings(root, environment={})).definitions


def test_a_schedule_of_no_job_says_which_was_meant(root: Path) -> None:
    piped = "@ms.step\ndef look() -> int:\n    return 1\n\n\n@ms.pipeline(name='nightly')\ndef nightly():\n    look()\n"
    (root / "own_jobs.py").write_text(f"{JOBS}\n\n{piped}")
    for line, meant in (("refresh-rate", "did you mean 'refresh-rates'"), ("nightly", r"pipeline\(every=")):
        (root / "mainspring.toml").write_text(
            f'name = "own"\nmodules = ["own_jobs"]\n[profiles.local.schedules]\n{line} = "1d"\n'
        )
        with pytest.raises(Invalid, match=meant):
            _ = open_project(load_settings(root, environment={})).definitions
