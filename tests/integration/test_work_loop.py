"""The worker's jobs thread: one commit a step, all places in use, and a stop that leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.waiting import wait_until
from mainspring.jobs.model import ENDED, Status
from mainspring.operations.jobs.work_loop import working
from mainspring.operations.pipelines import control
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

STEPS = 12
FLOWS = f"""
import time
from pathlib import Path

import mainspring as ms

HERE = Path(__file__).parent


@ms.step
def first():
    return 0


@ms.step
def add(number):
    return number + 1


@ms.pipeline
def chain():
    number = first()
    for _ in range({STEPS} - 1):
        number = add(number)
    return number


@ms.step
def meet(mine, others):
    (HERE / mine).touch()
    until = time.monotonic() + 120
    while not all((HERE / other).exists() for other in others):
        assert time.monotonic() < until, "nobody came"
        time.sleep(0.01)


@ms.pipeline
def meeting():
    begun = first()
    for name in "abc":
        meet(name, list("abc"), after=begun)


@ms.step
def stay():
    (HERE / "here").touch()
    time.sleep(600)


@ms.pipeline
def long():
    stay()
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "chained.py").write_text(FLOWS)
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["chained"]\n')
    made = open_project(load_settings(tmp_path, environment={"MAINSPRING_JOBS_AT_ONCE": "3"}))
    yield made
    made.close()


def _ended(project: Project, run: str) -> bool:
    return control.find_run(project, run).status in ENDED


def test_a_step_costs_one_commit(project: Project) -> None:
    commits: list[object] = []
    sa.event.listen(project.engine, "commit", commits.append)
    with working(project, threading.Event()):
        run = control.start(project, "chain").id
        wait_until(lambda: _ended(project, run), "the run to end")
    assert control.find_run(project, run).result == STEPS - 1
    # The start with its audit, the run's own claim, plan, parts and ends; a lease is renewed after five seconds only.
    assert STEPS <= len(commits) <= STEPS + 12


def test_what_becomes_due_together_runs_at_once(project: Project) -> None:
    with working(project, threading.Event()):
        run = control.start(project, "meeting").id
        wait_until(lambda: _ended(project, run), "the run to end")
    assert control.find_run(project, run).status is Status.DONE


def test_a_stopped_worker_leaves_its_step_to_the_next(project: Project) -> None:
    run = control.start(project, "long").id
    with working(project, threading.Event()):
        wait_until((project.settings.root / "here").exists, "the step to begin")
    step = control.state(project, run).steps[0]
    wait_until(lambda: control.state(project, run).steps[0].status is Status.QUEUED, "the step to be queued again")
    assert step.result is None
    control.cancel(project, run)
