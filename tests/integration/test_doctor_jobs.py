"""What `doctor` says of jobs that failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.time import HOUR
from mainspring.jobs.model import Job, NewJob, Outcome, Status
from mainspring.operations.doctor import examine
from mainspring.operations.findings import Finding
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "mainspring.toml").write_text('name = "small"\nmodules = ["small"]\n')
    (tmp_path / "small.py").write_text("")
    project = open_project(load_settings(tmp_path, environment={}))
    yield project
    project.engine.dispose()


def of_jobs(project: Project) -> Finding:
    [finding] = [finding for finding in examine(project) if finding.check == "jobs"]
    return finding


def ran(project: Project, at: int, argument: Any = None, error: str | None = None) -> Job:
    """Queue a job and end it: failed where it has an error, else done."""
    [job] = project.jobs.enqueue([NewJob("materialise", argument)], at)
    return again(project, job, at, error)


def again(project: Project, job: Job, at: int, error: str | None = None) -> Job:
    [lease] = project.jobs.claim("ana", [job.handler], at, HOUR)
    assert lease.job.id == job.id
    return project.jobs.end(lease, Outcome(Status.FAILED if error else Status.DONE, error=error), at + 1)


def test_no_job_and_jobs_that_went_well_are_well(project: Project) -> None:
    assert of_jobs(project) == Finding(check="jobs", ok=True, detail="0 queued or running")
    ran(project, 1)
    project.jobs.enqueue([NewJob("tidy"), NewJob("tidy")], 2)
    project.jobs.cancel([project.jobs.enqueue([NewJob("tidy")], 3)[0].id], 4)
    assert of_jobs(project) == Finding(check="jobs", ok=True, detail="2 queued or running")


def test_failed_ones_are_named_with_what_to_do(project: Project) -> None:
    ran(project, 1, {"views": ["A"]}, "the oldest")
    newest = ran(project, 2, {"views": ["B"]}, "no space\nsecond line")
    found = of_jobs(project)
    assert not found.ok
    assert found.detail == f"2 failed permanently, the newest materialise {newest.id}: no space"
    assert "mainspring jobs list --status failed" in found.fix


def test_what_its_fix_does_makes_it_well(project: Project) -> None:
    failed = ran(project, 1, None, "no space")
    [queued] = project.jobs.retry([failed.id], 2)
    assert of_jobs(project).ok
    again(project, queued, 3, "no space again")
    assert not of_jobs(project).ok
    again(project, project.jobs.retry([failed.id], 4)[0], 5)
    assert of_jobs(project).ok
    ran(project, 6, None, "no space")
    project.jobs.forget({Status.FAILED}, 99)
    assert of_jobs(project).ok


def test_one_that_went_well_since_needs_nobody(project: Project) -> None:
    ran(project, 1)  # before it: says nothing
    ran(project, 10, None, "no space")
    ran(project, 20, {"views": ["A"]})  # something else
    assert not of_jobs(project).ok
    ran(project, 30, {})  # no argument and an empty one are the same
    assert of_jobs(project) == Finding(
        check="jobs", ok=True, detail="0 queued or running; 1 failed and succeeded since"
    )
    ran(project, 40, None, "no space")
    assert of_jobs(project).detail.startswith("1 failed permanently")
