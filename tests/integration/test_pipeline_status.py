"""`mainspring pipelines status` of a run with many steps: a screen that a person can read."""

from __future__ import annotations

from pathlib import Path

from kit.depot import Depot
from mainspring.jobs.runner import Runner
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.pipelines import control
from mainspring.project import open_project
from mainspring.project.settings import load_settings

FLOWS = """
import mainspring as ms

@ms.step(retries=0)
def add(number):
    assert number not in (3, 20), f"{number} is bad"
    return number

@ms.step
def total(numbers):
    return sum(numbers)

@ms.pipeline
def many():
    asked = ms.approval("look")
    numbers = [add(each) for each in range(60)]
    with asked:
        total(numbers)
"""


def test_of_many_steps_those_that_need_attention_are_shown(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["flows"]\n')
    project = open_project(load_settings(tmp_path, environment={}))
    run = control.start(project, "many").id
    runner = Runner(project.jobs, handlers(project), project.wall, holder="h")
    while runner.run_one() is not None:
        pass
    project.close()
    depot = Depot(tmp_path)

    def shown(*more: str) -> list[str]:
        return depot.run("pipelines", "status", run, *more).stdout.splitlines()

    lines = [line.split() for line in shown()]
    assert ["✗", "2", "failed"] in lines
    assert ["✓", "58", "done"] in lines
    assert [line[1] for line in lines if line[2:3] == ["failed"] and "bad" in line] == ["add-4", "add-21"]
    assert len(lines) < 20
    assert any(line.startswith("  ✓ add-60 ") for line in shown("--all"))
    assert len(depot.json("pipelines", "status", run)["steps"]) == 62
