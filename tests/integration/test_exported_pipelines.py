"""Exported pipelines, run by the engines themselves: Step Functions by moto's interpreter, Azure ML's
commands by a shell, the others as installed.

Airflow, Prefect, Dagster and kfp have environments of their own: `kit.engines`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kit.azure_pipelines import run_job
from kit.depth import deep
from kit.engines import python_of
from kit.exported import BROKEN, RAN, lay_out, ran
from kit.step_functions import executed, function
from mainspring.deploy.exports import export, file_name
from mainspring.deploy.exports.place import Place
from mainspring.operations.pipelines.outside import Asked, run_step
from mainspring.project import Project

PROGRAMS = {
    "prefect": "from nightly_flow import pipeline_nightly\npipeline_nightly()\n",
    "dagster": (
        "import dagster\nfrom nightly_job import pipeline_nightly\n"
        "with dagster.DagsterInstance.ephemeral() as instance:\n"
        "    assert pipeline_nightly.execute_in_process(instance=instance, raise_on_error=False).success\n"
    ),
    "kubeflow": (
        "from kfp import compiler, local\nlocal.init(runner=local.SubprocessRunner(use_venv=False))\n"
        "from nightly_pipeline import pipeline_nightly\npipeline_nightly()\n"
        "compiler.Compiler().compile(pipeline_nightly, 'nightly.yaml')\n"
    ),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = lay_out(tmp_path / "project")
    yield project
    project.close()


def azure_job(project: Project, name: str) -> Any:
    place = Place([sys.executable, "-m", "mainspring"], image="shop:1", folder=str(project.settings.root))
    return json.loads(export(project.definitions.pipeline(name), "azureml", place))


def test_steps_of_azure_hand_over_files(project: Project, tmp_path: Path) -> None:
    found = run_job(azure_job(project, "nightly"), tmp_path, project.settings.root, only=("load", "fit_one"))
    assert found["load"]["result"]["folds"] == [0, 1, 2]
    assert found["fit-one"] == run_step(project, "nightly", "fit-one", Asked({}, {"load": found["load"]}))


@deep
@pytest.mark.parametrize(("name", "expected"), [("nightly", RAN), ("broken", BROKEN)])
def test_a_job_of_azure_runs(name: str, expected: dict[str, int], project: Project, tmp_path: Path) -> None:
    """Also what goes on where a step fails or is ended by its time-out."""
    run_job(azure_job(project, name), tmp_path, project.settings.root)
    assert ran(project.settings.root) == expected


@deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "expected"), [("nightly", RAN), ("broken", BROKEN)])
@pytest.mark.parametrize("engine", ["airflow", "prefect", "dagster", "kubeflow"])
def test_an_engine_runs_the_export(
    engine: str, name: str, expected: dict[str, int], project: Project, tmp_path: Path
) -> None:
    """Also what goes on where a step fails or is ended by its time-out."""
    if (engine, name) == ("kubeflow", "broken"):
        pytest.skip("kfp's local runner does not go on after a failure")
    graph = project.definitions.pipeline(name)
    command = [sys.executable, "-m", "mainspring"]
    place = Place(command, image="none", folder=str(project.settings.root))
    (tmp_path / file_name(graph, engine)).write_text(export(graph, engine, place))
    (tmp_path / "run.py").write_text(PROGRAMS.get(engine, "").replace("nightly", name))
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }
    python = python_of(engine)
    commands: Sequence[list[str]] = [[str(python), "run.py"]]
    if engine == "airflow":
        airflow = str(python.with_name("airflow"))
        commands = [[airflow, "db", "migrate"], [airflow, "dags", "test", name]]
    for each in commands:
        done = subprocess.run(
            each, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        well = done.returncode == 0
        assert well or (name == "broken" and each is commands[-1]), f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert ran(project.settings.root) == expected, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("name", "expected"), [pytest.param("nightly", RAN, marks=deep), ("asked", {"load 1": 1, "retire": 1})]
)
def test_step_functions_run_the_export(name: str, expected: dict[str, int], project: Project) -> None:
    graph = project.definitions.pipeline(name)
    with function(project) as served:
        found = executed(served, name, export(graph, "step-functions", Place()), dict(graph.parameters))
    assert found["status"] == "SUCCEEDED", found
    assert ran(project.settings.root) == expected
