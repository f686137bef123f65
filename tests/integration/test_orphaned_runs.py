"""Runs whose process has ended are closed, and MLflow is left alone where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.depth import deep
from mainspring.operations.runs import close_ended, find_runs
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import process_tags

LOADS_MLFLOW = """
import sys
from pathlib import Path
from mainspring.project.settings import load_settings
from mainspring.project import open_project
from mainspring.operations.runs import find_runs

find_runs(open_project(load_settings(Path.cwd())))
print("mlflow" in sys.modules)
"""


def loads_mlflow(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOADS_MLFLOW], cwd=folder, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.strip()


def opened(folder: Path) -> Project:
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = []\n[profiles.local]\n')
    return open_project(load_settings(folder, environment={}))


@deep
def test_runs_are_listed_without_mlflow_until_one_has_to_be_closed(tmp_path: Path) -> None:
    project = opened(tmp_path)
    assert loads_mlflow(tmp_path) == "False"
    project.tracking.finish(project.tracking.start("late", {}, 0), "FINISHED", 1)
    assert loads_mlflow(tmp_path) == "False"
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tags = process_tags(ended.pid)
    ended.communicate()
    project.tracking.start("late", tags, 0)
    assert loads_mlflow(tmp_path) == "True"
    assert sorted(run.status for run in find_runs(project)) == ["FINISHED", "KILLED"]


def test_a_run_of_a_process_that_lives_stays(tmp_path: Path) -> None:
    project = opened(tmp_path)
    project.tracking.start("late", process_tags(), 0)
    close_ended(project)
    assert [run.status for run in find_runs(project)] == ["RUNNING"]
