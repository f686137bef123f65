"""`mainspring ci` on a real project: seven stages, reports, and the workflows' own scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from kit.depot import ENDPOINT, MODEL, Depot
from mainspring.operations.ci.model import STAGES
from mainspring.operations.ci.release import production_checks
from mainspring.project import open_project
from mainspring.project.settings import load_settings


def states(report: Any) -> dict[str, set[str]]:
    return {stage["name"]: {check["state"] for check in stage["checks"]} for stage in report["stages"]}


def checks(report: Any, stage: str) -> dict[str, Any]:
    [found] = [each for each in report["stages"] if each["name"] == stage]
    return {check["name"]: check for check in found["checks"]}


def test_a_change_is_checked_and_nothing_is_registered(depot: Depot, tmp_path: Path) -> None:
    (depot.root / "test_parcels.py").write_text("def test_true():\n    assert True\n")
    before = depot.json("models", "list", MODEL)
    ran = depot.run("ci", "--share", "0.6", "--report", str(tmp_path / "out"), "--json")
    assert ran.code == 0, ran
    report = ran.document
    assert [stage["name"] for stage in report["stages"]] == list(STAGES)
    assert report["passed"]
    assert states(report)["staging"] == states(report)["production"] == {"skipped"}
    assert "1 passed" in checks(report, "tests")["own tests"]["detail"]
    assert checks(report, "training")["training"]["state"] == "passed"
    assert any("champion" in name for name in checks(report, "evaluation"))
    assert checks(report, "validation")["size"]["state"] == "passed"
    assert depot.json("models", "list", MODEL) == before
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == report
    suites = ElementTree.fromstring((tmp_path / "out" / "report.xml").read_text())
    assert [suite.get("name") for suite in suites] == list(STAGES)
    assert "# Model pipeline of depot: passed" in (tmp_path / "out" / "report.md").read_text()


def test_a_failed_test_ends_it(depot: Depot) -> None:
    (depot.root / "test_parcels.py").write_text("def test_false():\n    assert 1 == 2\n")
    ran = depot.run("ci", "--json")
    assert ran.code == 3
    report = ran.document
    assert not report["passed"]
    assert "test_false" in checks(report, "tests")["own tests"]["detail"]
    assert states(report)["training"] == {"skipped"}


@pytest.mark.parametrize("arguments", [["--share", "0"], ["--share", "1.5"], ["no-such-model"]])
def test_what_cannot_be_run_is_refused(depot: Depot, arguments: list[str]) -> None:
    assert depot.run("ci", *arguments).code in (2, 4, 5)


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_the_script_of_a_workflow_runs(depot: Depot, system: str) -> None:
    """What the CI system would run, but for the installation; from a commit to a new champion."""
    path = Path(depot.json("ci", "--emit", system)["path"])
    written = yaml.safe_load(path.read_text())
    if system == "github":
        steps = {step["name"]: step["run"] for step in written["jobs"]["pipeline"]["steps"] if "run" in step}
        scripts = [steps["Check"], steps["Deliver"], steps["Summary"]]
    else:
        scripts = [line for job in ("check", "deliver") for line in written[job]["script"]]
    environment = {
        **depot.environment,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GITHUB_STEP_SUMMARY": str(depot.root / "summary.md"),
    }
    for script in scripts:
        done = subprocess.run(
            ["bash", "-ec", script], cwd=depot.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    report = json.loads((depot.root / "ci-report" / "report.json").read_text())
    assert "version 3 is champion" in checks(report, "production")["promotion"]["detail"]
    if system == "github":
        assert "Model pipeline of depot: passed" in (depot.root / "summary.md").read_text()


def test_a_declared_rollout_begins_instead_of_a_promotion(depot: Depot) -> None:
    with (depot.root / "parcels" / "service.py").open("a") as service:
        service.write(f'\nms.Rollout("{ENDPOINT}", steps=(0.1, 0.5))\n')
    project = open_project(load_settings(depot.root, environment={}))
    models = [project.definitions.model(MODEL)]
    [check] = production_checks(project, models, {MODEL: "2"})
    [again] = production_checks(project, models, {MODEL: "2"})
    project.close()
    assert check.state == "passed", check
    assert "version 2 began beside champion 1: canary, 10%, 50%" in check.detail
    assert again.state == "failed"  # one at a time
