"""`mainspring pipelines`, each command a process, with the worker of a running `up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.depot import MODEL, Depot, lay_out
from kit.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
FLOWS = f'''
import mainspring as ms


@ms.job
def shout(run, project):
    """Print something."""
    print("loud and clear")
    run.progress(1, 2)
    return run.step("count", lambda: project.name)


@ms.step
def judge(trained):
    print("version", trained["version"])
    return trained["training_rows"] > 0


@ms.pipeline
def train_it():
    """Train, and look at it."""
    good = judge(ms.task("train", model="{MODEL}"))
    with ms.only_if(good), ms.approval("release"):
        ms.task("monitor", endpoints=[])
'''


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    made = lay_out(tmp_path / "depot")
    (made.root / "late_flows.py").write_text(FLOWS)
    toml = made.root / "mainspring.toml"
    toml.write_text(toml.read_text().replace("modules = [", 'modules = ["late_flows", ', 1))
    made.ingest_all()
    return made


def test_the_worker_runs_a_pipeline_and_jobs_in_processes_of_their_own(depot: Depot) -> None:
    with depot.up():
        shouted = depot.json("jobs", "run", "shout", "--wait")
        assert (shouted["status"], shouted["progress"]["done"]) == ("done", 1)
        assert depot.json("jobs", "logs", shouted["id"]) == {"log": "loud and clear\n"}
        run = depot.json("pipelines", "run", "train-it")
        assert run["status"] == "waiting"
        assert {step["name"]: step["status"] for step in run["steps"]} == {
            "train": "done", "judge": "done", "release": "waiting", "monitor": "waiting",
        }  # fmt: skip
        told = wait_until(lambda: depot.json("pipelines", "logs", run["id"], "judge"), "the log of the step")
        assert told == {"judge": "version 1\n"}
        assert depot.json("pipelines", "approve", run["id"], "release", "--note", "fine")["approved_by"]
        wait_until(lambda: depot.json("pipelines", "status", run["id"])["status"] == "done", "the run's end")
    [found] = depot.json("pipelines", "list")
    assert (found["name"], found["newest"]["status"]) == ("train-it", "done")
    assert depot.run("pipelines", "graph", "train-it").code == 0
    assert depot.run("pipelines", "retry", run["id"]).code == 6
    assert depot.run("pipelines", "run", "train-itt").code == 4
