"""kill -9 of a worker and of step processes at named points: every run ends, each step is recorded once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from kit import prefork
from kit.depth import DEEP
from kit.servers import PostgresServer
from kit.waiting import wait_until
from mainspring.jobs.model import Status
from mainspring.operations.pipelines import control
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

pytestmark = pytest.mark.slow
VICTIM = Path(__file__).parent / "pipelines_victim.py"
FLOWS = """
import os
import time
from pathlib import Path

import mainspring as ms

HERE = Path(__file__).parent


def note(word):
    with (HERE / "effects").open("a") as log:
        log.write(word + "\\n")


@ms.step
def first(run):
    note("first")
    return [1, 2, 3]


@ms.step
def each(number, run):
    note(f"each {number}")
    mark = HERE / f"kill-{number}"
    if mark.exists():
        mark.unlink()
        os.kill(os.getpid(), 9)
    while (HERE / "hold").exists():
        (HERE / "pid").write_text(str(os.getpid()))
        time.sleep(0.01)
    return number * 10


@ms.step
def last(numbers):
    note("last")
    return sum(numbers)


@ms.pipeline
def chain():
    return last(each.map(first()))
"""
# Store calls of one run: the plan, the steps, the items, the results. Of each the first and a later one.
POINTS = [
    (method, when, count)
    for method, counts in (("enqueue", (1, 2)), ("record", (1, 2)), ("end_and_claim", (1, 2, 4, 6)), ("claim", (1,)))
    for when in ("before", "after")
    for count in counts
]


@contextmanager
def project_in(folder: Path, catalog: str = "sqlite:///catalog.db") -> Iterator[Project]:
    (folder / "chained.py").write_text(FLOWS)
    (folder / "mainspring.toml").write_text(
        f'name = "own"\nmodules = ["chained"]\n[profiles.local]\ncatalog = "{catalog}"\n'
    )
    with closing(open_project(load_settings(folder, environment={}))) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with project_in(tmp_path) as made:
        yield made


def start(
    project: Project, method: str = "-", when: str = "-", count: int = 0, real: bool = True
) -> subprocess.Popen[str]:
    """Start a worker; one that is `real` can be killed from outside."""
    command = prefork.script(VICTIM, project.settings.root, method, when, count)
    if real:
        command = [sys.executable, str(VICTIM), str(project.settings.root), method, when, str(count)]
    return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL)


def finished(project: Project, run: str) -> bool:
    return control.find_run(project, run).status is Status.DONE


def check(project: Project, run: str, kills: int) -> None:
    """Compare the run with one that nobody disturbed."""
    found = control.state(project, run)
    assert (found.job.status, found.job.result) == (Status.DONE, 60)
    assert {step.name: step.result for step in found.steps} == {
        "first": [1, 2, 3], "each": [10, 20, 30], "each[0]": 10, "each[1]": 20, "each[2]": 30, "last": 60,
    }  # fmt: skip
    effects = Counter((project.settings.root / "effects").read_text().splitlines())
    assert set(effects) == {"first", "each 1", "each 2", "each 3", "last"}
    # What a kill cut short was done once more; with two steps at a time it may have been two of them.
    assert sum(effects.values()) - len(effects) <= 2 * kills


@pytest.mark.parametrize(("method", "when", "count"), POINTS if DEEP else POINTS[1::6])
def test_a_worker_killed_at_a_point_is_followed_by_one_that_ends_the_run(
    project: Project, method: str, when: str, count: int
) -> None:
    run = control.start(project, "chain").id
    victim = start(project, method, when, count, real=False)
    assert victim.wait(timeout=300) == -signal.SIGKILL
    successor = start(project, real=False)
    assert successor.wait(timeout=300) == 0
    check(project, run, kills=1)


@pytest.mark.parametrize(("method", "when", "count"), POINTS if DEEP else [("end_and_claim", "after", 2)])
def test_on_postgres_too(tmp_path: Path, postgres_server: PostgresServer, method: str, when: str, count: int) -> None:
    with project_in(tmp_path, postgres_server.fresh().text) as project:
        test_a_worker_killed_at_a_point_is_followed_by_one_that_ends_the_run(project, method, when, count)


def test_a_step_whose_process_is_killed_is_run_once_more(project: Project) -> None:
    for number in (1, 3):
        (project.settings.root / f"kill-{number}").touch()
    run = control.start(project, "chain").id
    assert start(project).wait(timeout=300) == 0
    check(project, run, kills=1)


def test_step_processes_die_with_their_worker(project: Project) -> None:
    (project.settings.root / "hold").touch()
    run = control.start(project, "chain").id
    worker = start(project)
    pid_file = project.settings.root / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().isdigit(), "a step to run")
    worker.kill()
    worker.wait()
    wait_until(lambda: not alive(int(pid_file.read_text())), "the step's process to end")
    (project.settings.root / "hold").unlink()
    assert start(project).wait(timeout=300) == 0
    check(project, run, kills=1)


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
