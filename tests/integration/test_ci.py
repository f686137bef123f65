"""`mainspring ci` on a real project: seven stages, reports, and the workflows' own scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from kit import prefork
from kit.depot import ENDPOINT, MODEL, Depot
from kit.depth import deep
from kit.waiting import wait_until
from mainspring.operations.advise.facts import test_files as files_of_tests
from mainspring.operations.ci.code import own_tests
from mainspring.operations.ci.model import STAGES
from mainspring.operations.ci.release import production_checks
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import is_dead, process_tags


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


@pytest.mark.parametrize("system", ["github", pytest.param("gitlab", marks=deep)])
def test_the_script_of_a_workflow_runs(depot: Depot, system: str) -> None:
    """What the CI system would run, but for the installation; from a commit to a new champion."""
    ran = depot.run("ci", "--emit", system, "--json")
    assert "of profile 'local' stay on this machine" in ran.stderr
    path = Path(ran.document["path"])
    written = yaml.safe_load(path.read_text())
    if system == "github":
        steps = {step["name"]: step["run"] for step in written["jobs"]["pipeline"]["steps"] if "run" in step}
        scripts = [steps["Check"], steps["Deliver"], steps["Summary"]]
    else:
        scripts = [line for job in ("check", "deliver") for line in written[job]["script"]]
    environment = {
        **depot.environment,
        "PATH": os.pathsep.join(map(str, [prefork.programs(), Path(sys.executable).parent, os.environ["PATH"]])),
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


def folder_with(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "test_it.py").write_text(text)
    return folder


def test_tests_that_hang_or_leave_a_process_behind_end(tmp_path: Path) -> None:
    """The sleeping children are killed with their parent: no pipe is waited for, and nothing goes on."""
    sleeper = "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    hanging = folder_with(tmp_path / "a", f"{sleeper}open('pid', 'w').write(str(p.pid))\np.wait()\n")
    check = own_tests(hanging, longest_s=5.0)
    assert (check.state, "did not end within" in check.detail) == ("failed", True)
    left = folder_with(tmp_path / "b", f"{sleeper}open('pid', 'w').write(str(p.pid))\ndef test_it():\n    pass\n")
    assert own_tests(left).state == "passed"
    for folder in (hanging, left):
        pid = int((folder / "pid").read_text())
        wait_until(partial(is_dead, process_tags(pid)), "the child to be gone")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')\ndef test_it():\n    assert 'x' == '\\ud800'\n", "FAILED"),
        ("import nothing_of_this_name\n", "ERROR"),
        ("", "no tests ran"),
        ("import os\nos._exit(7)\n", "code 7"),
        ("raise SystemExit(3)\n", ""),
    ],
)
def test_tests_that_print_bytes_or_do_not_even_begin_fail(tmp_path: Path, text: str, said: str) -> None:
    check = own_tests(folder_with(tmp_path, text))
    assert check.state == "failed"
    assert check.detail
    assert said in check.detail


def test_test_files_of_installed_packages_are_not_the_projects(tmp_path: Path) -> None:
    for place in ("mine", "env/lib", ".tox/py/lib", "venv/x", "deep/site-packages/numpy"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "test_a.py").write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "test_folder.py").mkdir()
    (tmp_path / "mine" / "test_gone.py").symlink_to(tmp_path / "nothing")
    assert [str(path.relative_to(tmp_path)) for path in files_of_tests(tmp_path)] == ["mine/test_a.py"]


def test_definitions_that_do_not_load_and_code_that_raises_are_in_the_report(depot: Depot, tmp_path: Path) -> None:
    model = depot.root / "parcels" / "model.py"
    text = model.read_text()
    model.write_text(text.replace("    trees =", "    raise ZeroDivisionError('by nothing')\n    trees ="))
    ran = depot.run("ci", "--json", "--report", str(tmp_path / "raised"))
    assert ran.code == 3, ran
    [check] = checks(ran.document, "training").values()
    assert check["state"] == "failed"
    assert "by nothing" in check["detail"]
    assert (tmp_path / "raised" / "report.xml").exists()
    model.write_text("import nothing_of_this_name\n")
    ran = depot.run("ci", "--json", "--report", str(tmp_path / "broken"))
    assert ran.code == 3, ran
    assert checks(ran.document, "commit")["definitions"]["state"] == "failed"
    assert states(ran.document)["tests"] == {"skipped"}
    assert "nothing_of_this_name" in (tmp_path / "broken" / "report.md").read_text()


def test_every_kind_of_gate_is_judged_in_its_stage(depot: Depot) -> None:
    """Memory is measured, a group is no longer missed, and a deadline of parts of milliseconds is one."""
    model = depot.root / "parcels" / "model.py"
    gates = (
        'ms.beats("auc", by=0.01), ms.gates.memory("4GB"), ms.gates.size("1GB"), ms.gates.nulls(1.0), '
        'ms.gates.fair("hub", "equal error", at_most=1.0, least_rows=1, sure=None)'
    )
    model.write_text(model.read_text().replace('ms.beats("auc", by=0.01)', gates))
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text().replace('"30s"', '"29s 500us"'))
    ran = depot.run("ci", "--json", "--share", "0.6")
    assert ran.code == 0, ran
    found = checks(ran.document, "validation")
    assert {name: check["state"] for name, check in found.items() if " at most " in name and "latency" not in name} == {
        "memory at most 4,000,000,000 bytes against limit": "passed",
        "equal error difference at most 1, by hub of 1 rows against groups": "passed",
        "size at most 1,000,000,000 bytes against limit": "passed",
        "nulls of each feature at most 1 against training data": "passed",
    } | {name: check["state"] for name, check in found.items() if "worse by at most" in name}
    assert "bias" not in found
    assert any("p99" in name and "29s 500us" in name for name in found)


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
